"""How pictures travel from a Hugging Face processor to a converted model: ``pixel_values`` as a list, one pair per image.

The pair is ``(patches (N * u * u, 3, p, p) float, leaves (N, 5) int64)`` with columns row, col, size, h, w, in units of
``u x u`` patches that the language model sees as one token (u = 1 for LLaVA, 2 for Qwen-VL); the parts of a leaf follow one
another in reading order. A list, because images differ in N; geometry as integers, because everything on the way (`BatchFeature.to`, pipelines, trainers) casts floats to
the model's dtype, and coordinates in bfloat16 would place tokens half a patch off.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from qlip.core.patches import PatchBatch, patchify
from qlip.core.quadtree import Leaves

Pair = tuple[Tensor, Tensor]
PixelValues = PatchBatch | Sequence[Pair | Sequence[Pair]]


def pack(image: Tensor, leaves: Leaves, unit: int = 1) -> Pair:
    """The pair of an image ``(3, H, W)`` cut at the ``unit x unit`` parts of its leaves."""
    return patchify(image, leaves.parts(unit)), leaves.geometry()


def to_pairs(pixel_values: Any) -> list[Pair]:
    """Check what a model was given and flatten it: a list of pairs, or of lists of them.

    Raises:
        TypeError: for anything else, in particular the dense tensor of a processor that was not converted.
    """
    try:
        return list(_flatten(pixel_values))
    except TypeError as error:
        got = f"{error}" if not isinstance(pixel_values, Tensor) else f"a tensor {tuple(pixel_values.shape)}"
        raise TypeError(
            f"pixel_values: got {got}; a converted model takes the list that a converted processor returns, with patches "
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
    elif isinstance(value, list | tuple):
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
