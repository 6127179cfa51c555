"""InternVL's vision tower."""

from torch import Tensor

from qlip.towers.base import Tower, square
from qlip.towers.packing import Packing


class InternVit(Tower, hosts=("InternVLVisionModel",)):
    """A class token in front, and no vector for a whole image; its layers take no mask, so each image passes by itself."""

    patch = "embeddings.patch_embeddings.projection"
    layers = "encoder.layer"

    def table(self) -> Tensor:
        """The table without the row of the class token."""
        return square(self.module.embeddings.position_embeddings[0, 1:])

    def prefix(self) -> Tensor:
        """The class token with its own position."""
        embeddings = self.module.embeddings
        return embeddings.cls_token[0] + embeddings.position_embeddings[0, :1]

    def after(self, states: Tensor) -> Tensor:
        """The last norm, which most of InternVL's towers do without."""
        return self.module.layernorm(states)

    def pool(self, states: Tensor, packing: Packing) -> None:
        """None: transformers' class leaves it out."""
        return None
