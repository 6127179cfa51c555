"""The training loss L = L_cls + gamma R (eqs. 3 to 5 of the paper), as functions of tensors; see docs/definitions.md."""

from collections.abc import Callable, Iterator

import torch.nn.functional as F
from torch import Tensor

from qlip.core.bias import position_gradient_norms
from qlip.core.patches import PatchBatch
from qlip.training.batch import TrainBatch
from qlip.training.config import ClsLoss
from qlip.training.micro_batches import sum_of_micro_batches

EncodeAt = Callable[[PatchBatch, Tensor], Tensor]


def cls_loss(cls: Tensor, target: Tensor, kind: ClsLoss) -> Tensor:
    """L_cls (eq. 3), the mean over images of how far ``cls (B, E)`` is from ``target (B, E)``.

    ``"mse"`` is the mean squared difference of the entries, ``"l2"`` the norm of the difference. Computed in float32.
    """
    if kind == "mse":
        return F.mse_loss(cls.float(), target)
    return (cls.float() - target).norm(dim=-1).mean()


def residual(positions: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """R (eq. 4) and R2: mean absolute and mean squared difference of ``positions (n * n, D)`` from ``table (n, n, D)``."""
    difference = positions - table.flatten(0, 1)
    return difference.abs().mean(), difference.square().mean()


def batch_cls_loss(
    batch: TrainBatch, positions: Tensor, encode: EncodeAt, kind: ClsLoss, gradient_norms: list[Tensor] | None = None
) -> Tensor:
    """L_cls of a batch, with the activations of one micro-batch in memory at a time.

    Args:
        batch: The batch.
        positions: Positional encodings ``(U, D)`` of ``batch.coords``.
        encode: From patches and the encodings ``(B, N, D)`` of their tokens to [CLS] outputs ``(B, E)``.
        kind: The distance, see `cls_loss`.
        gradient_norms: A list that gets the interpolation bias (eq. 1) of the images, ``(B,)`` for each micro-batch. It
            costs a second backward pass.
    """

    def terms(positions: Tensor) -> Iterator[Tensor]:
        for micro_batch in batch.micro_batches:
            at_tokens = F.embedding(micro_batch.coord_index, positions)
            cls = encode(micro_batch.patches, at_tokens)
            if gradient_norms is not None:
                gradient_norms.append(position_gradient_norms(cls, micro_batch.target, at_tokens))
            yield cls_loss(cls, micro_batch.target, kind) * (len(micro_batch) / len(batch))

    return sum_of_micro_batches(terms, positions)
