"""Resampling of squares as multiplication by matrices: it serves every device, and every block of a size at once."""

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@lru_cache(maxsize=64)
def resample_matrix(side: int, to: int, device: torch.device) -> Tensor:
    """Bilinear resampling, antialiased, from ``side`` to ``to`` pixels as a matrix ``(to, side)`` float32.

    It is what torch does to the unit vectors.
    """
    unit = torch.eye(side, dtype=torch.float64).view(side, 1, 1, side)
    weights = F.interpolate(unit, size=(1, to), mode="bilinear", antialias=True).view(side, to).T
    return weights.float().contiguous().to(device)


@lru_cache(maxsize=64)
def resample_taps(side: int, to: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows of `resample_matrix` without most of their zeros: columns int32 and weights, ``(to, taps)`` each."""
    weights = resample_matrix(side, to, device)
    used = weights != 0
    taps = int(used.sum(1).max())
    first = used.int().argmax(1).clamp_max(side - taps)
    columns = first[:, None] + torch.arange(taps, device=device)
    return columns.int(), weights.gather(1, columns)


def resample(squares: Tensor, to: int) -> Tensor:
    """Resample squares ``(..., side, side)`` float32 to ``(..., to, to)``, each from its own pixels alone."""
    weights = resample_matrix(squares.shape[-1], to, squares.device)
    return weights @ squares @ weights.T


def read_table(table: Tensor, geometry: Tensor, kernel: Literal["bilinear", "bicubic"]) -> Tensor:
    """A table ``(n, n, D)`` at leaves ``(..., 5)``, as ``F.interpolate(antialias=True)`` resizes it: ``(..., D)``.

    Where every leaf is a patch this is that very resizing, edges aligned. The kernel is as wide as a patch of the image, not
    as the leaf.

    Args:
        table: Rows first; computed in float32, returned in its own dtype.
        geometry: See `qlip.core.quadtree.Leaves.geometry`.
        kernel: The triangle, or Keys's cubic with a = -1/2, as torch and PIL antialias.
    """
    entries = torch.arange(len(table), device=geometry.device)
    centre = geometry[..., :2] + geometry[..., 2:3].double() / 2
    scale = len(table) / geometry[..., 3:].double()
    away = (entries - (centre * scale - 0.5)[..., None]).abs() / scale.clamp(min=1)[..., None]  # (..., axis, n)
    if kernel == "bilinear":
        weights = (1 - away).clamp(min=0)
    else:
        near, far = (1.5 * away - 2.5) * away**2 + 1, ((-0.5 * away + 2.5) * away - 4) * away + 2
        weights = torch.where(away < 1, near, torch.where(away < 2, far, 0.0))
    rows, cols = (weights / weights.sum(-1, keepdim=True)).float().unbind(-2)
    values = torch.einsum("...i,...j,ijd->...d", rows, cols, table.float())
    return values.to(table.dtype)
