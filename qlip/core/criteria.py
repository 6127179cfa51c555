"""Split criteria: how much a block of patches deserves to be looked at closely.

A criterion takes a batch of images of one size and returns, for every block of ``2^k x 2^k`` patches on the grid that
the quadtree uses, a score; a block whose score reaches ``alpha`` splits (eq. 2 of the paper; docs/definitions.md).

    criterion(images, patch_size, levels) -> [scores at k = 1, ..., levels]
        images  (B, C, H, W) float, H and W multiples of ``patch_size * 2**levels``
        scores  (B, H / (p 2^k), W / (p 2^k))

The built-in ones read the pixels once and then merge 2 x 2 small summaries per level. A user's own criterion is simpler:
any function of square blocks, ``(..., C, S, S) -> (...)``; `blockwise` applies it level by level.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qlip.core.bands import band_rows
from qlip.core.resample import resample
from qlip.core.rules import shown, suggestion

Criterion = Callable[[Tensor, int, int], list[Tensor]]
BlockScore = Callable[[Tensor], Tensor]

SIGMA = 2.0  # pixels, of `blurred`
REACH = math.ceil(3 * SIGMA)  # pixels, at which its Gaussian is cut off
AROUND = 9  # patches on a side of the surroundings of `contrast`; two to six objects of the pocket world
FLOOR = 0.05  # on the normalised image, of `contrast`: what is fainter than this does not stand out even from nothing


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


def _tiles(x: Tensor, side: int) -> Tensor:
    """View ``(..., H, W)`` as ``(..., H/side, side, W/side, side)``."""
    return x.unflatten(-1, (-1, side)).unflatten(-3, (-1, side))


def _summary(values: Tensor, patch_size: int) -> Tensor:
    """Patches as if they were of 2 x 2 pixels, ``(B, 2 h, 2 w)``: what `largest` needs to know of ``values (B, C, H-1, W-1)``.

    ``values[..., y, x]`` belongs to a block only if the pixels ``(y, x)`` and ``(y+1, x+1)`` both do. Values on a patch's last
    row or column straddle two patches and count only once a block holds both. So each patch is summed up by the four
    maxima, over channels too, of its interior, last column, last row and corner.
    """
    batch, _, height, width = values.shape
    pairs = values.new_empty(batch, height + 1, width + 1)
    torch.amax(values, 1, out=pairs[:, :-1, :-1])
    pairs[:, -1] = pairs[..., -1] = -torch.inf
    if patch_size == 2:
        return pairs
    if patch_size == 1:  # every value straddles patches both ways
        return F.pad(pairs[..., None, :, None], (1, 0, 0, 0, 1, 0), value=-torch.inf).flatten(3, 4).flatten(1, 2)
    tiles, inner = _tiles(pairs, patch_size), patch_size - 1  # (B, h, p, w, p)
    lines = torch.stack([tiles[:, :, :inner].amax(2), tiles[:, :, inner]], dim=2)  # (B, h, 2, w, p)
    summary = torch.stack([lines[..., :inner].amax(-1), lines[..., inner]], dim=-1)  # (B, h, 2, w, 2)
    return summary.flatten(3, 4).flatten(1, 2)


def largest(summary: Tensor, levels: int) -> list[Tensor]:
    """The largest value inside every block of patches that are summed up: of side S, in a window of side S - 1."""
    return [F.max_pool2d(summary, (2 << level) - 1, stride=2 << level) for level in range(1, levels + 1)]


def _diagonal(images: Tensor) -> Tensor:
    return images[..., 1:, 1:] - images[..., :-1, :-1]


def _across_and_down(images: Tensor) -> Tensor:
    here = images[..., :-1, :-1]
    across, down = images[..., :-1, 1:] - here, images[..., 1:, :-1] - here
    return across.abs_().add_(down.abs_())


def _blur(images: Tensor) -> Tensor:
    """Blur images by a Gaussian of `SIGMA` that is cut off at three of it; the border is repeated. torchvision's reflects, and needs room for it.

    Shifted images are added up, which on a CPU takes less than half as long as a convolution of one channel by itself.
    """
    steps = torch.arange(-REACH, REACH + 1, dtype=torch.float32)
    first, *others = torch.softmax(-(steps**2) / (2 * SIGMA**2), 0).tolist()
    for axis, around in ((3, (REACH, REACH, 0, 0)), (2, (0, 0, REACH, REACH))):
        padded, length = F.pad(images, around, mode="replicate"), images.shape[axis]
        images = padded.narrow(axis, 0, length) * first
        for shift, weight in enumerate(others, start=1):
            images.add_(padded.narrow(axis, shift, length), alpha=weight)
    return images


def _standing_out(images: Tensor, patch_size: int) -> Tensor:
    """Summary of the patches for `contrast`: all four numbers of a patch are its own score."""
    edges = F.pad(_across_and_down(images).amax(1, keepdim=True), (0, 1, 0, 1))  # (B, 1, H, W)
    around = F.avg_pool2d(F.avg_pool2d(edges, patch_size), AROUND, 1, AROUND // 2, count_include_pad=False)
    score = F.max_pool2d(edges, patch_size) / (around + FLOOR)
    return score[:, 0].repeat_interleave(2, 1).repeat_interleave(2, 2)


def derivative(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Largest diagonal difference ``I[y+1, x+1] - I[y, x]`` over channels and pixels (eq. 2). Signed on purpose."""
    return largest(SUMMARIES["derivative"](images, patch_size), levels)


