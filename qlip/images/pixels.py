"""How pictures travel from a Hugging Face processor to a converted model: ``pixel_values`` as a `PerImage`, one pair per image.

The pair is ``(patches (N * u * u, 3, p, p) float, leaves (N, 5) int64)`` with columns row, col, size, h, w, in units of
``u x u`` patches that the language model sees as one token (u = 1 for LLaVA, 2 for Qwen-VL); the parts of a leaf follow one
another in reading order. One by one, because images differ in N; geometry as integers, because everything on the way (`PerImage.to`, pipelines, trainers) casts floats to
the model's dtype, and coordinates in bfloat16 would place tokens half a patch off.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NoReturn, Self, overload

import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from qlip.core.patches import PatchBatch
from qlip.core.quadtree import Leaves
from qlip.images.eight_bit import EightBitImage

Pair = tuple[Tensor, Tensor]


class PerImage:
    """One value for each image of a batch: a tensor, or tuples and lists of tensors.

    It does what programs do to the one dense tensor of a stock processor: moves, is cast, pinned, sliced by images, pickled, and
    joined by torch's ``default_collate``. No list, because accelerate and DataParallel cut every tensor inside a list, which would
    tear images apart.

    Args:
        values: One for each image.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        self.values = list(values)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    @overload
    def __getitem__(self, which: int) -> Any: ...

    @overload
    def __getitem__(self, which: slice) -> Self: ...

    def __getitem__(self, which: int | slice) -> Any:
        return type(self)(self.values[which]) if isinstance(which, slice) else self.values[which]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images)"

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The same values elsewhere, as ``torch.Tensor.to``; floats alone are cast, for leaves are counted in integers."""

        def moved(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point():
                return tensor.to(*args, **kwargs)
            where = tensor.new_empty(0, dtype=torch.float32).to(*args, **kwargs).device
            return tensor.to(where, non_blocking=kwargs.get("non_blocking", False))

        return self._map(moved)

    def cuda(self, *args: Any, **kwargs: Any) -> Self:
        """The same values on a GPU, as ``torch.Tensor.cuda``."""
        return self._map(lambda tensor: tensor.cuda(*args, **kwargs))

    def cpu(self) -> Self:
        """The same values in main memory."""
        return self.to("cpu")

    def pin_memory(self) -> Self:
        """The same values in page-locked memory, as DataLoader asks."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same values with every tensor changed."""
        return type(self)(_mapped(value, change) for value in self.values)

    def __array__(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse to become one array: numpy and ``datasets.map`` ask for it."""
        raise TypeError(
            "pixel_values: images differ in their number of patches, so they are no array and no column of a data set. Prepare "
            "them when they are read: dataset.with_transform(function) in place of dataset.map(function), or in the collator "
            "(docs/adapters.md)"
        )


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nested lists and tuples with every tensor changed."""
    if isinstance(value, list | tuple):
        return type(value)(_mapped(part, change) for part in value)
    return change(value) if isinstance(value, Tensor) else value


def join(batches: Iterable[PerImage]) -> PerImage:
    """The images of several batches, one after another."""
    return PerImage(chain.from_iterable(batches))


default_collate_fn_map[PerImage] = lambda batch, **_: join(batch)  # torch's own way for a type that is not its own

PixelValues = PatchBatch | PerImage | Sequence[Pair | Sequence[Pair]]


def pack(image: EightBitImage, leaves: Leaves, unit: int = 1) -> Pair:
    """The pair of an image cut at the ``unit x unit`` parts of its leaves."""
    return image.patches(leaves.parts(unit)), leaves.geometry()


def to_pairs(pixel_values: Any) -> list[Pair]:
    """Check what a model was given and flatten it: pairs, or lists of them, in a `PerImage` or a list.

    Raises:
        TypeError: for anything else, in particular the dense tensor of a processor that was not converted.
    """
    try:
        return list(_flatten(pixel_values))
    except TypeError as error:
        got = f"{error}" if not isinstance(pixel_values, Tensor) else f"a tensor {tuple(pixel_values.shape)}"
        raise TypeError(
            f"pixel_values: got {got}; a converted model takes what a converted processor returns, with patches "
            f"(N, 3, p, p) and leaves (N, 5) for each image. Use the processor that qlip.convert(model, processor) "
            f"returned, or qlip.restore(model) to go on with the original one"
        ) from error


def _flatten(value: Any) -> Iterator[Pair]:
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, Tensor) for part in value):
        patches, leaves = value
        counted = leaves.ndim == 2 and leaves.shape[1] == 5 and len(patches) == _unit(value) ** 2 * len(leaves)
        if patches.ndim != 4 or not counted or leaves.is_floating_point():
            raise TypeError(f"a pair of {tuple(patches.shape)} and {leaves.dtype} {tuple(leaves.shape)}")
        yield value
    elif isinstance(value, list | tuple | PerImage):
        for part in value:
            yield from _flatten(part)
    else:
        raise TypeError(type(value).__name__)


def _unit(pair: Pair) -> int:
    """Patches along the side of a unit: 1, or what the counts of patches and leaves say."""
    patches, leaves = pair
    return round((len(patches) / max(len(leaves), 1)) ** 0.5)


def token_counts(pixel_values: PixelValues, unit: int = 1) -> list[int]:
    """Leaves of each image, class token not counted.

    Args:
        pixel_values: Pairs, which say how many leaves they have, or a `PatchBatch`, which knows patches alone.
        unit: Patches along the side of a leaf's unit, for a `PatchBatch`.
    """
    if isinstance(pixel_values, PatchBatch):
        return (pixel_values.num_tokens // unit**2).tolist()
    return [len(leaves) for _, leaves in to_pairs(pixel_values)]


def to_batch(pixel_values: PixelValues) -> PatchBatch:
    """One ragged batch of the patches of all images; a `PatchBatch` is returned as it is.

    Raises:
        TypeError: see `to_pairs`.
        ValueError: if there is no image.
    """
    if isinstance(pixel_values, PatchBatch):
        return pixel_values
    return PatchBatch.collate(
        PatchBatch.from_patches(pair[0], Leaves.from_geometry(pair[1]).parts(_unit(pair)))
        for pair in to_pairs(pixel_values)
    )
