"""Pixtral's vision tower, also Mistral 3's."""

from torch import Tensor

from qlip.core.quadtree import centres
from qlip.towers.base import Tower


class Pixtral(Tower, hosts=("PixtralVisionModel",)):
    """No class token and no vector for a whole image; patches are turned by their row and column."""

    patch = "patch_conv"
    layers = "transformer.layers"

    size = None  # any

    def before(self, states: Tensor) -> Tensor:
        """The first norm."""
        return self.module.ln_pre(states)

    def rotation(self, geometry: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine ``(P, d)``, the same for all heads."""
        at = centres(geometry, "patches")
        return self.module.patch_positional_embedding(at, at)
