"""The two biases of a vision encoder away from its training size (section 2 of the paper; docs/definitions.md)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def position_gradient_norms(cls: Tensor, target: Tensor, positions: Tensor) -> Tensor:
    """Interpolation bias (eq. 1) of each image: norm of the gradient of cos([CLS], target) by its positions, ``(B,)``.

    Args:
        cls: [CLS] outputs ``(B, E)``, computed from ``positions``.
        target: [CLS] outputs ``(B, E)`` at the training size.
        positions: Positional encodings ``(B, N, D)`` that require a gradient; padded entries get none and count nothing.
    """
    with torch.enable_grad():
        cosine = F.cosine_similarity(cls.float(), target.float())
        (gradient,) = torch.autograd.grad(cosine.sum(), positions, retain_graph=True)
    return gradient.float().flatten(1).norm(dim=1)
