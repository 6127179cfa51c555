"""InternVL's vision tower."""

from torch import Tensor

from qlip.towers.packing import Packing
from qlip.towers.vit import Vit


class InternVit(Vit, hosts=("InternVLVisionModel",)):
    """As ViT, often without the last norm, and without a vector for a whole image.

    Its layers take no mask, so that each image passes through them by itself.
    """

    layers = "encoder.layer"

    def pool(self, states: Tensor, packing: Packing) -> None:
        """None: transformers' class leaves it out."""
        return None
