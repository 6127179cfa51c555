"""DINOv2."""

from torch import Tensor

from qlip.towers.packing import Packing
from qlip.towers.vit import Vit


class Dinov2(Vit, hosts=("Dinov2Model",)):
    """As ViT, without a head."""

    layers = "encoder.layer"

    def pool(self, states: Tensor, packing: Packing) -> Tensor:
        """The normalised class token."""
        return packing.first_tokens(states)
