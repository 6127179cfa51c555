"""Any picture a user may hand over, as eight-bit RGB; nothing here knows about models.

`to_pixels` is the one way in: a tensor ``(3, H, W)`` uint8 whose channels lie last in memory, as decoders write and the resizing
of torchvision reads them. `to_rgb` is the same picture for those who draw on it.

Pictures come from anywhere, and headers lie. So a file must be a regular one of a known format, its size is checked before
anything of it is decoded, and whatever its decoder raises becomes one ``OSError`` that names the file.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from qlip.files import open_regular
from qlip.images.arrays import Array, channels_last, eight_bit, to_numpy
from qlip.images.effort import check_header, check_scans

ImageLike = Image.Image | np.ndarray | Tensor | str | Path | bytes

MAX_PIXELS = 2**27  # 134 million, 400 MB in RGB: above the pictures of all cameras but a few
MAX_ASPECT = 200  # longer side over shorter side
MAX_BYTES = 2**30  # of a file: some decoders read all of it before they look at the size of the picture
# Only formats of pixels: Pillow would start Ghostscript for others.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
T = TypeVar("T")
# pixels that are converted at a time: temporary copies of a whole picture would be the largest thing there is
_STRIP = 2**20
_TURNS: dict[int, Callable[[Array], Array]] = {  # EXIF's number -> the upright picture from the stored one
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1],
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a.T[::-1],
}


def read_image(path: str | Path) -> Image.Image:
    """The picture of `to_rgb` in a file.

    Raises:
        OSError: if it is no regular file, cannot be read, is cut short, is no image, or is above the limits of `check_size`;
            the message names the file.
    """
    return _as_image(_from_file(path))


def read_size(source: str | Path | bytes) -> tuple[int, int]:
    """Width and height of an upright picture, from the header of its file or bytes alone.

    Raises:
        OSError: as `read_image`.
    """

    def size(file: BinaryIO) -> tuple[int, int]:
        with _identify(file) as image:
            return image.size[::-1] if _orientation(image) >= 5 and image.format != "TIFF" else image.size

    return _reading(source, size)


def open_picture(source: str | Path | bytes) -> Image.Image:
    """The picture in a file, not decoded yet: it holds the file's bytes, and `to_pixels` leaves it as it is.

    Raises:
        OSError: as `read_image`, but for what only decoding finds.
    """
    image = _reading(source, lambda file: _identify(io.BytesIO(file.read())))
    image.filename = _name(source)  # type: ignore[attr-defined]  # for the message if it cannot be decoded
    return image


def to_pixels(image: ImageLike) -> Tensor:
    """Convert a picture to upright eight-bit RGB ``(3, H, W)``, channels last in memory: the same one, however it is handed over.

    EXIF rotation is applied, transparency is laid over white, 16 bits are scaled to 8 (not cut off, as PIL does),
    greyscale, palette and CMYK are converted. It may share its memory with a picture that is such a tensor or array already.

    Args:
        image: A PIL image; a path or the bytes of a file; an array ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, or a tensor
            ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``, of C = 1, 3 or 4 channels. Where both ends could be the channels,
            they are last in an array and first in a tensor. Both hold uint8, uint16, booleans, or floats in [0, 1]; PIL's
            mode F holds such floats too. An image that PIL has opened and not decoded is left so.

    Raises:
        TypeError: for anything else.
        ValueError: for a picture whose shape or values are none, or which is above the limits of `check_size`.
        OSError: for a file that cannot be read; the message names it.
    """
    if isinstance(image, str | Path | bytes):
        return _from_file(image)
    if isinstance(image, Tensor):
        pixels = _from_array(to_numpy(image), channels_first=True)
    elif isinstance(image, np.ndarray):
        pixels = _from_array(image)
    elif isinstance(image, Image.Image):
        pixels = _from_pil(image)
    else:
        raise TypeError(
            f"image: got {type(image).__name__}; takes a PIL image, a path, bytes, a numpy array or a tensor"
        )
    return _as_tensor(pixels)


def to_rgb(image: ImageLike) -> Image.Image:
    """The picture of `to_pixels` as a PIL image.

    What it returns carries no notes, so that it is returned as it is if it comes again.

    Args:
        image: What `to_pixels` takes.

    Raises:
        TypeError: as `to_pixels`.
        ValueError: as `to_pixels`.
        OSError: as `to_pixels`.
    """
    if type(image) is Image.Image and image.mode == "RGB" and not image.info:
        check_size(*image.size)
        return image
    return _as_image(to_pixels(image))


def _as_tensor(pixels: Array) -> Tensor:
    """An array ``(H, W, 3)`` as a tensor ``(3, H, W)``; torch takes none that cannot be written to, or that runs backwards."""
    taken = pixels.flags.writeable and min(pixels.strides) >= 0  # numpy calls a single line contiguous either way
    return torch.from_numpy(pixels if taken else pixels.copy()).permute(2, 0, 1)


def _as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def check_size(width: int, height: int) -> None:
    """Raise if a picture is larger, or longer and thinner, than any that is read.

    Raises:
        ValueError: above 134 million pixels (`MAX_PIXELS`), or 200 times as long as wide (`MAX_ASPECT`).
    """
    if min(width, height) < 1 or width * height > MAX_PIXELS or max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"image: got {width} x {height} pixels; takes at most {MAX_PIXELS:,} pixels, and at most {MAX_ASPECT} times as "
            f"long as wide. Scale it down or cut it first"
        )


def _reading(source: str | Path | bytes, read: Callable[[BinaryIO], T]) -> T:
    """What ``read`` finds in a file or in the bytes of one.

    Raises:
        OSError: as `read_image`.
    """
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source, MAX_BYTES) as file:
            return read(file)
    except Exception as error:  # a decoder may raise anything, and one picture must not stop a training
        raise _unreadable(_name(source), error) from error


def _name(source: str | Path | bytes) -> str:
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)


def _from_file(source: str | Path | bytes) -> Tensor:
    """The pixels in a file or in the bytes of one. Raises as `read_image`."""

    def pixels(file: BinaryIO) -> Array:
        with _identify(file) as image:
            return _decode(image, file)

    return _as_tensor(_reading(source, pixels))


def _identify(file: BinaryIO) -> Image.Image:
    """The picture in a file, not decoded yet; its size is one that is taken."""
    Image.init()
    check_header(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours
        image = Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    check_size(*image.size)
    if image.format == "JPEG2000" and image.width * image.height > MAX_PIXELS // 3:
        raise ValueError(
            f"got {image.width} x {image.height} pixels of JPEG 2000, which takes four times the memory; takes at most "
            f"{MAX_PIXELS // 3:,}"
        )
    return image


def _decode(image: Image.Image, file: BinaryIO) -> Array:
    """The upright pixels ``(H, W, 3)`` of a picture that is not decoded yet, and its file."""
    place = file.tell()
    file.seek(0)
    check_scans(file)
    if image.format not in ("JPEG", "MPO") or image.mode not in ("L", "RGB"):
        file.seek(place)  # some decoders go on from where the header ended
        image.load()
        return _converted(image)
    data = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    # torchvision writes the very pixels of PIL, in three bytes where PIL takes four and then three more
    pixels = decode_jpeg(data, ImageReadMode.RGB).permute(1, 2, 0).numpy()
    return _turned(pixels, _orientation(image))


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


def _from_pil(image: Image.Image) -> Array:
    """Convert a PIL image; one that was opened and not decoded yet fails as its file would."""
    check_size(*image.size)
    try:
        again = _opened_again(image)
        if again is not None:
            return again
        image.load()
        return _converted(image)
    except ValueError as error:
        if str(error).startswith("image: "):
            raise
        raise ValueError(f"image: got a PIL image of mode {image.mode} that cannot be converted: {error}") from error
    except Exception as error:
        raise _unreadable(getattr(image, "filename", "") or f"the PIL image of mode {image.mode}", error) from error


def _opened_again(image: Image.Image) -> Array | None:
    """The pixels of a PIL image that was opened and not decoded, which stays so: else a batch would hold every picture in it.

    None where the file alone does not say what the image shows.
    """
    file = image.fp if isinstance(image, ImageFile.ImageFile) and image.tile and not image.decoderconfig else None
    if file is None or image.tell() or image.format not in FORMATS or not file.seekable():
        return None
    place = file.tell()
    file.seek(0)
    copy = io.BytesIO(file.read())  # PIL closes what it has read to the end
    file.seek(place)
    with _identify(copy) as fresh:
        same = (fresh.mode, fresh.size, fresh.info) == (image.mode, image.size, image.info)
        # PIL decodes a PNG to find its EXIF, so that one whose EXIF was changed is not here
        same = same and (image.format == "PNG" or _orientation(fresh) == _orientation(image))
        return _decode(fresh, copy) if same else None


def _converted(image: Image.Image) -> Array:
    """The upright pixels ``(H, W, 3)`` of a decoded image, converted strip by strip."""
    convert, (width, height) = _conversion(image), image.size
    pixels, rows = np.empty((height, width, 3), np.uint8), max(_STRIP // width, 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(convert(image.crop((0, top, width, bottom))))
    return _turned(pixels, _orientation(image))


def _conversion(image: Image.Image) -> Callable[[Image.Image], Array | Image.Image]:
    """What makes RGB of an image like this one, or of a part of it."""
    clear = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        if not isinstance(clear, int):
            return lambda part: _rgb(np.asarray(part))
        return lambda part: _rgb(np.where(np.asarray(part) == clear, np.uint16(65535), np.asarray(part)))
    if image.mode == "I":
        _check_sixteen_bit(image)
        return lambda part: _rgb(np.asarray(part).astype(np.uint16))
    if image.mode == "F":
        return lambda part: _rgb(np.asarray(part))
    return _over_white if image.has_transparency_data else lambda part: part.convert("RGB")


def _turned(pixels: Array, orientation: int) -> Array:
    """The upright picture of pixels ``(H, W, 3)`` that are stored as EXIF's number says."""
    if orientation == 1:
        return pixels
    turned = np.ascontiguousarray(_TURNS[orientation](pixels.view("V3")[..., 0]))  # a pixel at a time
    return turned.view(np.uint8).reshape(*turned.shape, 3)


