"""Any picture a user may hand over, as eight-bit RGB; nothing here knows about models.

Pictures come from anywhere, and headers lie. So a file must be a regular one of a known format, its size is checked before
anything of it is decoded, and whatever its decoder raises becomes one ``OSError`` that names the file.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from qlip.files import open_regular
from qlip.images.effort import check_header, check_scans

ImageLike = Image.Image | np.ndarray | Tensor | str | Path | bytes

MAX_PIXELS = 89_478_485  # where Pillow starts to warn: a quarter of a gigabyte in RGB
MAX_ASPECT = 200  # longer side over shorter side
MAX_BYTES = 2**30  # of a file: some decoders read all of it before they look at the size of the picture
# Only formats of pixels: Pillow would start Ghostscript for others.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_CHANNELS = (1, 3, 4)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path) -> Image.Image:
    """Decode an image file completely and convert it with `to_rgb`.

    Raises:
        OSError: if it is no regular file, cannot be read, is cut short, is no image, or is above the limits of `check_size`;
            the message names the file.
    """
    try:
        with open_regular(path, MAX_BYTES) as file:
            return _decode(file)
    except Exception as error:  # a decoder may raise anything, and one picture must not stop a training
        raise _unreadable(str(path), error) from error


def read_size(source: str | Path | bytes) -> tuple[int, int]:
    """Width and height of an upright picture, from the header of its file or bytes alone.

    Raises:
        OSError: as `read_image`.
    """
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else open_regular(source, MAX_BYTES) as file,
            _identify(file) as image,
        ):
            turned = _orientation(image) >= 5 and image.format != "TIFF"  # whose size Pillow has turned already
            return image.size[::-1] if turned else image.size
    except Exception as error:
        raise _unreadable("bytes" if isinstance(source, bytes) else str(source), error) from error


def to_rgb(image: ImageLike) -> Image.Image:
    """Convert a picture to an upright eight-bit RGB image: the same one, however it is handed over.

    EXIF rotation is applied, transparency is laid over white, 16 bits are scaled to 8 (not cut off, as PIL does),
    greyscale, palette and CMYK are converted. What it returns carries no notes, so that it is returned as it is if it comes again.

    Args:
        image: A PIL image; a path or the bytes of a file; an array ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, or a tensor
            ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``, of C = 1, 3 or 4 channels. Where both ends could be the channels,
            they are last in an array and first in a tensor. Both hold uint8, uint16, booleans, or floats in [0, 1]; PIL's
            mode F holds such floats too.

    Raises:
        TypeError: for anything else.
        ValueError: for a picture whose shape or values are none, or which is above the limits of `check_size`.
        OSError: for a file that cannot be read; the message names it.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, bytes):
        try:
            return _decode(io.BytesIO(image))
        except Exception as error:
            raise _unreadable(f"{len(image)} bytes", error) from error
    if isinstance(image, Tensor):
        return _from_array(_to_numpy(image), channels_first=True)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if type(image) is Image.Image and image.mode == "RGB" and not image.info:
        check_size(*image.size)
        return image
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"image: got {type(image).__name__}; takes a PIL image, a path, bytes, a numpy array or a tensor"
        )
    return _from_pil(image)


def check_size(width: int, height: int) -> None:
    """Raise if a picture is larger, or longer and thinner, than any that is read.

    Raises:
        ValueError: above 89 million pixels (`MAX_PIXELS`), or 200 times as long as wide (`MAX_ASPECT`).
    """
    if min(width, height) < 1 or width * height > MAX_PIXELS or max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"image: got {width} x {height} pixels; takes at most {MAX_PIXELS:,} pixels, and at most {MAX_ASPECT} times as "
            f"long as wide. Scale it down or cut it first"
        )


def _identify(file: BinaryIO) -> Image.Image:
    """The picture in a file, not decoded yet; its size is one that is taken."""
    Image.init()
    check_header(file)
    image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    check_size(*image.size)
    if image.format == "JPEG2000" and image.width * image.height > MAX_PIXELS // 2:
        raise ValueError(
            f"got {image.width} x {image.height} pixels of JPEG 2000, which takes four times the memory; takes at most "
            f"{MAX_PIXELS // 2:,}"
        )
    return image


def _decode(file: BinaryIO) -> Image.Image:
    """The picture in a file, as `to_rgb` converts it."""
    check_scans(file)
    with _identify(file) as image:
        image.load()
        return _converted(image)


def _unreadable(name: str, error: Exception) -> OSError:
    """The error for a file that cannot be read, whatever its decoder said."""
    why = str(error).removeprefix("image: ").partition("\n")[0] or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        why = f"its content is of no format that is read ({', '.join(FORMATS)})"
    elif isinstance(error, Image.DecompressionBombError):
        why = f"{why} It takes at most {MAX_PIXELS:,} pixels"
    elif isinstance(error, OSError) and error.strerror:
        why = error.strerror
    kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
    return kind(f"image: {name} cannot be read as a picture: {why}")


