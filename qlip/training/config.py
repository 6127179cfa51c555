"""What can be set about the network and the loss; imports nothing, so that a command line can show it at once."""

from dataclasses import dataclass
from typing import Literal

ClsLoss = Literal["mse", "l2"]


@dataclass(frozen=True)
class MLPConfig:
    """The coordinate MLP and where it starts."""

    hidden: int = 1024
    """Width of the hidden layers."""
    depth: int = 4
    """Number of hidden layers."""
    fourier: int = 48
    """Number of Fourier frequencies."""
    sigma: float | None = None
    """Standard deviation of the frequencies in cycles per unit of coordinate; grid / 16 if not given."""
    init: Literal["solved", "random"] = "solved"
    """Start from the solved readout, where R is already at rounding error, or from random weights as the paper does."""


@dataclass(frozen=True)
class LossConfig:
    """L = L_cls + gamma R (eq. 5), and on request a term for the patches."""

    gamma: float = 1.0
    """Weight of the residual."""
    cls_loss: ClsLoss = "mse"
    """Mean squared difference of the [CLS] outputs, or its norm (eq. 3); mse is what makes gamma = 1 balanced."""
    target: Literal["image_embeds", "pooler_output"] | None = None
    """Which vector of a whole image: after or before CLIP's projection into the space shared with text; if not given, after, and before
    for a tower without one. Before it, CLIP and DINOv2 have [CLS], SigLIP its head's vector, and a tower that pools nothing the mean of its
    patches."""
    patches: float = 0.0
    """Weight of L_patches, which asks the features of leaves, not [CLS], to stay what they are in the standard view at the same place (not
    in the paper; docs/definitions.md). It costs a pass of the frozen tower over the standard views."""
