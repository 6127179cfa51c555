"""What an encoder sees of a picture in eight bits, and how its leaves are found and cut."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from qlip.core import compiled
from qlip.core.criteria import BLIND
from qlip.core.patches import PatchBatch, patchify
from qlip.core.quadtree import Leaves, Quadtree
from qlip.images.resize import normalise


@dataclass(frozen=True, eq=False)
class EightBitImage:
    """A picture brought to whole patches, its values still bytes.

    Compiled loops read the bytes; tensors read `floats`, which are made when they are first asked for. See `qlip.core.compiled`.

    Attributes:
        pixels: ``(3, H, W)`` uint8.
        mean, std: Of the channels in [0, 1].
    """

    pixels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        if self.pixels.untyped_storage().nbytes() > 2 * self.pixels.nbytes:  # much was cut off, which need not be kept
            alone = self.pixels.permute(1, 2, 0).clone(memory_format=torch.contiguous_format)
            object.__setattr__(self, "pixels", alone.permute(2, 0, 1))

    @cached_property
    def floats(self) -> Tensor:
        """The normalised image, ``(3, H, W)`` float32."""
        return normalise(self.pixels, self.mean, self.std)

    def leaves(self, tree: Quadtree) -> Leaves:
        """The leaves that a quadtree finds. Raises as `Quadtree.batch`."""
        if compiled.can_find(tree, self.pixels):
            return compiled.find_leaves(self.pixels, self.mean, self.std, tree)
        return tree.batch(self._read_by(tree))[0]

    def count(self, tree: Quadtree) -> int:
        """Number of leaves by the quadtree's ``alpha``; a budget is left aside. Raises as `Quadtree.count`."""
        if compiled.can_find(tree, self.pixels):
            return len(compiled.find_leaves(self.pixels, self.mean, self.std, replace(tree, max_tokens=None)))
        return tree.count(self._read_by(tree))[0]

    def patches(self, leaves: Leaves) -> Tensor:
        """The patches ``(N, 3, p, p)`` float32 at leaves. Raises as `patchify`."""
        if compiled.can_cut(self.pixels):
            return compiled.cut(self.pixels, self.mean, self.std, leaves)
        return patchify(self.floats, leaves)

    def batch(self, leaves: Leaves, unit: int = 1) -> PatchBatch:
        """The batch of this image cut at the ``unit x unit`` parts of leaves. Raises as `patchify`."""
        parts = leaves.parts(unit)
        return PatchBatch.from_patches(self.patches(parts), parts)

    def _read_by(self, tree: Quadtree) -> Tensor:
        """The image ``(1, 3, H, W)`` as a quadtree reads it: no floats are made for one that looks at none."""
        if tree.criterion in BLIND:
            return self.pixels.new_empty((), dtype=torch.float32).expand(1, *self.pixels.shape)
        return self.floats[None]
