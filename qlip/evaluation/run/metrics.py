"""The bias measures of the paper as torchmetrics: means over images, also across devices."""

import torch.nn.functional as F
from torch import Tensor, tensor
from torchmetrics import Metric

from qlip.core.bias import position_gradient_norms
from qlip.core.position import PositionMLP


class _MeanOverImages(Metric):
    """Sum and count of one number an image."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", tensor(0), dist_reduce_fx="sum")

    def _add(self, values: Tensor) -> None:
        self.total += values.detach().float().sum()
        self.count += len(values)

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count


class InterpolationBias(_MeanOverImages):
    """Norm of the gradient of cos([CLS], [CLS] at the training size) by the positional encodings added (eq. 1)."""

    higher_is_better = False

    def update(self, cls: Tensor, target: Tensor, positions: Tensor) -> None:
        """Add images.

        Args:
            cls: ``(B, E)``, computed from ``positions``.
            target: ``(B, E)``, the frozen encoder's at its training size.
            positions: ``(B, N, D)``, requiring a gradient.
        """
        self._add(position_gradient_norms(cls, target, positions))


class MesoscopicBias(_MeanOverImages):
    """cos([CLS], [CLS] at the training size), both encoded with all positions zero (section 2): 1 is no bias.

    With positions left in, the same number is the paper's plain comparison of [CLS] tokens.
    """

    higher_is_better = True

    def update(self, cls: Tensor, target: Tensor) -> None:
        """Add images, ``cls`` and ``target`` ``(B, E)``."""
        self._add(F.cosine_similarity(cls.float(), target.float()))


class GridResidual(Metric):
    """How far a position is from CLIP's table on the table's grid (R of eq. 4, R2), and from bicubic off it."""

    full_state_update = False
    values: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", tensor([0.0, 0.0, 0.0]), dist_reduce_fx="sum")
        self.add_state("count", tensor(0), dist_reduce_fx="sum")

    def update(self, position: PositionMLP, table: Tensor) -> None:
        """Add a position and the table ``(n, n, D)`` that it stands for."""
        l1, l2 = position.residual(table)
        self.values += tensor([l1.item(), l2.item(), position.offgrid(table)], device=self.values.device)
        self.count += 1

    def compute(self) -> dict[str, Tensor]:
        """R, R2 and offgrid, means over the positions added."""
        return dict(zip(("R", "R2", "offgrid"), self.values / self.count, strict=True))
