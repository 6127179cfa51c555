"""From leaves to what an encoder eats: patches, their centres, and ragged batches of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qlip.core.quadtree import Leaves
from qlip.core.resample import resample


def patchify(image: Tensor, leaves: Leaves) -> Tensor:
    """Cut an image ``(3, H, W)`` into its leaves, each resampled to a patch from its own pixels: ``(N, 3, p, p)``.

    Resampling is antialiased bilinear (design section 3). The result has the image's dtype.

    Raises:
        ValueError: if the leaves belong to an image of another shape.
    """
    h, w = leaves.grid
    height, width = image.shape[1:]
    p = height // h
    if (h * p, w * p) != (height, width):
        raise ValueError(
            f"leaves: got a grid of {h} x {w} patches for an image of {height} x {width} pixels; "
            f"pass the leaves of this very image"
        )
    patches = _cut(image, leaves.row, leaves.col, 1, p)  # right where a leaf is one patch, overwritten where it is not
    size = 2
    while size <= min(h, w):
        here = (leaves.size == size).nonzero(as_tuple=True)[0]
        if len(here):
            blocks = _cut(image, leaves.row[here], leaves.col[here], size, p)
            patches.index_copy_(0, here, resample(blocks.float(), p).to(image.dtype))
        size *= 2
    return patches


def _cut(image: Tensor, row: Tensor, col: Tensor, size: int, patch_size: int) -> Tensor:
    """Cut squares of ``size`` patches out of an image ``(C, H, W)`` at patches ``row, col (n,)``: ``(n, C, side, side)``.

    A line of a square is ``size`` runs of ``patch_size`` pixels, contiguous in memory. Fetching whole runs is several
    times faster than indexing pixels.
    """
    channels, height, width = image.shape
    side, per_line = size * patch_size, width // patch_size
    first = (row * patch_size * per_line + col).int()  # int32 halves what the indices weigh
    channel, line, run = (torch.arange(k, device=image.device, dtype=torch.int32) for k in (channels, side, size))
    within = (channel[:, None] * height + line)[..., None] * per_line + run  # (C, side, size)
    runs = image.reshape(-1, patch_size).index_select(0, (first[:, None] + within.flatten()).flatten())
    return runs.view(len(row), channels, side, side)


@dataclass(frozen=True)
class PatchBatch:
    """Images of a batch side by side, padded to the longest; what the vision model sees.

    Attributes:
        patches: ``(B, N, 3, p, p)``, zero where padded.
        coords: ``(B, N, 2)`` float32, centres as (row, column) in [-1, 1].
        mask: ``(B, N)`` bool, true for patches, false for padding; padding is always on the right.
    """

    patches: Tensor
    coords: Tensor
    mask: Tensor

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
        shapes = sorted({tuple(item.patches.shape[2:]) for item in items})
        if len(shapes) != 1:
            raise ValueError(f"items: got patches of shapes {shapes}; takes at least one item, all of one patch shape")
        longest = max(item.mask.shape[1] for item in items)

        def stack(tensors: Sequence[Tensor]) -> Tensor:
            return torch.cat([_pad_right(tensor, longest) for tensor in tensors])

        return cls(
            stack([item.patches for item in items]),
            stack([item.coords for item in items]),
            stack([item.mask for item in items]),
        )

    @classmethod
    def from_image(cls, image: Tensor, leaves: Leaves) -> "PatchBatch":
        """The batch of one image ``(3, H, W)`` cut at ``leaves``."""
        patches, coords = patchify(image, leaves), leaves.coords()
        return cls(patches[None], coords[None], torch.ones(1, len(leaves), dtype=torch.bool, device=image.device))

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
        )

    def pin_memory(self) -> "PatchBatch":
        """Copy to page-locked memory, as DataLoader asks."""
        return PatchBatch(self.patches.pin_memory(), self.coords.pin_memory(), self.mask.pin_memory())


def _pad_right(tensor: Tensor, length: int) -> Tensor:
    """Pad ``(B, N, ...)`` with zeros to ``(B, length, ...)``."""
    missing = length - tensor.shape[1]
    return F.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, missing)) if missing else tensor