def _from_pil(image: Image.Image) -> Image.Image:
    """Convert a PIL image; one that was opened and not decoded yet fails as its file would."""
    check_size(*image.size)
    try:
        image.load()
        return _converted(image)
    except ValueError as error:
        if str(error).startswith("image: "):
            raise
        raise ValueError(f"image: got a PIL image of mode {image.mode} that cannot be converted: {error}") from error
    except Exception as error:
        raise _unreadable(getattr(image, "filename", "") or f"the PIL image of mode {image.mode}", error) from error


def _converted(image: Image.Image) -> Image.Image:
    """The upright RGB image of a decoded one."""
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        clear = image.info.get("transparency")
        rgb = _from_array(np.where(values == clear, np.uint16(65535), values) if isinstance(clear, int) else values)
    elif image.mode == "I":
        rgb = _from_array(_sixteen_bit(image))
    elif image.mode == "F":
        rgb = _from_array(np.asarray(image))
    elif image.has_transparency_data:
        rgb = _over_white(image)
    else:
        rgb = image.convert("RGB")
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {}  # the orientation among it, which is no longer true
    return upright


def _orientation(image: Image.Image) -> int:
    """EXIF's number of how the picture was turned, 1 to 8; 1 where it says none."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _over_white(image: Image.Image) -> Image.Image:
    """Lay a picture with transparency over white."""
    white = Image.new("RGB", image.size)
    for top in range(0, image.height, 1024):  # in strips: four copies of a large picture would be over a gigabyte
        strip = image.crop((0, top, image.width, min(top + 1024, image.height)))
        if strip.mode != "RGBA":
            strip = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
        white.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return white


def _sixteen_bit(image: Image.Image) -> np.ndarray[Any, Any]:
    """The values of PIL's mode I as 16 bits; the mode does not say how many are meant, so small ones are refused.

    Files of the PPM family are known: PIL scales them to 65535.
    """
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535 or (0 < high <= 255 and image.format != "PPM"):
        raise ValueError(
            f"image: got PIL's mode I with values from {low} to {high}, which may be of any number of bits; takes values up "
            f"to 65535 that need 16 bits. Convert it to mode L, or pass an array of uint8 or uint16"
        )
    return values.astype(np.uint16)


def _to_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The values of a tensor; bfloat16, which numpy lacks, as float32."""
    try:
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"image: got a tensor ({tensor.layout}, {tensor.dtype}, {tensor.device}) without readable values ({error}); takes "
            f"a dense one"
        ) from error


def _from_array(values: np.ndarray[Any, Any], channels_first: bool = False) -> Image.Image:
    """Convert an array; ``channels_first`` says where they are if both ends could be the channels."""
    values = _channels_last(values, channels_first)
    check_size(values.shape[1], values.shape[0])
    pixels = _eight_bit(np.ascontiguousarray(values))
    return _converted(Image.fromarray(pixels))


def _channels_last(values: np.ndarray[Any, Any], channels_first: bool) -> np.ndarray[Any, Any]:
    """An array ``(H, W)``, or ``(H, W, C)`` with C = 3 or 4."""
    shape = values.shape
    if len(shape) == 3 and shape[0] in _CHANNELS and (channels_first or shape[-1] not in _CHANNELS):
        values = np.moveaxis(values, 0, -1)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in _CHANNELS) or not values.size:
        raise ValueError(
            f"image: got an array of shape {shape}; takes (H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4, one picture"
        )
    return values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values


def _eight_bit(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same picture in uint8. Works in strips, since a temporary copy in floats would be the largest thing there is."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if (kind, size) == ("u", 1):
        return values
    if kind == "b":
        return values.astype(np.uint8) * 255
    if (kind, size) == ("u", 2):  # of colour, PIL hands over the high byte alone; a file and its array should be equal
        return (values // 257 if values.ndim == 2 else values >> 8).astype(np.uint8)
    if kind != "f":
        raise ValueError(f"image: got an array of {values.dtype}; takes uint8, uint16, booleans or floats in [0, 1]")
    low, high = float(values.min()), float(values.max())  # NaN if there is one
    if not 0 <= low <= high <= 1:
        hint = (
            "for values in 0..255, do_rescale=True of a converted processor"
            if 0 <= low <= high <= 255
            else "not normalised: qlip normalises"
        )
        if math.isnan(low) or math.isinf(low) or math.isinf(high):
            hint = "every value finite"
        raise ValueError(f"image: got floats from {low:.3g} to {high:.3g}; takes floats in [0, 1] ({hint}), or uint8")
    strips = (values[i : i + 256].astype(np.float64) for i in range(0, len(values), 256))
    return np.concatenate([(strip * 255).round().astype(np.uint8) for strip in strips])


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

    Raises:
        ValueError: if the square is above the limit of `check_size`.
    """
    side = max(image.size)
    check_size(side, side)
    square = Image.new("RGB", (side, side), tuple(int(255 * x) for x in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def normalise(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """RGB image to a float32 tensor ``(3, H, W)``, scaled to [0, 1], mean subtracted and divided by std."""
    pixels = tvf.pil_to_tensor(image).contiguous()  # it comes channels last, which makes all that follows twice as slow
    return tvf.normalize(tvf.to_dtype(pixels, torch.float32, scale=True), list(mean), list(std))


def as_list(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """One image as a list of one."""
    return list(images) if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]  # type: ignore[list-item]
