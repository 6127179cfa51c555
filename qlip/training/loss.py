"""The training loss L = L_cls + gamma R (eqs. 3 to 5 of the paper), with L_patches on request; see docs/definitions.md."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from qlip.core.bias import position_gradient_norms
from qlip.core.patches import PatchBatch
from qlip.core.quadtree import centres
from qlip.training.batch import MicroBatch, TrainBatch
from qlip.training.config import ClsLoss, LossConfig
from qlip.training.micro_batches import sum_of_micro_batches


class Encoded(NamedTuple):
    """What the tower makes of a micro-batch.

    Attributes:
        cls: [CLS] outputs ``(B, E)``.
        features: Those of the leaves ``(B, N, D)`` and of the standard views ``(B, n * n, D)``, where the loss looks at them.
    """

    cls: Tensor
    features: tuple[Tensor, Tensor] | None = None


Encode = Callable[[MicroBatch, Tensor], Encoded]


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


def patch_loss(features: Tensor, standard: Tensor, patches: PatchBatch) -> Tensor:
    """L_patches, how far the features of leaves are from those of the same place in the standard view: the mean of 1 - cos over leaves, then
    over images.

    Leaves whose centre lies outside the square that the standard view shows count nothing. Computed in float32.

    Args:
        features: Features ``(B, N, D)`` of the leaves.
        standard: Features ``(B, n * n, D)`` of the standard views; between the centres of their patches they are interpolated
            bilinearly.
        patches: The leaves, with their geometry.
    """
    assert patches.geometry is not None, "a processor's batches have it"
    grid = patches.geometry[..., 3:].float()
    across = centres(patches.geometry, "edges") * grid / grid.amin(-1, keepdim=True)  # edges of the square at -1 and 1
    inside = patches.mask & (across.abs() <= 1).all(-1)
    side = math.isqrt(standard.shape[1])
    planes = standard.float().transpose(1, 2).unflatten(2, (side, side))
    points = torch.where(inside[..., None], across, 0.0).flip(-1)[:, None]  # (x, y); padding has no centre
    wanted = F.grid_sample(planes, points, padding_mode="border", align_corners=False)[:, :, 0].transpose(1, 2)
    distance = (1 - F.cosine_similarity(features.float(), wanted, dim=-1)).masked_fill(~inside, 0.0)
    return (distance.sum(1) / inside.sum(1).clamp(min=1)).mean()


def batch_loss(
    batch: TrainBatch,
    positions: Tensor,
    encode: Encode,
    loss: LossConfig,
    gradient_norms: list[Tensor] | None = None,
    patch_losses: list[Tensor] | None = None,
) -> Tensor:
    """L_cls of a batch, and its L_patches times their weight, with the activations of one micro-batch in memory at a time.

    Args:
        batch: The batch.
        positions: Positional encodings ``(U, D)`` of ``batch.coords``.
        encode: Encodes a micro-batch whose tokens have these encodings ``(B, N, D)``.
        loss: The terms and their weights; gamma R is not among them.
        gradient_norms: A list that gets the interpolation bias (eq. 1) of the images, ``(B,)`` for each micro-batch. It
            costs a second backward pass.
        patch_losses: A list that gets the parts of L_patches, one for each micro-batch, which add up to it.
    """

    def terms(positions: Tensor) -> Iterator[Tensor]:
        for micro_batch in batch.micro_batches:
            at_tokens = F.embedding(micro_batch.coord_index, positions)
            cls, features = encode(micro_batch, at_tokens)
            if gradient_norms is not None:
                gradient_norms.append(position_gradient_norms(cls, micro_batch.target, at_tokens))
            share = len(micro_batch) / len(batch)
            value = cls_loss(cls, micro_batch.target, loss.cls_loss) * share
            if features is not None:
                l_patches = patch_loss(*features, micro_batch.patches) * share
                value = value + loss.patches * l_patches
                if patch_losses is not None:
                    patch_losses.append(l_patches.detach())
            yield value

    return sum_of_micro_batches(terms, positions)
