"""What a validation adds up, batch after batch and rank after rank."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric


class ValidationMeans(nn.Module):
    """Means over photographs and ranks: of L_cls and, on request, L_patches over all sizes, and of the cosine of [CLS] at each.

    Not Lightning's own means: with ranks that have unequally many photographs they come out wrong (2.6, gloo: cosines of
    1.5).

    Args:
        sizes: Sides in pixels of the squares that validation shows.
        patches: Whether there is an L_patches.
    """

    def __init__(self, sizes: Sequence[int], patches: bool = False) -> None:
        super().__init__()
        names = ["l_cls", *(["l_patches"] if patches else []), *(f"cos_cls_{size}" for size in sizes)]
        self.means = nn.ModuleDict({name: MeanMetric() for name in names})

    def update(self, size: int, cls: Tensor, target: Tensor, loss: Tensor, patches: Tensor | None = None) -> None:
        """Add photographs at one size: [CLS] outputs and targets ``(B, E)`` each, their L_cls and their L_patches."""
        self._mean("l_cls").update(loss, weight=len(cls))
        if patches is not None:
            self._mean("l_patches").update(patches, weight=len(cls))
        self._mean(f"cos_cls_{size}").update(F.cosine_similarity(cls, target))

    def pop(self) -> dict[str, Tensor]:
        """The means by name, over all ranks; starts anew. Every rank must call it."""
        values = {name: self._mean(name).compute() for name in self.means}
        for name in self.means:
            self._mean(name).reset()
        return values

    def _mean(self, name: str) -> MeanMetric:
        mean = self.means[name]
        assert isinstance(mean, MeanMetric)
        return mean
