"""Pictures of bytes that become normalised floats where they are read."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

BAND = 2**20  # floats: 4 MB, which fit in the caches of a processor, and which its C library keeps for the next band
WHOLE = 2**23  # floats: 32 MB, the most that glibc keeps; larger arrays it hands back, and gets again page by page


@dataclass(frozen=True)
class Normalised:
    """Pictures whose channels are scaled to [0, 1], less ``mean``, divided by ``std``, once somebody asks for floats.

    It is indexed as a tensor is, and `float` makes one of what was picked. Floats of a whole picture weigh four times its
    bytes; where it is read a band of rows at a time they are never all there.

    Attributes:
        pixels: ``(..., 3, H, W)`` uint8.
        mean, std: Of the channels in [0, 1].
    """

    pixels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        """That of the pixels."""
        return self.pixels.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.pixels.ndim

    @property
    def device(self) -> torch.device:
        """Where the pixels are."""
        return self.pixels.device

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: Any) -> Self:
        return replace(self, pixels=self.pixels[index])

    def float(self) -> Tensor:
        """The floats, ``(..., 3, H, W)`` contiguous: the arithmetic of transformers' processors on torchvision, to the last digit."""
        shift, scale = (torch.tensor(x, device=self.device).view(3, 1, 1) * 255 for x in (self.mean, self.std))
        floats = torch.empty(self.shape, device=self.device)
        for rows in zip(*(each.split(band_rows(self, 1), dim=-2) for each in (floats, self.pixels)), strict=True):
            rows[0].copy_(rows[1]).sub_(shift).div_(scale)  # all three while they are in the caches
        return floats

    def ready(self) -> Tensor | Self:
        """The floats of a picture that is no larger than `WHOLE`; a larger one as it is.

        A tree and its patches each read all pixels. To make the floats of a small picture once is faster than twice.
        """
        return self.float() if self.pixels.numel() <= WHOLE else self


def band_rows(images: Tensor | Normalised, patch_size: int) -> int:
    """Rows of patches of images ``(..., H, W)`` in a band; all of them on a GPU, which waits for each band."""
    height, width = images.shape[-2:]
    floats = images.shape[:-2].numel() * width * patch_size
    return max(BAND // floats, 1) if images.device.type == "cpu" else max(height // patch_size, 1)
