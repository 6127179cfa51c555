"""Arrays and tensors that hold a picture: how they lie, and what their values mean."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
_CHANNELS = (1, 3, 4)


def to_numpy(tensor: Tensor) -> Array:
    """The values of a tensor; bfloat16, which numpy lacks, as float32."""
    try:
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"image: got a tensor ({tensor.layout}, {tensor.dtype}, {tensor.device}) without readable values ({error}); takes "
            f"a dense one"
        ) from error


def channels_last(values: Array, channels_first: bool) -> Array:
    """An array ``(H, W)``, or ``(H, W, C)`` with C = 3 or 4."""
    shape = values.shape
    if len(shape) == 3 and shape[0] in _CHANNELS and (channels_first or shape[-1] not in _CHANNELS):
        values = np.moveaxis(values, 0, -1)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in _CHANNELS) or not values.size:
        raise ValueError(
            f"image: got an array of shape {shape}; takes (H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4, one picture"
        )
    return values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values


def eight_bit(values: Array) -> Array:
    """The same picture in uint8. Works in strips, since a temporary copy in floats would be the largest thing there is."""
    if (values.dtype.kind, values.dtype.itemsize) == ("u", 1):
        return values
    convert, pixels = _conversion(values), np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):
        pixels[top : top + 256] = convert(values[top : top + 256])
    return pixels


def _conversion(values: Array) -> Callable[[Array], Array]:
    """What makes eight bits of values like these, or of a part of them."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return lambda part: part.astype(np.uint8) * 255
    if (kind, size) == ("u", 2):  # of colour, PIL hands over the high byte alone; a file and its array should be equal
        return lambda part: part // 257 if values.ndim == 2 else part >> 8
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
    return lambda part: (part.astype(np.float64) * 255).round()
