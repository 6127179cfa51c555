"""The quadtree and its patches straight from eight-bit pixels, where numba is installed: ``pip install "qlip[fast]"``.

Without it, on a GPU and for other criteria, tensors do the same (`qlip.core.quadtree`, `qlip.core.patches`).
"""

from functools import cache, lru_cache
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qlip.core.patches import patch_side
from qlip.core.quadtree import Leaves, Quadtree
from qlip.core.resample import resample_taps

Array = NDArray[np.float32]
Ints = NDArray[np.int64]


@cache
def kernels() -> ModuleType | None:
    """The loops that numba compiles; None where it is not installed."""
    try:
        from qlip.core import kernels
    except Exception:  # one that does not fit the installed numpy raises all sorts of errors
        return None
    return kernels


def can_find(tree: Quadtree, pixels: Tensor) -> bool:
    """Whether the compiled loops find the leaves of a picture ``(3, H, W)`` uint8."""
    return can_cut(pixels) and tree.criterion == "derivative" and tree.score is None


def can_cut(pixels: Tensor) -> bool:
    """Whether the compiled loops cut a picture ``(3, H, W)`` uint8."""
    return kernels() is not None and pixels.dtype == torch.uint8 and pixels.device.type == "cpu"


def find_leaves(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...], tree: Quadtree) -> Leaves:
    """The leaves that ``tree`` finds in a picture ``(3, H, W)`` uint8 once it is normalised.

    Raises:
        ValueError, OverBudgetError: as `Quadtree.batch`.
    """
    loops, p, (height, width) = kernels(), tree.patch_size, pixels.shape[1:]
    assert loops is not None
    roots = tree.roots_of(height, width)
    if roots.level == 0:  # no block of 2 x 2 patches, nothing to decide
        return tree.batch(pixels[None].float())[0]
    picture, (steps, slack) = _rows(pixels), _steps(mean, std)
    place = (roots.level, roots.rows, roots.cols, roots.top, roots.left)
    summary = loops.sum_up(picture, height, width, p, steps)
    scores = loops.score_blocks(summary, place)
    bound, most = tree.alpha, None  # or the score of the last block that the budget lets split
    if tree.max_tokens is not None:
        roots.check_budget(tree.max_tokens)
        most = (tree.max_tokens - roots.fewest_leaves()) // 3
        bound = _reached(scores, most)
    near = np.abs(scores - np.float32(bound)) <= slack if np.isfinite(bound) else False
    doubtful = np.flatnonzero(near & (scores != 0))  # zero is exact, for equal bytes are equal floats
    if len(doubtful):
        per_float = _per_float(mean, std, 3 * (p << roots.level) + 3)
        loops.sum_up_exactly(summary, doubtful, place, picture, p, *per_float)
        scores = loops.score_blocks(summary, place)
    splits = scores >= np.float32(bound) if most is None else _split_most(scores, most)
    row, col, size = torch.from_numpy(loops.collect(splits, roots.h, roots.w, place))
    return Leaves(row, col, size, (roots.h, roots.w))


def _reached(scores: Array, most: int) -> float:
    """The score that blocks reach if at most so many split, those not counted that must."""
    finite = scores[scores < np.inf]
    if most >= len(finite):
        return -np.inf
    return float(np.partition(finite, -most)[-most]) if most else np.inf


def _split_most(scores: Array, most: int) -> NDArray[np.bool_]:
    """Split at most so many blocks of those that need not, in the order of `qlip.core.quadtree`, which is that of the scores."""
    bound = _reached(scores, most)
    splits = (scores > bound) | (scores == np.inf)
    remaining = most - np.count_nonzero(splits & (scores < np.inf))
    equal = np.flatnonzero(scores == bound)  # parents first, then in reading order
    splits[equal[: max(remaining, 0)]] = True
    return splits


def cut(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...], leaves: Leaves) -> Tensor:
    """The patches ``(N, 3, p, p)`` float32 of a picture ``(3, H, W)`` uint8 once it is normalised, as `patchify` cuts them.

    Raises:
        ValueError: if the leaves belong to an image of another shape, or one is no square of 1, 2, 4, ... patches inside it.
    """
    loops, p = kernels(), patch_side(leaves, *pixels.shape[1:])
    assert loops is not None
    placed = torch.stack([leaves.row, leaves.col, leaves.size]).numpy()
    corner, size = placed[:2], placed[2]
    inside = (corner >= 0).all() and (size > 0).all() and (corner + size <= np.array(leaves.grid)[:, None]).all()
    if not inside or (size & (size - 1)).any():  # the loops would read past the picture
        raise ValueError(
            f"leaves: got some that are no squares of 1, 2, 4, ... patches inside a grid of {leaves.grid[0]} x "
            f"{leaves.grid[1]}; pass the leaves of this very image"
        )
    patches, largest = torch.empty(len(leaves), 3, p, p), int(size.max())
    per_float = _per_float(mean, std, 3 * p * largest)
    loops.cut(_rows(pixels), placed, *_taps(p, largest), *per_float, patches.numpy())
    return patches


def _rows(pixels: Tensor) -> tuple[NDArray[np.uint8], int]:
    """A picture ``(3, H, W)`` as `qlip.core.kernels` takes it: its bytes row after row, and how many from one row to the next."""
    if pixels.stride(0) != 1 or pixels.stride(2) != 3:
        pixels = pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    _, height, width = pixels.shape
    stride = pixels.stride(1)
    return pixels.as_strided(((height - 1) * stride + 3 * width,), (1,)).numpy(), stride


@lru_cache(maxsize=64)
def _steps(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Array, float]:
    """What a difference of one between two bytes makes once they are normalised, ``(3,)``, and what rounding can make at most."""
    shift, scale = _per_float(mean, std, 3)
    most = np.maximum(np.abs(shift), np.abs(255 - shift)) / scale
    slack = 32 * np.finfo(np.float32).eps * most.max()  # of two scores, of three or four operations each
    return (1 / scale).astype(np.float32), float(slack)


@lru_cache(maxsize=64)
def _per_float(mean: tuple[float, ...], std: tuple[float, ...], count: int) -> tuple[Array, Array]:
    """What is subtracted from, and then divides, each of ``count`` bytes of a row, red, green and blue in turn."""
    shift, scale = (np.resize((torch.tensor(values) * 255).numpy(), count) for values in (mean, std))
    return shift, scale


@lru_cache(maxsize=64)
def _taps(patch_size: int, largest: int) -> tuple[Ints, Array]:
    """First pixels and weights for leaves of 1, 2, 4, ... ``largest`` patches, see `qlip.core.kernels.cut`."""
    levels = largest.bit_length()
    starts, weights = np.zeros((levels, patch_size), np.int64), np.zeros((levels, patch_size, 2 * largest), np.float32)
    for level in range(1, levels):
        columns, taps = resample_taps(patch_size << level, patch_size, torch.device("cpu"))
        starts[level], weights[level, :, : taps.shape[1]] = columns[:, 0].numpy(), taps.numpy()
    return starts, weights
