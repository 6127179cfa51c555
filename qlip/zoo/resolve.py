"""From a name to a position for one tower."""

from typing import Literal, get_args

import torch
from torch import Tensor

from qlip.core.position import Position, PositionMLP, TableMode, TablePosition
from qlip.towers.load import Clip, position_table

PositionName = Literal[TableMode, "solve"]


def make_position(clip: Clip, position: Position | PositionName) -> Position:
    """Turn a name into a position for this CLIP, or check that a given one fits.

    Raises:
        ValueError: if the name is unknown, or width or grid differ from the tower's.
    """
    table = position_table(clip)
    if isinstance(position, str):
        if position == "solve":
            return solved_position(table)
        if position not in get_args(TableMode):
            raise ValueError(f"position: got {position!r}; takes 'solve', {', '.join(map(repr, get_args(TableMode)))}")
        return TablePosition(table, position)  # type: ignore[arg-type]
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
