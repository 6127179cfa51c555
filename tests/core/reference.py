"""The definitions of docs/definitions.md word for word and slowly: one block, one leaf, one pixel after the other."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

Leaf = tuple[int, int, int]
Roots = tuple[int, int, int, int, int]


def make_image(seed: int, patch_size: int, h: int, w: int) -> Tensor:
    """An image of ``h x w`` patches: smooth shapes, noise in one corner, a flat stripe, so that every level occurs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, 2 + seed % 5, 2 + seed % 3, generator=generator)
    image = F.interpolate(coarse, size=(h * patch_size, w * patch_size), mode="bilinear")[0]
    noise = torch.randn(image.shape, generator=generator)
    noise[:, : h * patch_size // 2, : w * patch_size // 3] = 0
    image = image + noise * torch.linspace(0, 0.5, w * patch_size)
    image[:, h * patch_size // 2 : h * patch_size * 2 // 3] *= 0.1
    return image


def random_case(seed: int) -> tuple[Tensor, int]:
    """An image of any small, often odd size, and its patch size."""
    rng = np.random.default_rng(seed)
    patch_size = int(rng.choice([1, 2, 3, 5]))
    h, w = (int(n) for n in rng.integers(1, 18, size=2))
    return make_image(seed, patch_size, h, w), patch_size


def roots(h: int, w: int, cover: str) -> Roots:
    """Side of the roots in patches, how many down and across, and the patch in which the first begins."""
    level = max(min(math.floor(math.log2(h)), math.floor(math.log2(w))) - 1, 0)
    if cover == "full" and min(h, w) > 1:
        level = max(level, 1)
    side = 2**level
    whole = math.ceil if cover == "full" else math.floor
    rows, cols = whole(h / side), whole(w / side)
    return side, rows, cols, (h - rows * side) // 2, (w - cols * side) // 2


def derivative(block: np.ndarray) -> float:
    return (block[:, 1:, 1:] - block[:, :-1, :-1]).max()


def gradient(block: np.ndarray) -> float:
    here = block[:, :-1, :-1]
    return (abs(block[:, :-1, 1:] - here) + abs(block[:, 1:, :-1] - here)).max()


def blur(image: np.ndarray) -> np.ndarray:
    """Of 2 pixels, for `blurred`, by another library."""
    return gaussian_filter(image.astype(np.float64), sigma=(0, 2, 2), mode="nearest", truncate=3)


def standing_out(image: np.ndarray, p: int) -> np.ndarray:
    """Score of every pixel by `contrast`, ``(1, H, W)``; the last row and column of the image have no gradient."""
    edges = np.zeros(image.shape[1:])
    here = image[:, :-1, :-1].astype(np.float64)
    edges[:-1, :-1] = (abs(image[:, :-1, 1:] - here) + abs(image[:, 1:, :-1] - here)).max(0)
    score = np.zeros_like(edges)
    for row in range(0, edges.shape[0], p):
        for col in range(0, edges.shape[1], p):
            near = edges[max(row - 4 * p, 0) : row + 5 * p, max(col - 4 * p, 0) : col + 5 * p]
            score[row : row + p, col : col + p] = edges[row : row + p, col : col + p] / (near.mean() + 0.05)
    return score[None]


def variance(block: np.ndarray) -> float:
    return block.astype(np.float64).reshape(len(block), -1).var(axis=1).mean()


def entropy(indices: np.ndarray) -> float:
    """Of a block whose pixels have been replaced by the bins of the image's histogram."""
    frequency = np.bincount(indices.ravel().astype(int)) / indices.size
    frequency = frequency[frequency > 0]
    return float(-(frequency * np.log2(frequency)).sum())


def reconstruction(block: np.ndarray, patch_size: int) -> float:
    pixels = torch.from_numpy(block)[None].double()
    small = F.interpolate(pixels, size=(patch_size, patch_size), mode="bilinear", antialias=True)
    return float((F.interpolate(small, size=pixels.shape[-2:], mode="bilinear") - pixels).square().mean())


def grey_bins(image: Tensor, under: tuple[slice, slice]) -> np.ndarray:
    """Each pixel's bin of 64 over the grey range of the area under the roots, ``(1, H, W)``."""
    grey = image.mean(0)
    low, high = grey[under].min(), grey[under].max()
    return ((grey - low) * (64 / (high - low).clamp_min(1e-12))).long().clamp(0, 63)[None].numpy()


def score_of(criterion: str, image: Tensor, patch_size: int, cover: str) -> Callable[[Leaf], float]:
    """The score of a block ``(row, col, size)``. For ``random``, it replays what torch's generator gives next."""
    p = patch_size
    h, w = image.shape[1] // p, image.shape[2] // p
    side, rows, cols, top, left = roots(h, w, cover)
    pixels = image.numpy()
    if criterion == "entropy":
        first = (max(top, 0) * p, max(left, 0) * p)
        last = ((top + rows * side) * p, (left + cols * side) * p)
        pixels = grey_bins(image, (slice(first[0], last[0]), slice(first[1], last[1])))
    if criterion == "random":
        levels = range(1, int(math.log2(side)) + 1)
        draws = {2**k: torch.rand(1, rows * side // 2**k, cols * side // 2**k)[0] for k in levels}
        return lambda leaf: float(draws[leaf[2]][(leaf[0] - top) // leaf[2], (leaf[1] - left) // leaf[2]])
    if criterion == "uniform":
        return lambda leaf: math.inf
    if criterion == "reconstruction":
        return lambda leaf: reconstruction(crop(pixels, leaf, p), p)
    if criterion == "blurred":
        pixels = blur(pixels)
    if criterion == "contrast":
        pixels = standing_out(pixels, p)
    function = {
        "derivative": derivative, "gradient": gradient, "blurred": derivative, "contrast": np.max, "variance": variance,
        "entropy": entropy,
    }[criterion]  # fmt: skip
    return lambda leaf: float(function(crop(pixels, leaf, p)))


def crop(image: np.ndarray, leaf: Leaf, patch_size: int) -> np.ndarray:
    row, col, size = (patch_size * x for x in leaf)
    return image[:, row : row + size, col : col + size]


def all_blocks(h: int, w: int, cover: str) -> list[Leaf]:
    """Every block of at least 2 x 2 patches that lies inside the image."""
    side, rows, cols, top, left = roots(h, w, cover)
    blocks = []
    size = side
    while size > 1:
        corners = [(r, c) for r in range(top, top + rows * side, size) for c in range(left, left + cols * side, size)]
        blocks += [(r, c, size) for r, c in corners if r >= 0 and c >= 0 and r + size <= h and c + size <= w]
        size //= 2
    return blocks


def leaves(scores: dict[Leaf, float], alpha: float, h: int, w: int, cover: str) -> list[Leaf]:
    """The leaves ``(row, col, size)`` in reading order; blocks without a score stick out of the image and must split."""
    side, rows, cols, top, left = roots(h, w, cover)
    found = []

    def visit(row: int, col: int, size: int) -> None:
        if row + size <= 0 or col + size <= 0 or row >= h or col >= w:
            return
        if size == 1 or scores.get((row, col, size), math.inf) < alpha:
            found.append((row, col, size))
            return
        half = size // 2
        for r in (row, row + half):
            for c in (col, col + half):
                visit(r, c, half)

    for i in range(rows):
        for j in range(cols):
            visit(top + i * side, left + j * side, side)
    for r in range(h):
        for c in range(w):
            if not (top <= r < top + rows * side and left <= c < left + cols * side):
                found.append((r, c, 1))
    return sorted(found)


def alphas_between(scores: dict[Leaf, float], count: int, seed: int) -> list[float]:
    """Random thresholds, each well inside a gap between two scores, so that rounding decides nothing."""
    values = np.unique([s for s in scores.values() if math.isfinite(s)])
    if len(values) < 2:
        return [0.3]
    gaps = np.diff(values)
    wide = np.flatnonzero(gaps > 1e-4 * max(values[-1] - values[0], 1e-3))
    picked = np.random.default_rng(seed).choice(wide, size=min(count, len(wide)), replace=False)
    return [float(values[i] + gaps[i] / 2) for i in picked]


def patches(image: Tensor, found: list[Leaf], patch_size: int) -> Tensor:
    """Every leaf resampled on its own by torch, ``(N, 3, p, p)``."""
    blocks = [torch.from_numpy(crop(image.numpy(), leaf, patch_size))[None] for leaf in found]
    size = (patch_size, patch_size)
    return torch.cat([F.interpolate(block, size=size, mode="bilinear", antialias=True) for block in blocks])


def coords(found: list[Leaf], h: int, w: int) -> list[tuple[float, float]]:
    """Centres in [-1, 1], row first."""

    def place(first: int, size: int, n: int) -> float:
        return 0.0 if n == 1 else -1 + 2 * (first + (size - 1) / 2) / (n - 1)

    return [(place(row, size, h), place(col, size, w)) for row, col, size in found]
