"""What callers of stock processors say about pictures, in qlip's terms: sizes as dictionaries, ranges of floats, where channels are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from qlip.core.rules import shown
from qlip.images.read import ImageLike

ALWAYS = ("do_normalize", "do_convert_rgb")  # True says what happens anyway
OF_THE_VALUES = ("do_rescale", "input_data_format")
STOCK_OPTIONS = (*OF_THE_VALUES, "do_resize", *ALWAYS)
_CHANNEL_AXIS = {"channels_first": 0, "channels_last": -1}
_CHANNELS = (1, 3, 4)


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a call without transformers' names: ``size`` as a number, and ``do_resize=False`` as no size.

    Args:
        options: Of a call; those of `OF_THE_VALUES` are left out, see `as_told`.

    Raises:
        ValueError: for what cannot be said in qlip's terms.
    """
    own = {name: value for name, value in options.items() if name not in STOCK_OPTIONS}
    for name in ALWAYS:
        if options.get(name) is False:
            raise ValueError(f"{name}: got False; a converted processor always does it. Leave it out")
    if isinstance(own.get("size"), Mapping):
        own["size"] = _shortest_edge(own["size"])
    if options.get("do_resize") is False:
        own["size"] = None
    return own


def _shortest_edge(size: Mapping[str, Any]) -> Any:
    """The one number of a size in transformers' form."""
    said = {name: value for name, value in size.items() if value is not None}
    if said.keys() != {"shortest_edge"}:
        raise ValueError(
            f"size: got {said}; takes {{'shortest_edge': pixels}}, a number, which means the same, or None for native. The "
            f"aspect is kept, and max_tokens bounds what a picture costs"
        )
    return said["shortest_edge"]


def as_told(image: ImageLike, do_rescale: bool | None = None, input_data_format: Any = None) -> ImageLike:
    """A picture whose values mean what a call says they mean, as `qlip.images.read.to_pixels` takes it.

    Args:
        image: Any picture; only arrays, tensors and PIL's mode F leave something to be said.
        do_rescale: True: floats are in 0..255, and integers of any width too. False: floats are in [0, 1], as they are if
            nothing is said.
        input_data_format: ``"channels_first"`` or ``"channels_last"``; if not given, the shape tells.

    Raises:
        ValueError: if the picture is not as told.
    """
    said = do_rescale is not None or input_data_format is not None
    if said and isinstance(image, Image.Image) and image.mode == "F":
        image = np.asarray(ImageOps.exif_transpose(image))
    kind = str(image.dtype) if isinstance(image, np.ndarray | Tensor) else ""
    if do_rescale is False and "float" not in kind:
        raise ValueError(
            "do_rescale: got False for a picture that does not hold floats; takes False for floats in [0, 1] alone"
        )
    if not isinstance(image, np.ndarray | Tensor):
        return image
    if input_data_format is not None:
        image = _channels(image, input_data_format)
    return image if not do_rescale or kind.endswith(("uint8", "bool")) else _bytes(image)


def _channels(image: np.ndarray | Tensor, told: Any) -> np.ndarray | Tensor:
    """An array with its channels where `to_pixels` looks for them first: last in an array, first in a tensor."""
    axis = _CHANNEL_AXIS.get(getattr(told, "value", told))
    if axis is None:
        raise ValueError(f"input_data_format: got {shown(told)}; takes 'channels_first' or 'channels_last'")
    if image.shape[axis] not in _CHANNELS and image.shape[0 if isinstance(image, Tensor) else -1] == 1:
        return image  # grey, of two dimensions when it was handed over
    if image.ndim != 3 or image.shape[axis] not in _CHANNELS:
        raise ValueError(
            f"input_data_format: got {shown(told)} for an array of shape {tuple(image.shape)}; takes 1, 3 or 4 channels there"
        )
    return image.movedim(axis, 0) if isinstance(image, Tensor) else np.moveaxis(image, axis, -1)


def _bytes(image: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Values in 0..255 as floats in [0, 1]."""
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and (high == 0 or 1 < high <= 255)):  # NaN too
        raise ValueError(
            f"do_rescale: got True for values from {low:.3g} to {high:.3g}; takes it for values in 0..255. Leave it out for "
            f"floats in [0, 1], which would become black"
        )
    return image / 255
