"""Positions solved from a CLIP's own table: nothing is trained, and the result is the same every time."""

from typing import Any

import torch
from torch import Tensor

from qlip.core.position import PositionMLP
from qlip.towers.base import find_tower, position_table
from qlip.towers.load import load_tower
from qlip.zoo.config import ZooConfig
from qlip.zoo.entries import not_found
from qlip.zoo.registry import SOLVE, split_revision


def solved_position(table: Tensor, **architecture: Any) -> PositionMLP:
    """A `PositionMLP` solved for ``table (n, n, D)``: the same one every time, whatever the random state.

    Args:
        table: CLIP's own, without its class token; the result is on its device.
        architecture: ``hidden``, ``depth``, ``fourier`` and ``sigma`` of the `PositionMLP`.

    Raises:
        ValueError: if the grid has more points than the readout has weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = PositionMLP(table.shape[-1], table.shape[0], **architecture)
    return mlp.to(table.device).solve_(table)


def solve(source: str) -> tuple[PositionMLP, ZooConfig]:
    """Solve a position for ``solve:<CLIP id or folder>`` and describe it.

    Raises:
        NotFoundError: if the CLIP cannot be found.
    """
    name, revision = split_revision(source.removeprefix(SOLVE))
    try:
        clip = load_tower(name, revision)
    except OSError as error:
        raise not_found(f"{source}: the CLIP {name} is in no folder here and could not be had from the Hub") from error
    table, tower = position_table(clip), find_tower(clip)
    position = solved_position(table)
    residual, squared = position.residual(table)
    config = ZooConfig.of(
        position,
        backbone=name,
        backbone_revision=revision or getattr(tower.config, "_commit_hash", None),
        patch_size=tower.patch_size,
        metrics={"R": residual.item(), "R2": squared.item(), "offgrid": position.offgrid(table)},
    )
    return position, config
