"""Options of the tools: dataclasses of plain values, which load no torch."""

from dataclasses import dataclass
from pathlib import Path

from qlip.evaluation.names import Dtype


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


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The page of the demo."""

    model: str = "pocket-llava"
    """A model that answers in words about images: pocket-llava, which comes with the package and knows drawn shapes alone, a Hub id or
    a folder."""
    dtype: Dtype = "float32"
    """Number format that the weights are loaded in."""
    device: str = "auto"
    """Device to compute on, as torch names it: ``cuda``, ``cuda:1``, ``cpu``; ``auto`` is CUDA if there is any, else the CPU."""
    port: int | None = None
    """Port of this machine on which the page is served; the first free one from 7860 if not given."""
