"""The quadtree and its patches in loops over eight-bit pixels, which numba compiles; `qlip.core.compiled` is the way in.

They find what the tensors of `qlip.core.quadtree` and `qlip.core.patches` find: leaves to the last bit, patches to rounding.
The rows of a `Picture` lie in one array of bytes, red, green and blue in turn.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Picture = tuple[NDArray[np.uint8], int]  # its bytes, and how many from one row to the next
Place = tuple[int, int, int, int, int]  # of the roots: level, rows, cols, top, left, see `qlip.core.roots.Roots`
Function = TypeVar("Function", bound=Callable[..., Any])

STRIP = 3072  # bytes of a row that are looked at together; what is kept of them stays in the first cache of a processor
_NONE = -1000  # less than any difference of two bytes


def compiled(function: Function) -> Function:
    """Compile a function when it is first called, without Python's lock; later processes read it from a file."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # there is no folder to write the file to
        return cast(Function, numba.njit(**options)(function))


@compiled
def sum_up(picture: Picture, height: int, width: int, patch_size: int, steps: Floats) -> Floats:
    """The summary of an image for `derivative`, ``(2 h, 2 w)``, see `qlip.core.criteria.largest`: all in one pass, to rounding.

    Bytes are compared as integers, many at a time. The picture is of ``height x width`` pixels, whole patches; ``steps (3,)`` are what
    a difference of one is in red, green and blue.
    """
    rows, stride = picture
    h, w, across = height // patch_size, width // patch_size, 3 * patch_size
    summary = np.full((2 * h, 2 * w), -np.inf, np.float32)
    strip = max(STRIP // across, 1)
    largest = np.empty((2, strip * across), np.int16)  # of columns of bytes: in a patch's inner rows, in its last
    for r in range(h):
        for first in range(0, w, strip):
            at, last = first * across, min(first + strip, w)
            count = min((last - first) * across, 3 * width - 3 - at)  # nothing is right of the border
            largest[:] = _NONE
            for y in range(r * patch_size, min((r + 1) * patch_size, height - 1)):
                here, below = rows[y * stride + at :], rows[(y + 1) * stride + at + 3 :]
                most = largest[0] if y % patch_size < patch_size - 1 else largest[1]
                for i in range(count):
                    difference = np.int16(np.int16(below[i]) - np.int16(here[i]))
                    most[i] = difference if difference > most[i] else most[i]
            for k in range(2):
                most = largest[k]
                for c in range(first, last):
                    start, end = (c - first) * across, (c - first + 1) * across - 3
                    red = green = blue = np.int16(_NONE)
                    for i in range(start, end, 3):
                        red, green, blue = max(red, most[i]), max(green, most[i + 1]), max(blue, most[i + 2])
                    if red > _NONE:
                        summary[2 * r + k, 2 * c] = max(red * steps[0], green * steps[1], blue * steps[2])
                    if most[end] > _NONE:
                        red, green, blue = most[end], most[end + 1], most[end + 2]
                        summary[2 * r + k, 2 * c + 1] = max(red * steps[0], green * steps[1], blue * steps[2])
    return summary


@compiled
def sum_up_exactly(
    summary: Floats, which: Ints, place: Place, picture: Picture, patch_size: int, shift: Floats, scale: Floats
) -> None:
    """Correct the summary of the patches in some blocks, all inside the image, to what tensors find, to the last bit.

    Floats are subtracted here, one from another. ``which (n,)`` are places among the blocks of `score_blocks`, rising; ``shift`` and
    ``scale`` repeat red, green and blue for the width of a root and a pixel more.
    """
    level, rows, cols, top, left = place
    read_from, stride = picture
    h, w = summary.shape[0] // 2, summary.shape[1] // 2
    done = np.zeros((h, w), np.bool_)
    lines, largest = np.empty((2, len(shift)), np.float32), np.empty((2, len(shift)), np.float32)
    for i in which:
        depth = 0
        while first_of(depth + 1, rows * cols) <= i:
            depth += 1
        at, size = i - first_of(depth, rows * cols), 1 << (level - depth)
        row, col = at // (cols << depth) * size + top, at % (cols << depth) * size + left
        if done[row, col]:  # with a block around it, which came before
            continue
        done[row : row + size, col : col + size] = True
        across, inner = 3 * patch_size, 3 * (patch_size - 1)
        count = size * across if col + size < w else size * across - 3
        for r in range(row, row + size):
            largest[:, : size * across] = -np.inf
            for y in range(patch_size + 1 if r < h - 1 else patch_size):
                here, above = lines[y % 2], lines[1 - y % 2]
                read = read_from[(r * patch_size + y) * stride + col * across :]
                for x in range(count + 3):
                    here[x] = (np.float32(read[x]) - shift[x]) / scale[x]
                if y:
                    most = largest[0] if y < patch_size else largest[1]
                    for x in range(count):
                        most[x] = np.maximum(most[x], here[x + 3] - above[x])  # unlike max, a single instruction
            for k in range(2):
                for c in range(size):
                    of_patch = largest[k, c * across : (c + 1) * across]
                    if inner:
                        summary[2 * r + k, 2 * (col + c)] = of_patch[:inner].max()
                    summary[2 * r + k, 2 * (col + c) + 1] = of_patch[inner:].max()


@compiled
def first_of(depth: int, roots: int) -> int:
    """Where the blocks of a depth begin among all: the roots come first, then four times as many, and so on."""
    return roots * ((1 << 2 * depth) - 1) // 3


@compiled
def score_blocks(summary: Floats, place: Place) -> Floats:
    """Scores of all blocks, the roots first, each depth in reading order; infinite where one is not whole inside the image.

    None is larger than that of a block around it, which holds all of its pixels. The summary ``(2 h, 2 w)`` is that of `sum_up`.
    """
    level, rows, cols, top, left = place
    height, width, side = summary.shape[0], summary.shape[1], 2 << level
    below = np.full((rows * side, cols * side), np.inf, np.float32)
    for y in range(max(2 * top, 0), min(2 * top + rows * side, height)):
        for x in range(max(2 * left, 0), min(2 * left + cols * side, width)):
            below[y - 2 * top, x - 2 * left] = summary[y, x]
    scores = np.empty(first_of(level, rows * cols), np.float32)
    for k in range(1, level + 1):
        here = np.full((below.shape[0] // 2, below.shape[1] // 2), -np.inf, np.float32)
        for y in range(below.shape[0]):
            for x in range(below.shape[1]):  # 4 x 4 become a block's inside, last column, last row and corner
                row, col = y // 4 * 2 + y % 4 // 3, x // 4 * 2 + x % 4 // 3
                here[row, col] = max(here[row, col], below[y, x])
        first, high, wide = first_of(level - k, rows * cols), here.shape[0] // 2, here.shape[1] // 2
        for y in range(high):
            for x in range(wide):
                whole_high = 0 <= 2 * top + y * (2 << k) <= height - (2 << k)
                whole_wide = 0 <= 2 * left + x * (2 << k) <= width - (2 << k)
                scores[first + y * wide + x] = here[2 * y, 2 * x] if whole_high and whole_wide else np.inf
        below = here
    return scores


@compiled
def collect(splits: NDArray[np.bool_], h: int, w: int, place: Place) -> Ints:
    """Rows, columns and sizes of the leaves of an image of ``h x w`` patches, in reading order, ``(3, N)``.

    Which blocks split is given in the order of `score_blocks`.
    """
    level, rows, cols, top, left = place
    firsts = np.array([first_of(level - k, rows * cols) for k in range(level + 1)])
    leaves, count = np.empty((3, h * w), np.int64), 0
    for y in range(h):
        for x in range(w):
            row, col = y - top, x - left
            k = level if 0 <= row < rows << level and 0 <= col < cols << level else 0  # of the leaf here
            while k and splits[firsts[k] + (row >> k) * (cols << (level - k)) + (col >> k)]:
                k -= 1
            if not (row | col) & ((1 << k) - 1):
                leaves[0, count], leaves[1, count], leaves[2, count] = y, x, 1 << k
                count += 1
    return leaves[:, :count].copy()


@compiled
def cut(
    picture: Picture, leaves: Ints, starts: Ints, weights: Floats, shift: Floats, scale: Floats, patches: Floats
) -> None:
    """Cut a picture into its leaves, each resampled to a patch.

    Rows, columns and sizes of the leaves are ``(3, N)``, patches, which are written, ``(N, 3, p, p)``. For leaves of 1, 2, 4, ... patches
    ``starts (levels, p)`` says which pixel is the first that each of ``p`` is made of, and ``weights (levels, p, taps)`` what it and the
    next ones weigh, zero after the last. ``shift`` and ``scale`` repeat red, green and blue for the width of the largest leaf.
    """
    (rows, stride), p = picture, patches.shape[-1]
    longest = 3 * p * leaves[2].max()
    floats, sums = np.empty(3 * p * p, np.float32), np.empty((p, longest), np.float32)
    for n in range(leaves.shape[1]):
        size = leaves[2, n]
        corner = rows[leaves[0, n] * p * stride + leaves[1, n] * p * 3 :]
        if size > 1:
            level = 0
            while 1 << level < size:
                level += 1
            _merge(corner, stride, size, starts[level], weights[level], shift, scale, sums, patches[n])
            continue
        for y in range(p):
            read, row = corner[y * stride : y * stride + 3 * p], floats[y * 3 * p : (y + 1) * 3 * p]
            for i in range(3 * p):
                row[i] = read[i]
        for channel in range(3):
            plane, less, by = patches[n, channel].reshape(-1), shift[channel], scale[channel]
            for i in range(p * p):
                plane[i] = (floats[3 * i + channel] - less) / by


@compiled
def _merge(
    corner: NDArray[np.uint8],
    stride: int,
    size: int,
    starts: Ints,
    weights: Floats,
    shift: Floats,
    scale: Floats,
    sums: Floats,
    patch: Floats,
) -> None:
    """Resample the ``size x size`` patches at a corner to one: lines are summed with their weights as they are read, columns follow.

    Two are taken at a time, which spares half of the reading and writing of sums.
    """
    p, across = len(starts), 3 * len(starts) * size
    for y in range(p):
        taps, total = min(2 * size, p * size - starts[y]), sums[y, :across]
        total[:] = 0
        for tap in range(0, taps, 2):
            at, then = (starts[y] + tap) * stride, (starts[y] + min(tap + 1, taps - 1)) * stride
            first, second = corner[at : at + across], corner[then : then + across]
            weight, other = weights[y, tap], weights[y, tap + 1]
            for i in range(across):
                here = (np.float32(first[i]) - shift[i]) / scale[i]
                below = (np.float32(second[i]) - shift[i]) / scale[i]
                total[i] = total[i] + weight * here + other * below  # in this order, as tensors are summed
    for y in range(0, p, 2):
        then = min(y + 1, p - 1)
        first, second = sums[y], sums[then]
        for x in range(p):
            red = green = blue = np.float32(0)
            red_below = green_below = blue_below = np.float32(0)
            for tap in range(min(2 * size, p * size - starts[x])):
                weight, at = weights[x, tap], 3 * (starts[x] + tap)
                red += weight * first[at]
                green += weight * first[at + 1]
                blue += weight * first[at + 2]
                red_below += weight * second[at]
                green_below += weight * second[at + 1]
                blue_below += weight * second[at + 2]
            patch[0, y, x], patch[1, y, x], patch[2, y, x] = red, green, blue
            patch[0, then, x], patch[1, then, x], patch[2, then, x] = red_below, green_below, blue_below
