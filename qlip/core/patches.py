"""From leaves to what an encoder eats: patches, their centres, and ragged batches of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qlip.core.quadtree import Leaves
from qlip.core.resample import resample_matrix, resample_taps


def patchify(image: Tensor, leaves: Leaves) -> Tensor:
    """Cut an image ``(3, H, W)`` into its leaves, each resampled to a patch from its own pixels: ``(N, 3, p, p)``.

    Resampling is antialiased bilinear (docs/definitions.md). The result has the image's dtype.

    Raises:
        ValueError: if the leaves belong to an image of another shape.
    """
    h, w = leaves.grid
    p = patch_side(leaves, *image.shape[1:])
    image = image.contiguous()
    patches = _cut(image, leaves.row, leaves.col, p)  # right where a leaf is one patch, overwritten where it is not
    size = 2
    while size <= min(h, w):
        here = (leaves.size == size).nonzero(as_tuple=True)[0]
        if len(here):
            merged = _merge(image.float(), leaves.row[here], leaves.col[here], size, p)
            patches.index_copy_(0, here, merged.to(image.dtype))
        size *= 2
    return patches


def patch_side(leaves: Leaves, height: int, width: int) -> int:
    """Side of a patch in pixels, of the leaves of an image of ``height x width`` pixels.

    Raises:
        ValueError: if they belong to an image of another shape.
    """
    h, w = leaves.grid
    p = height // h
    if (h * p, w * p) != (height, width):
        raise ValueError(
            f"leaves: got a grid of {h} x {w} patches for an image of {height} x {width} pixels; "
            f"pass the leaves of this very image"
        )
    return p


def _cut(image: Tensor, row: Tensor, col: Tensor, patch_size: int) -> Tensor:
    """The patches of an image ``(C, H, W)`` at ``row, col (n,)``: ``(n, C, p, p)``."""
    lines = torch.arange(patch_size, device=image.device, dtype=torch.int32)[:, None]
    runs = _runs(image, row, col, lines, 1)
    return image.reshape(-1, patch_size).index_select(0, runs.flatten()).view(len(row), -1, patch_size, patch_size)


def _merge(image: Tensor, row: Tensor, col: Tensor, size: int, patch_size: int) -> Tensor:
    """Squares of ``size`` patches of an image ``(C, H, W)`` float32, resampled to one patch each: ``(n, C, p, p)``.

    Lines are summed with their weights as they are fetched, so that no square is ever copied in full; columns follow by
    a product of matrices.
    """
    side = size * patch_size
    lines, weights = resample_taps(side, patch_size, image.device)
    runs = _runs(image, row, col, lines, size)  # (n, C, p, size, taps)
    sums = F.embedding_bag(
        runs.flatten(0, -2),
        image.reshape(-1, patch_size),
        per_sample_weights=weights[:, None].expand_as(runs).flatten(0, -2),
        mode="sum",
    )
    return sums.view(len(row), -1, patch_size, side) @ resample_matrix(side, patch_size, image.device).T


def _runs(image: Tensor, row: Tensor, col: Tensor, lines: Tensor, size: int) -> Tensor:
    """Where in memory squares of ``size`` patches at ``row, col (n,)`` have their ``lines (p, taps)``.

    The unit is a run of ``p`` pixels, contiguous in memory; fetching whole runs is several times faster than indexing
    pixels. A line of a square is ``size`` of them: ``(n, C, p, size, taps)`` int32, which weighs half of int64.
    """
    channels, height, width = image.shape
    per_line = width // len(lines)
    channel, run = (torch.arange(k, device=image.device, dtype=torch.int32) for k in (channels, size))
    within = (channel[:, None, None] * height + lines)[:, :, None] * per_line + run[:, None]  # (C, p, size, taps)
    first = (row * len(lines) * per_line + col).int()
    return (first[:, None] + within.flatten()).view(-1, *within.shape)


@dataclass(frozen=True)
class PatchBatch:
    """Images of a batch side by side, padded to the longest; what the vision model sees.

    Attributes:
        patches: ``(B, N, 3, p, p)``, zero where padded.
        coords: ``(B, N, 2)`` float32, centres as (row, column) in [-1, 1].
        mask: ``(B, N)`` bool, true for patches, false for padding; padding is always on the right.
        geometry: ``(B, N, 5)`` int64, see `Leaves.geometry`, zero where padded. None where only coordinates are known, which
            is enough for CLIP; towers that place patches in another frame need it.
    """

    patches: Tensor
    coords: Tensor
    mask: Tensor
    geometry: Tensor | None = None

    @property
    def num_tokens(self) -> Tensor:
        """Patches of each image, ``(B,)`` int64."""
        return self.mask.sum(1)

    def __len__(self) -> int:
        return self.patches.shape[0]

    @classmethod
    def collate(cls, items: Iterable["PatchBatch"]) -> "PatchBatch":
        """Put batches, usually of one image each, into one.

        Raises:
            ValueError: if there is nothing to put together, or patch sizes differ.
        """
        items = list(items)
        if len(items) == 1:
            return items[0]
        shapes = sorted({tuple(item.patches.shape[2:]) for item in items})
        if len(shapes) != 1:
            raise ValueError(f"items: got patches of shapes {shapes}; takes at least one item, all of one patch shape")
        geometry = [item.geometry for item in items if item.geometry is not None]

        def stack(tensors: Sequence[Tensor]) -> Tensor:
            return pad_sequence([row for tensor in tensors for row in tensor], batch_first=True)

        return cls(
            stack([item.patches for item in items]),
            stack([item.coords for item in items]),
            stack([item.mask for item in items]),
            stack(geometry) if len(geometry) == len(items) else None,
        )

    @classmethod
    def from_image(cls, image: Tensor, leaves: Leaves) -> "PatchBatch":
        """The batch of one image ``(3, H, W)`` cut at ``leaves``."""
        return cls.from_patches(patchify(image, leaves), leaves)

    @classmethod
    def from_images(cls, images: Tensor, leaves: Sequence[Leaves]) -> "PatchBatch":
        """The batch of images of one size, ``(B, 3, H, W)``, each cut at its leaves, as `Quadtree` returns them.

        They are cut together, as one image B times as high: a GPU is waited for once for each size of leaves, whatever B.

        Raises:
            ValueError: if there are not as many leaves as images, or they belong to images of another shape.
        """
        grids = {each.grid for each in leaves}
        if len(leaves) != len(images) or len(grids) != 1:
            raise ValueError(
                f"leaves: got those of {len(leaves)} images with grids {sorted(grids)} for {len(images)} images; pass the "
                f"leaves of these very images"
            )
        (h, w), counts = grids.pop(), [len(each) for each in leaves]
        row, col, size = (torch.cat([getattr(each, name) for each in leaves]) for name in ("row", "col", "size"))
        below = torch.cat([each.row + i * h for i, each in enumerate(leaves)])
        patches = patchify(images.transpose(0, 1).flatten(1, 2), Leaves(below, col, size, (len(images) * h, w)))
        every = Leaves(row, col, size, (h, w))
        each_image = (tensor.split(counts) for tensor in (patches, every.coords(), every.geometry()))
        return cls.collate(map(cls._whole, *each_image))

    @classmethod
    def from_patches(cls, patches: Tensor, leaves: Leaves) -> "PatchBatch":
        """The batch of one image that is cut already: ``patches (N, 3, p, p)`` of its leaves."""
        return cls._whole(patches, leaves.coords(), leaves.geometry())

    @classmethod
    def _whole(cls, patches: Tensor, coords: Tensor, geometry: Tensor) -> "PatchBatch":
        """The batch of one image's ``patches (N, 3, p, p)`` at ``coords (N, 2)``, nothing padded."""
        mask = patches.new_ones(1, len(patches), dtype=torch.bool)
        return cls(patches[None], coords[None].to(patches.device), mask, geometry[None].to(patches.device))

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> "PatchBatch":
        """Move to a device; ``dtype`` applies to the patches alone, for coordinates need all their digits."""
        return PatchBatch(
            self.patches.to(device=device, dtype=dtype, non_blocking=non_blocking),
            self.coords.to(device=device, non_blocking=non_blocking),
            self.mask.to(device=device, non_blocking=non_blocking),
            None if self.geometry is None else self.geometry.to(device=device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "PatchBatch":
        """Copy to page-locked memory, as DataLoader asks."""
        geometry = None if self.geometry is None else self.geometry.pin_memory()
        return PatchBatch(self.patches.pin_memory(), self.coords.pin_memory(), self.mask.pin_memory(), geometry)
