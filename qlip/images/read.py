"""Any picture a user may hand over, as eight-bit RGB; nothing here knows about models."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

ImageLike = Image.Image | np.ndarray | Tensor | str | Path


def read_image(path: str | Path) -> Image.Image:
    """Decode an image file completely and convert it with `to_rgb`.

    Raises:
        OSError: if the file cannot be read, is cut short, or is no image.
    """
    with Image.open(path) as image:
        return to_rgb(image)


def to_rgb(image: ImageLike) -> Image.Image:
    """Convert a picture to an upright eight-bit RGB image.

    EXIF rotation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bits (not cut off, as PIL does),
    greyscale, palette and CMYK are converted.

    Args:
        image: A PIL image, a path, an array ``(H, W)``, ``(H, W, C)`` or a tensor ``(H, W)`` or ``(C, H, W)``; arrays and tensors hold
            uint8, uint16, or floats in [0, 1].

    Raises:
        TypeError: for anything else.
        ValueError: for an array whose shape or values are no image.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image
        return _from_array((image.movedim(0, -1) if image.ndim == 3 else image).numpy())
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"image: got {type(image).__name__}; takes a PIL image, a path, a numpy array or a tensor")
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else it would only copy
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(_sixteen_bit(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _sixteen_bit(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """PIL's modes I and F say nothing of their range: 0..255 and 0..65535 both occur."""
    return (values.clip(0, 255) if values.max(initial=0) <= 255 else values.clip(0, 65535) / 257).astype(np.uint8)


def _from_array(values: np.ndarray[Any, Any]) -> Image.Image:
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in (3, 4)) or not values.size:
        raise ValueError(f"image: got an array of shape {values.shape}; takes (H, W) or (H, W, C) with C = 1, 3 or 4")
    if values.dtype == np.uint16:
        values = (values / 257).astype(np.uint8)
    elif np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"image: got floats from {values.min():.3g} to {values.max():.3g}; takes floats in [0, 1] "
                f"(not normalised: qlip normalises), or uint8"
            )
        values = (values * 255).round().astype(np.uint8)
    elif values.dtype != np.uint8:
        raise ValueError(f"image: got an array of {values.dtype}; takes uint8, uint16 or floats in [0, 1]")
    return to_rgb(Image.fromarray(values))


def shortest_edge_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width with a shortest edge of ``size`` pixels, aspect kept: the arithmetic of CLIP's own preprocessing."""
    other = int(size * max(height, width) / min(height, width))
    return (other, size) if width <= height else (size, other)


def resize_shortest_edge(image: Image.Image, size: int) -> Image.Image:
    """Scale to a shortest edge of ``size`` pixels, aspect kept, bicubic; see `shortest_edge_shape`."""
    height, width = shortest_edge_shape(image.height, image.width, size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def centre_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """Cut ``height x width`` pixels out of the middle; an odd margin leaves the extra pixel at the bottom and right."""
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return image.crop((left, top, left + width, top + height))


def pad_to_square(image: Image.Image, mean: tuple[float, ...]) -> Image.Image:
    """Put the picture in the middle of a square of the mean colour.

    It is ``expand2square`` of LLaVA's original repository (haotian-liu/LLaVA, ``llava/mm_utils.py``): same colour, same
    rounding of the offset.

    Args:
        image: RGB.
        mean: Of the channels in [0, 1].
    """
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(255 * x) for x in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def normalise(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """RGB image to a float32 tensor ``(3, H, W)``, scaled to [0, 1], mean subtracted and divided by std."""
    pixels = tvf.pil_to_tensor(image).contiguous()  # it comes channels last, which makes all that follows twice as slow
    return tvf.normalize(tvf.to_dtype(pixels, torch.float32, scale=True), list(mean), list(std))
