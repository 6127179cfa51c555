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

    @cached_property
    def floats(self) -> Tensor:
        """The normalised image, ``(3, H, W)`` float32."""
        return normalise(self.pixels, self.mean, self.std)

    def leaves(self, tree: Quadtree) -> Leaves:
        """The leaves that a quadtree finds. Raises as `Quadtree.batch`."""
        if compiled.finds(tree, self.pixels):
            return compiled.find_leaves(self.pixels, self.mean, self.std, tree)
        return tree.batch(self._read_by(tree))[0]

    def count(self, tree: Quadtree) -> int:
        """Number of leaves by the quadtree's ``alpha``; a budget is left aside. Raises as `Quadtree.count`."""
        if compiled.finds(tree, self.pixels):
            return len(compiled.find_leaves(self.pixels, self.mean, self.std, replace(tree, max_tokens=None)))
        return tree.count(self._read_by(tree))[0]

    def patches(self, leaves: Leaves) -> Tensor:
        """The patches ``(N, 3, p, p)`` float32 at leaves. Raises as `patchify`."""
        if compiled.cuts(self.pixels):
            return compiled.cut(self.pixels, self.mean, self.std, leaves)
        return patchify(self.floats, leaves)

    def batch(self, leaves: Leaves) -> PatchBatch:
        """The batch of this image cut at leaves. Raises as `patchify`."""
        return PatchBatch.from_patches(self.patches(leaves), leaves)

    def _read_by(self, tree: Quadtree) -> Tensor:
        """The image ``(1, 3, H, W)`` as a quadtree reads it: no floats are made for one that looks at none."""
        if tree.criterion in BLIND:
            return self.pixels.new_empty((), dtype=torch.float32).expand(1, *self.pixels.shape)
        return self.floats[None]