def _orientation(image: Image.Image) -> int:
    """EXIF's number of how the picture was turned, 1 to 8; 1 where it says none."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _over_white(image: Image.Image) -> Image.Image:
    """Lay a picture with transparency over white."""
    if image.mode != "RGBA":
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _check_sixteen_bit(image: Image.Image) -> None:
    """PIL's mode I does not say how many bits are meant: takes values of 16, and refuses small ones.

    Files of the PPM family are known: PIL scales them to 65535.
    """
    low, high = image.getextrema()
    if low < 0 or high > 65535 or (0 < high <= 255 and image.format != "PPM"):  # type: ignore[operator]  # one channel
        raise ValueError(
            f"image: got PIL's mode I with values from {low} to {high}, which may be of any number of bits; takes values up "
            f"to 65535 that need 16 bits. Convert it to mode L, or pass an array of uint8 or uint16"
        )


def _from_array(values: Array, channels_first: bool = False) -> Array:
    """The pixels ``(H, W, 3)`` of an array; ``channels_first`` says where they are if both ends could be the channels."""
    values = channels_last(values, channels_first)
    check_size(values.shape[1], values.shape[0])
    return _rgb(values)


def _rgb(values: Array) -> Array:
    """The pixels ``(H, W, 3)`` of values ``(H, W)`` or ``(H, W, C)``, of a picture or of a part of one."""
    pixels = np.ascontiguousarray(eight_bit(values))
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return pixels if pixels.shape[2] == 3 else _converted(Image.fromarray(pixels))


def as_list(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """One image as a list of one."""
    return list(images) if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]  # type: ignore[list-item]
