"""From a name to a position for one tower."""

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from qlip.core.position import Position, PositionMLP, TableMode, TablePosition

PositionName = Literal[TableMode, "solve"]


def resolve_position(position: Position | str | Path | None, table: Tensor) -> Position:
    """Interim."""
    if position is None or position == "solve":
        return solved_position(table)
    if isinstance(position, str | Path) and str(position) not in get_args(TableMode):
        from qlip.zoo.load import load

        position = load(position)
    elif isinstance(position, str):
        return TablePosition(table, position)  # type: ignore[arg-type]
    if not callable(position):
        raise TypeError(f"position: got {type(position).__name__}")
    if isinstance(position, PositionMLP | TablePosition) and (position.grid, position.dim) != tuple(table.shape[1:]):
        raise ValueError(
            f"position: got one for a {position.grid} x {position.grid} grid of width {position.dim}; this tower has "
            f"{table.shape[0]} x {table.shape[1]} of width {table.shape[2]}. Fit one for it, or use 'solve'"
        )
    return position


def solved_position(table: Tensor, **architecture: int | float) -> PositionMLP:
    """A PositionMLP solved for ``table (n, n, D)``: the same one every time, whatever the random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = PositionMLP(table.shape[-1], table.shape[0], **architecture)  # type: ignore[arg-type]
    return mlp.to(table.device).solve_(table)