def gradient(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Largest ``|I[y, x+1] - I[y, x]| + |I[y+1, x] - I[y, x]|`` over channels and pixels (appendix F of the paper)."""
    return largest(SUMMARIES["gradient"](images, patch_size), levels)


def blurred(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """`derivative` of the image blurred by a Gaussian of 2 pixels, which grain and fine texture do not survive. Signed too."""
    return largest(SUMMARIES["blurred"](images, patch_size), levels)


def contrast(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Largest gradient over the mean gradient around it: what stands out from its surroundings, not what is rough.

    The gradient of a pixel is as in `gradient`, also where its neighbours lie in the next block. It is divided by its mean over
    the 9 x 9 patches around the pixel's own, fewer at the image's border, plus `FLOOR`. Divisive normalisation, as of local
    contrast in vision science (Heeger 1992) and in convolutional networks (Jarrett et al. 2009).
    """
    return largest(SUMMARIES["contrast"](images, patch_size), levels)


def variance(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Variance of the pixels of a block, averaged over the channels.

    Merged by "variance of the whole = mean of the variances + variance of the means", which loses no digits.
    """
    tiles = _tiles(images, patch_size)  # (B, C, h, p, w, p)
    mean = tiles.mean(3).mean(-1)  # (B, C, h, w)
    within = (tiles - mean[:, :, :, None, :, None]).square_().mean(3).mean(-1)
    scores = []
    for _ in range(levels):
        between, mean = torch.var_mean(_tiles(mean, 2), dim=(-3, -1), correction=0)
        within = _tiles(within, 2).mean((-3, -1)) + between
        scores.append(within.mean(1))
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
        histogram = histogram.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).sum((2, 4))
        frequency = histogram / (patch_size << level) ** 2
        scores.append(-torch.xlogy(frequency, frequency).sum(-1) / torch.log(torch.tensor(2.0)).item())
    return scores


def reconstruction(images: Tensor, patch_size: int, levels: int) -> list[Tensor]:
    """Mean squared error between a block and its ``p x p`` version scaled back up: what merging it would lose."""

    def score(blocks: Tensor) -> Tensor:
        blocks = blocks.contiguous()
        lost = resample(resample(blocks, patch_size), blocks.shape[-1]).sub_(blocks)
        return lost.square_().mean((-3, -2, -1))

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
    for function in (derivative, gradient, blurred, contrast, variance, entropy, reconstruction, random, uniform)
}


BLIND = ("random", "uniform")  # look at no pixel


class Summary(NamedTuple):
    """How a criterion sums up patches before it looks at blocks of them.

    Attributes:
        of: ``(images (B, C, H, W), patch_size) -> (B, 2 h, 2 w)``, see `largest`.
        pixels, patches: How far around a patch it looks: so many patches, and so many pixels more.
    """

    of: Callable[[Tensor, int], Tensor]
    pixels: int = 1
    patches: int = 0

    def __call__(self, images: Tensor, patch_size: int) -> Tensor:
        """The summary of images, made a band of rows at a time; those that look around see the image, not the blocks alone."""
        h = images.shape[2] // patch_size
        around = self.patches + -(-self.pixels // patch_size)
        rows, parts = max(band_rows(images, patch_size), 4 * around), []
        for first in range(0, h, rows):
            last = min(first + rows, h)
            top, bottom = max(first - around, 0), min(last + around, h)
            seen = self.of(images[:, :, top * patch_size : bottom * patch_size].float(), patch_size)
            parts.append(seen[:, 2 * (first - top) : 2 * (last - top)])
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


SUMMARIES = {
    "derivative": Summary(lambda images, patch_size: _summary(_diagonal(images), patch_size)),
    "gradient": Summary(lambda images, patch_size: _summary(_across_and_down(images), patch_size)),
    "blurred": Summary(lambda images, patch_size: _summary(_diagonal(_blur(images)), patch_size), pixels=REACH + 1),
    "contrast": Summary(_standing_out, patches=AROUND // 2),
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
            hint = suggestion(criterion, CRITERIA)
            raise ValueError(
                f"criterion: got {shown(criterion)}; known are {known}, or pass a function of blocks{hint}"
            )
        return CRITERIA[criterion]
    if callable(criterion):
        return partial(blockwise, criterion)
    raise TypeError(f"criterion: got {type(criterion).__name__}; pass a name or a function (..., C, S, S) -> (...)")
