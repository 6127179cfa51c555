"""Scaling, cutting and normalising pictures ``(3, H, W)`` uint8, channels last in memory, as `qlip.images.read.to_pixels` reads them.

It is the arithmetic of transformers' processors on torchvision, to the last digit.
"""

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from qlip.core.bands import band_rows
from qlip.images.names import Resample
from qlip.images.read import check_size


def shortest_edge_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width with a shortest edge of ``size`` pixels, aspect kept: the arithmetic of CLIP's own preprocessing."""
    other = int(size * max(height, width) / min(height, width))
    return (other, size) if width <= height else (size, other)


def resize(pixels: Tensor, height: int, width: int, resample: Resample = "bicubic") -> Tensor:
    """Scale a picture, antialiased."""
    return tvf.resize(pixels, [height, width], interpolation=InterpolationMode(resample), antialias=True)


def resize_shortest_edge(pixels: Tensor, size: int, resample: Resample = "bicubic") -> Tensor:
    """Scale to a shortest edge of ``size`` pixels, aspect kept; see `shortest_edge_shape`."""
    height, width = pixels.shape[1:]
    return resize(pixels, *shortest_edge_shape(height, width, size), resample)


def centre_crop(pixels: Tensor, height: int, width: int) -> Tensor:
    """Cut ``height x width`` pixels out of the middle; an odd margin leaves the extra pixel at the bottom and right."""
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return pixels[:, top : top + height, left : left + width]


def pad_to_square(pixels: Tensor, mean: tuple[float, ...]) -> Tensor:
    """Put the picture in the middle of a square of the mean colour.

    It is ``expand2square`` of LLaVA's original repository (haotian-liu/LLaVA, ``llava/mm_utils.py``): same colour, same
    rounding of the offset.

    Args:
        pixels: The picture.
        mean: Of the channels in [0, 1].

    Raises:
        ValueError: if the square is above the limit of `check_size`.
    """
    height, width = pixels.shape[1:]
    side = max(height, width)
    check_size(side, side)
    colour = torch.tensor([int(255 * x) for x in mean], dtype=torch.uint8)
    square = colour.repeat(side, side, 1).permute(2, 0, 1)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = pixels
    return square


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """A picture as float32, contiguous, scaled to [0, 1], mean subtracted and divided by std."""
    shift, scale = (torch.tensor(values).view(3, 1, 1) * 255 for values in (mean, std))
    floats = torch.empty(pixels.shape)
    bands = (each.split(band_rows(pixels), dim=1) for each in (floats, pixels))
    for band, read in zip(*bands, strict=True):
        band.copy_(read).sub_(shift).div_(scale)  # all three while it is in the caches
    return floats
