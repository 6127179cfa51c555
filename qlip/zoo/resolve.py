"""Which position is meant: the one place that turns a name, a file or a source into a position for a tower."""

from difflib import get_close_matches
from pathlib import Path
from typing import Literal, cast, get_args

from torch import Tensor

from qlip.core.position import Position, PositionMLP, TableMode, TablePosition
from qlip.core.rules import shown
from qlip.zoo.entries import DEFAULT_ROOT, UnknownSourceError, local_entries
from qlip.zoo.load import load
from qlip.zoo.registry import REGISTRY
from qlip.zoo.solve import solved_position

PositionName = Literal["solve", TableMode]
NAMES: tuple[str, ...] = get_args(PositionName)


def resolve_position(position: Position | str | Path | None, table: Tensor) -> Position:
    """The position that is meant, for a tower with this table.

    Args:
        position: ``"solve"`` or None for a `PositionMLP` solved for the table; ``"bicubic"``, ``"bilinear"``, ``"nearest"``
            or ``"zero"`` for the table itself, see `TablePosition`; any other text, or a path, for what `qlip.load` takes;
            or a position, which is taken as it is.
        table: The tower's own ``(n, n, D)``, without its class token. What is made or loaded goes to its device.

    Raises:
        TypeError: if it is none of these.
        OSError: if it is sought by name and not found; the message lists what is taken.
        ValueError: if it is for another grid or width, or its file is damaged.
    """
    if position is None or position == "solve":
        return solved_position(table)
    if isinstance(position, str) and position in NAMES:
        return TablePosition(table, cast(TableMode, position))
    if isinstance(position, str | Path):
        position = _load(str(position)).to(table.device)
    if not callable(position):
        raise TypeError(f"position: got {type(position).__name__}; takes {_takes()}")
    if isinstance(position, PositionMLP | TablePosition) and (position.grid, position.dim) != tuple(table.shape[1:]):
        raise ValueError(
            f"position: got one for a {position.grid} x {position.grid} grid of width {position.dim}; this tower has "
            f"{table.shape[0]} x {table.shape[1]} of width {table.shape[2]}. Fit one for it, or use 'solve'"
        )
    return position


def _load(source: str) -> PositionMLP:
    try:
        return load(source)
    except UnknownSourceError:
        alike = get_close_matches(source, [*NAMES, *local_entries(), *REGISTRY], n=1)
        hint = f"; did you mean {alike[0]!r}?" if alike else "."
        raise UnknownSourceError(f"position: got {shown(source)}, which is not known{hint} Takes {_takes()}") from None


def _takes() -> str:
    """What a position can be, with all the names there are."""
    return (
        f"a name ({', '.join(map(repr, NAMES))}), a position (PositionMLP, TablePosition, or a function of coordinates), or "
        f"a source: solve:<CLIP id or folder>, a folder, an entry of {DEFAULT_ROOT}/ ({', '.join(local_entries()) or 'none'}), "
        f"a registered name ({', '.join(REGISTRY)}), or a Hub id (owner/name)"
    )
