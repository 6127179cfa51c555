"""The quadtree: which blocks of an image stay whole, and which are looked at patch by patch.

Glossary: ``p`` patch side in pixels; ``h x w`` the image in patches; ``k`` a level, its blocks being ``2^k x 2^k`` patches;
``P`` the level of the roots. Coordinates are always (row, column) = (y, x).
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from qlip.core.criteria import BLIND, SUMMARIES, BlockScore, get_criterion, largest
from qlip.core.names import Cover
from qlip.core.roots import Roots
from qlip.core.rules import check_fields
from qlip.core.score_map import check_score_map, largest_inside

Frame = Literal["corners", "edges", "patches"]


@dataclass(frozen=True, eq=False)
class Leaves:
    """The leaves of one image, ordered by (row, column) of their top-left patch, as CLIP orders its grid.

    Attributes:
        row, col: ``(N,)`` int64, top-left patch of each leaf.
        size: ``(N,)`` int64, side of each leaf in patches, a power of two.
        grid: ``(h, w)``, the image in patches.
    """

    row: Tensor
    col: Tensor
    size: Tensor
    grid: tuple[int, int]

    def __len__(self) -> int:
        return self.row.shape[0]

    def coords(self) -> Tensor:
        """Centres of the leaves as (row, column) in [-1, 1], ``(N, 2)`` float32; the corner patches lie at -1 and 1.

        On a 24 x 24 grid of single patches this is the paper's ``(-1 + 2i/23, -1 + 2j/23)``. An axis of one patch is 0.
        """
        half = (self.size - 1).double() / 2
        axes = [(self.row + half, self.grid[0] - 1), (self.col + half, self.grid[1] - 1)]
        return torch.stack([2 * centre / last - 1 if last else 0 * centre for centre, last in axes], dim=-1).float()

    def parts(self, unit: int) -> "Leaves":
        """The ``unit x unit`` parts of leaves that are counted in units, as leaves counted in patches: ``(N * unit^2,)``.

        They come leaf by leaf, in reading order within each. A model that shows ``unit x unit`` patches to its language
        model as one token has its quadtree choose among units; its encoder sees the parts.
        """
        if unit == 1:
            return self
        step = torch.arange(unit, device=self.row.device)
        row = self.row[:, None] * unit + self.size[:, None] * step.repeat_interleave(unit)
        col = self.col[:, None] * unit + self.size[:, None] * step.repeat(unit)
        size = self.size[:, None].expand_as(row)
        return Leaves(row.flatten(), col.flatten(), size.flatten(), (self.grid[0] * unit, self.grid[1] * unit))

    def geometry(self) -> Tensor:
        """Row, column and size of each leaf and the image's grid, ``(N, 5)`` int64: how leaves travel with their patches."""
        grid = torch.tensor(self.grid, device=self.row.device).expand(len(self), 2)
        return torch.cat([torch.stack([self.row, self.col, self.size], dim=1), grid], dim=1)

    @classmethod
    def from_geometry(cls, geometry: Tensor) -> "Leaves":
        """Undo `geometry`, ``(N, 5)`` of one image."""
        row, col, size, height, width = geometry.unbind(1)
        return cls(row, col, size, (int(height[0]), int(width[0])))


def centres(geometry: Tensor, frame: Frame) -> Tensor:
    """Centres of leaves ``(..., 5)``, see `Leaves.geometry`, as (row, column): ``(..., 2)`` float32.

    Args:
        geometry: Leaves of any images.
        frame: ``"patches"`` counts patches from the centre of the first; ``"corners"`` has the centres of the corner patches
            at -1 and 1, as CLIP in the paper; ``"edges"`` has the edges of the image at -1 and 1, as SigLIP and DINO.
    """
    centre = geometry[..., :2] + (geometry[..., 2:3] - 1).double() / 2
    count = geometry[..., 3:].double()
    if frame == "edges":
        centre = (2 * centre + 1) / count - 1
    elif frame == "corners":
        centre = torch.where(count > 1, 2 * centre / (count - 1).clamp(min=1) - 1, 0.0)
    return centre.float()


