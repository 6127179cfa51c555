"""A map from outside that says where to look: of a detector, a saliency model, an attention, a similarity to words."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def check_score_map(score: Any) -> Tensor:
    """The map as float32 ``(rows, columns)``, detached.

    Args:
        score: A tensor or an array; the larger a value, the more its place deserves to be looked at closely.

    Raises:
        TypeError: if it holds no numbers.
        ValueError: if it has not two axes, is empty, or has a value that is negative or not finite.
    """
    try:
        values = torch.as_tensor(score).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"score: got {type(score).__name__}; takes a map (rows, columns) of numbers") from error
    if values.ndim != 2 or not values.numel() or values.is_complex():
        raise ValueError(
            f"score: got {values.dtype} of shape {tuple(values.shape)}; takes a map (rows, columns) over the picture, such as "
            f"attention.mean(0).reshape(24, 24)"
        )
    values = values.float()
    if not values.isfinite().all() or values.min() < 0:
        raise ValueError(
            f"score: got values from {values.min():.3g} to {values.max():.3g}; takes finite values that are not negative. "
            f"Subtract the smallest first"
        )
    return values


def check_score_maps(score: Any, count: int) -> list[Tensor | None]:
    """A map, or None, for each of several pictures.

    Args:
        score: The map of the only picture, or a list with a map or None for each.
        count: Number of pictures.

    Raises:
        ValueError: if there are not as many maps as pictures, and as `check_score_map`.
    """
    maps = list(score) if isinstance(score, list | tuple) or getattr(score, "ndim", 2) == 3 else [score]
    if len(maps) != count:
        raise ValueError(
            f"score: got {len(maps)} maps for {count} pictures; takes a list with a map, or None, for each picture"
        )
    return [None if each is None else check_score_map(each) for each in maps]


def largest_inside(score: Tensor, rows: Sequence[float], cols: Sequence[float]) -> Tensor:
    """The largest value of a map over each cell of another grid: of every value that the cell touches.

    Args:
        score: Map ``(rows, columns)`` over a whole picture.
        rows: Edges of the grid's ``h`` rows, ``h + 1`` rising shares of the picture's height; 0 is its top, 1 its bottom.
        cols: Edges of the grid's ``w`` columns, likewise.

    Returns:
        ``(h, w)``; zero where a cell lies outside the picture.
    """
    lines = torch.stack([_largest(score, 0, *edges) for edges in pairwise(rows)])
    return torch.stack([_largest(lines, 1, *edges) for edges in pairwise(cols)], dim=1)


def _largest(values: Tensor, axis: int, first: float, last: float) -> Tensor:
    """The largest along an axis between two shares of its length."""
    count, slack = values.shape[axis], 1e-6  # cells that meet at an edge do not touch, whatever rounding says
    start, end = max(math.floor(first * count + slack), 0), min(math.ceil(last * count - slack), count)
    if start >= end:
        return values.new_zeros(values.shape[1 - axis])
    return values.narrow(axis, start, end - start).amax(axis)
