"""Resampling of squares as multiplication by matrices: it serves every device, and every block of a size at once."""

from functools import lru_cache

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
