"""Split criteria: how much a block of patches deserves to be looked at closely.

A criterion takes a batch of images of one size and returns, for every block of ``2^k x 2^k`` patches on the grid that
the quadtree uses, a score; a block whose score reaches ``alpha`` splits (design: eq. 2 of the paper).

    criterion(images, patch_size, levels) -> [scores at k = 1, ..., levels]
        images  (B, C, H, W) float, H and W multiples of ``patch_size * 2**levels``
        scores  (B, H / (p 2^k), W / (p 2^k))

The built-in ones read the pixels once and then merge 2 x 2 small summaries per level. A user's own criterion is simpler:
any function of square blocks, ``(..., C, S, S) -> (...)``; `blockwise` applies it level by level.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Criterion = Callable[[Tensor, int, int], list[Tensor]]
BlockScore = Callable[[Tensor], Tensor]


def split_blocks(images: Tensor, side: int) -> Tensor:
    """View images ``(B, C, H, W)`` as blocks ``(B, H/side, W/side, C, side, side)``; nothing is copied."""
    return images.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5)


def blockwise(score: BlockScore, images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Apply ``score``, a function ``(..., C, S, S) -> (...)`` of square blocks, at every level.

    Raises:
        ValueError: if ``score`` does not return one number a block.
    """
    scores = []
    for level in range(1, levels + 1):
        blocks = split_blocks(images, patch_size << level)
        values = score(blocks)
        if not isinstance(values, Tensor) or values.shape != blocks.shape[:3]:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"criterion: got {got} for blocks of shape {tuple(blocks.shape)}; a criterion maps blocks "
                f"(..., C, S, S) to one score each, here a tensor of shape {tuple(blocks.shape[:3])}"
            )
        scores.append(values.float())
    return scores


