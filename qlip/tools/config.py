"""Options of the tools: dataclasses of plain values, which load no torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared."""

    budgets: tuple[int, ...] | None = None
    """Image tokens of each converted arm, such as [64,144]; if not given, a half and a quarter of what the stock model spends."""
    out: Path | None = None
    """Folder that gets the answers and the page; results/compare/QUESTIONS if not given."""

    def __post_init__(self) -> None:
        if self.budgets is not None and (not self.budgets or min(self.budgets) < 1):
            raise ValueError(
                f"budgets: got {list(self.budgets)}; takes whole numbers from 1, at least one, such as [64,144]"
            )