@dataclass(frozen=True)
class Quadtree:
    """Chooses the leaves of an image (sections 3.1 and F of the paper; docs/definitions.md).

    A block splits if its score is at least ``alpha`` and its parent split; else it is a leaf. The number of leaves is
    therefore known for every ``alpha`` at once, which is what makes ``max_tokens`` exact.

    Attributes:
        alpha: Split threshold. Scores of normalised images, so useful values depend on the criterion.
        criterion: A name from `qlip.core.criteria.CRITERIA`, or a function of blocks ``(..., C, S, S) -> (...)``.
        max_tokens: A token budget; where given it takes the place of ``alpha``. The blocks that the smallest fitting
            ``alpha`` would split are split, and ties are broken (parents first, then higher scores, then reading order)
            so that the count lands at most 2 under the budget and never over it.
        patch_size: Patch side in pixels.
        cover: ``"full"``: roots cover the image and stick out of it, so that its borders can merge too. ``"roots"``, the
            paper's: whole roots, centred, single patches around them.
        score: A map of what matters ``(rows, columns)`` over the whole image, of any resolution, finite and not negative: of a
            detector, a saliency model, an attention. A block scores its largest value inside, in place of the criterion, which
            only decides between blocks of equal value when there is a budget.
    """

    alpha: float = 0.1
    criterion: str | BlockScore = "derivative"
    max_tokens: int | None = None
    patch_size: int = 14
    cover: Cover = "full"
    score: Tensor | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        get_criterion(self.criterion)
        check_fields(self, "alpha", "max_tokens", "patch_size", "cover")
        if self.score is not None:
            object.__setattr__(self, "score", check_score_map(self.score))

    def __call__(self, image: Tensor) -> "Leaves | list[Leaves]":
        """Leaves of an image ``(3, H, W)``, or a list of the leaves of each of a batch ``(B, 3, H, W)`` of one size.

        Raises:
            ValueError: for the reasons that `batch` gives.
        """
        return self.batch(image[None])[0] if image.ndim == 3 else self.batch(image)

    @torch.no_grad()
    def batch(self, images: Tensor) -> list[Leaves]:
        """Leaves of each of a batch of images ``(B, C, H, W)`` of one size.

        Raises:
            ValueError: if the shape is wrong, a side is no multiple of ``patch_size``, or a score is NaN.
            OverBudgetError: if ``max_tokens`` is less than the fewest leaves an image can have.
        """
        roots = self._roots_of(images)
        if roots.level == 0:  # no block of 2 x 2 patches, nothing to decide
            if self.max_tokens is not None:
                roots.check_budget(self.max_tokens)
            return _collect(torch.zeros(len(images), roots.h, roots.w, dtype=torch.long, device=images.device), roots)
        ranks = self._ranks(images, roots)
        if self.max_tokens is None:
            splits = [rank >= self.alpha for rank in ranks[-1]]
        else:
            splits = _split_to_budget(ranks, roots, self.max_tokens)
        return _collect(_leaf_levels(splits, roots), roots)

    @torch.no_grad()
    def count(self, images: Tensor) -> list[int]:
        """Number of leaves of each of a batch of images ``(B, C, H, W)`` by ``alpha``, without the leaves; a budget is left aside.

        Raises:
            ValueError: as `batch`.
        """
        roots = self._roots_of(images)
        if roots.level == 0:
            return [roots.h * roots.w] * len(images)
        splits = [(rank >= self.alpha).sum((1, 2)) for rank in self._ranks(images, roots)[-1]]
        return roots.num_leaves(torch.stack(splits).sum(0)).tolist()

    def _ranks(self, images: Tensor, roots: Roots) -> list[list[Tensor]]:
        """What decides which blocks split, level by level; the last weighs most: a block splits where it reaches ``alpha``."""
        scores = self._scores(images, roots)
        if any(score.isnan().any() for score in scores):
            raise ValueError(
                f"criterion: {self.criterion!r} scored some blocks NaN; takes an image whose pixels are finite, and a criterion "
                f"that gives every block a number"
            )
        scores = [roots.force(score, level) for level, score in enumerate(scores, start=1)]
        paths = _path_minima(scores)
        return [scores, paths] if self.score is None else [scores, paths, self._map_scores(images, roots)]

    def _scores(self, images: Tensor, roots: Roots) -> list[Tensor]:
        """Scores of the blocks by the criterion; where it can, patches are summed up before the image grows to its roots."""
        if isinstance(self.criterion, str) and self.criterion in SUMMARIES:
            return largest(roots.crop(SUMMARIES[self.criterion](images, self.patch_size), 2), roots.level)
        if self.criterion in BLIND:
            side = self.patch_size << roots.level
            pixels = torch.empty((), device=images.device).expand(len(images), 1, roots.rows * side, roots.cols * side)
        else:
            pixels = roots.crop(images.float(), self.patch_size)
        return get_criterion(self.criterion)(pixels, self.patch_size, roots.level)

    def _map_scores(self, images: Tensor, roots: Roots) -> list[Tensor]:
        """Scores of the blocks by the map, the same for every image; never larger than their parents'."""
        assert self.score is not None
        edges = [[i / count for i in range(count + 1)] for count in (roots.h, roots.w)]
        patches = largest_inside(self.score, *edges).to(images.device)
        scores, values = [], roots.crop(patches.expand(len(images), 1, -1, -1), 1)
        for level in range(1, roots.level + 1):
            values = F.max_pool2d(values, 2)
            scores.append(roots.force(values[:, 0], level))
        return _path_minima(scores)

    def _roots_of(self, images: Tensor) -> Roots:
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(
                f"image: got {images.dtype} of shape {tuple(images.shape)}; takes a normalised floating-point image "
                f"(3, H, W) or batch (B, 3, H, W)"
            )
        return self.roots_of(*images.shape[-2:])

    def roots_of(self, height: int, width: int) -> Roots:
        """Where the roots lie on an image of ``height x width`` pixels.

        Raises:
            ValueError: if a side is no multiple of ``patch_size``.
        """
        if height % self.patch_size or width % self.patch_size or not height or not width:
            raise ValueError(
                f"image: got {height} x {width} pixels; both sides must be multiples of patch_size={self.patch_size}. "
                f"Crop first, as QlipImageProcessor does"
            )
        return Roots.of(height // self.patch_size, width // self.patch_size, self.cover)


def _double(x: Tensor) -> Tensor:
    """Repeat every entry of ``(B, h, w)`` twice along both axes: from blocks to their children."""
    return x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


def _path_minima(scores: list[Tensor]) -> list[Tensor]:
    """Smallest score on the path from the root to each block; a block splits iff it reaches alpha."""
    paths = [scores[-1]]
    for score in reversed(scores[:-1]):
        paths.append(torch.minimum(score, _double(paths[-1])))
    return paths[::-1]


def _leaf_levels(splits: list[Tensor], roots: Roots) -> Tensor:
    """Level of the leaf over every patch, ``(B, h, w)``: no block inside an unsplit one splits, so it is their number."""
    levels = torch.zeros_like(splits[-1], dtype=torch.long)
    for split in reversed(splits):
        levels = _double(levels + ~split)
    return roots.to_image(levels)


def _split_to_budget(ranks: list[list[Tensor]], roots: Roots, budget: int) -> list[Tensor]:
    """Split as many blocks as fit ``budget`` leaves, in the order in which a falling alpha would split them.

    Every split inside the image turns one leaf into four. Blocks of infinite score split whatever the budget.

    Args:
        ranks: Values of all blocks, level by level; the last weigh most. All but the first never rise from a block to its
            children, and blocks equal in those split before their children.
        roots: Where the blocks are.
        budget: The most leaves.
    """
    flat = [torch.cat([level.flatten(1) for level in reversed(rank)], dim=1) for rank in ranks]
    last = ranks[-1]
    depth = torch.cat([x.new_full((x[0].numel(),), -i) for i, x in enumerate(reversed(last))]).expand_as(flat[-1])
    order = torch.arange(depth.shape[1], device=depth.device).expand_as(depth)
    for key in (flat[0], depth, *flat[1:]):
        order = order.gather(1, key.gather(1, order).argsort(dim=1, descending=True, stable=True))
    forced = (flat[-1] == torch.inf).sum(1)
    least = roots.num_leaves(forced)
    roots.check_budget(budget, int(least.max()))
    first = torch.arange(depth.shape[1], device=depth.device) < (forced + (budget - least) // 3)[:, None]
    split = torch.zeros_like(first).scatter_(1, order, first)
    sizes = [x[0].numel() for x in reversed(last)]
    return [s.view_as(x) for s, x in zip(split.split(sizes, dim=1), reversed(last), strict=True)][::-1]


def _origins(levels: Tensor, roots: Roots) -> Tensor:
    """Mark the top-left patch of every leaf in ``levels (B, h, w)``."""
    row = torch.arange(-roots.top, roots.h - roots.top, device=levels.device)
    col = torch.arange(-roots.left, roots.w - roots.left, device=levels.device)
    return (row[:, None] | col) & ((1 << levels) - 1) == 0


def _collect(levels: Tensor, roots: Roots) -> list[Leaves]:
    """Turn the leaf level of every patch, ``(B, h, w)``, into the leaves of each image, in reading order."""
    origins = _origins(levels, roots)
    image, row, col = origins.nonzero(as_tuple=True)
    size = 1 << levels[image, row, col]
    counts = origins.sum((1, 2)).tolist()
    parts = zip(row.split(counts), col.split(counts), size.split(counts), strict=True)
    return [Leaves(r, c, s, (roots.h, roots.w)) for r, c, s in parts]