def _quads(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four children (top left, top right, bottom left, bottom right) of every 2 x 2 group of ``(B, h, w, ...)``."""
    return x[:, ::2, ::2], x[:, ::2, 1::2], x[:, 1::2, ::2], x[:, 1::2, 1::2]


def _largest(*tensors: Tensor) -> Tensor:
    out = tensors[0]
    for tensor in tensors[1:]:
        out = torch.maximum(out, tensor)
    return out


def _max_of_pairs(pairs: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Largest value of ``pairs (B, H-1, W-1)`` inside every block, where ``pairs[y, x]`` belongs to a block only if the
    pixels ``(y, x)`` and ``(y+1, x+1)`` both do.

    Values on a patch's last row or column straddle two patches and count only once a block holds both, so each patch is
    summed up by four maxima: its interior, its last row, its last column and the corner.
    """
    p = patch_size
    tiles = F.pad(pairs, (0, 1, 0, 1), value=-torch.inf).unflatten(2, (-1, p)).unflatten(1, (-1, p))  # (B, h, p, w, p)
    by_column = tiles[:, :, : p - 1].amax(2)  # (B, h, w, p)
    last_row = tiles[:, :, p - 1]
    interior, column = by_column[..., : p - 1].amax(-1), by_column[..., p - 1]
    row, corner = last_row[..., : p - 1].amax(-1), last_row[..., p - 1]
    scores = []
    for _ in range(levels):
        row_tl, row_tr, row_bl, row_br = _quads(row)
        col_tl, col_tr, col_bl, col_br = _quads(column)
        cor_tl, cor_tr, cor_bl, cor_br = _quads(corner)
        interior = _largest(*_quads(interior), row_tl, row_tr, col_tl, col_bl, cor_tl)
        row, column, corner = _largest(row_bl, row_br, cor_bl), _largest(col_tr, col_br, cor_tr), cor_br
        scores.append(interior)
    return scores


def derivative(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Largest diagonal difference ``I[y+1, x+1] - I[y, x]`` over channels and pixels (eq. 2). Signed on purpose."""
    return _max_of_pairs((images[..., 1:, 1:] - images[..., :-1, :-1]).amax(1), patch_size, levels)


def gradient(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Largest ``|I[y, x+1] - I[y, x]| + |I[y+1, x] - I[y, x]|`` over channels and pixels (appendix F of the paper)."""
    here = images[..., :-1, :-1]
    pairs = (images[..., :-1, 1:] - here).abs() + (images[..., 1:, :-1] - here).abs()
    return _max_of_pairs(pairs.amax(1), patch_size, levels)


def variance(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Variance of the pixels of a block, averaged over the channels.

    Merged by "variance of the whole = mean of the variances + variance of the means", which loses no digits.
    """
    blocks = split_blocks(images, patch_size)
    within, mean = torch.var_mean(blocks, dim=(-2, -1), correction=0)  # (B, h, w, C)
    scores = []
    for _ in range(levels):
        between, merged = torch.var_mean(torch.stack(_quads(mean)), dim=0, correction=0)
        within, mean = torch.stack(_quads(within)).mean(0) + between, merged
        scores.append(within.mean(-1))
    return scores


def entropy(images: Tensor, patch_size: int, levels: int, bins: int = 64) -> list[Tensor]:
    """Entropy, in bits, of the grey-level histogram of a block: 64 equal bins over the image's own grey range.

    The measure of Adaptive Patch Transformers (arXiv 2510.18091). One scatter-add counts every patch's histogram.
    """
    grey = images.mean(1)  # (B, H, W)
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    index = ((grey - low) * (bins / (high - low).clamp_min(1e-12))).long().clamp_(0, bins - 1)
    batch, height, width = grey.shape
    h, w = height // patch_size, width // patch_size
    rows = torch.arange(height, device=grey.device)[:, None] // patch_size
    columns = torch.arange(width, device=grey.device) // patch_size
    patch = torch.arange(batch, device=grey.device)[:, None, None] * (h * w) + rows * w + columns
    counts = torch.zeros(batch * h * w * bins, device=grey.device)
    counts.scatter_add_(0, index.add_(patch * bins).flatten(), counts.new_ones(()).expand(index.numel()))
    histogram = counts.view(batch, h, w, bins)
    scores = []
    for level in range(1, levels + 1):
        histogram = sum(_quads(histogram), torch.zeros((), device=grey.device))
        frequency = histogram / (patch_size << level) ** 2
        scores.append(-torch.xlogy(frequency, frequency).sum(-1) / torch.log(torch.tensor(2.0)).item())
    return scores


def reconstruction(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Mean squared error between a block and its ``p x p`` version scaled back up: what merging it would lose."""

    def score(blocks: Tensor) -> Tensor:
        flat = blocks.flatten(0, 2)
        small = F.interpolate(flat, size=(patch_size, patch_size), mode="bilinear", antialias=True)
        lost = F.interpolate(small, size=flat.shape[-2:], mode="bilinear") - flat
        return lost.square_().mean((-3, -2, -1)).view(blocks.shape[:3])

    return blockwise(score, images, patch_size, levels)


def random(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Uniform in [0, 1): with it, ``alpha`` is the probability of merging. Draws from torch's own generator."""
    return [torch.rand(shape, device=images.device) for shape in _level_shapes(images, patch_size, levels)]


def uniform(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Infinite: nothing ever merges, whatever ``alpha``, which leaves CLIP's own grid."""
    return [images.new_full(shape, torch.inf) for shape in _level_shapes(images, patch_size, levels)]


def _level_shapes(images: Tensor, patch_size: int, levels: int) -> list[tuple[int, int, int]]:
    batch, _, height, width = images.shape
    sides = [patch_size << level for level in range(1, levels + 1)]
    return [(batch, height // side, width // side) for side in sides]


CRITERIA: dict[str, Criterion] = {
    function.__name__: function
    for function in (derivative, gradient, variance, entropy, reconstruction, random, uniform)
}


def get_criterion(criterion: str | BlockScore) -> Criterion:
    """Look a criterion up by name, or wrap a user's block function ``(..., C, S, S) -> (...)``.

    Raises:
        ValueError: for a name that is not in `CRITERIA`.
        TypeError: for anything that is neither a name nor callable.
    """
    if isinstance(criterion, str):
        if criterion not in CRITERIA:
            known = ", ".join(CRITERIA)
            raise ValueError(f"criterion: got {criterion!r}; known are {known}, or pass a function of blocks")
        return CRITERIA[criterion]
    if callable(criterion):
        return partial(blockwise, criterion)
    raise TypeError(f"criterion: got {type(criterion).__name__}; pass a name or a function (..., C, S, S) -> (...)")
