"""ViT, and what towers built after it share."""

from torch import Tensor

from qlip.towers.base import Tower, square
from qlip.towers.packing import Packing


class Vit(Tower, hosts=("ViTModel",)):
    """A class token in front, all states normalised at the end, and a head on the class token where the tower has one."""

    patch = "embeddings.patch_embeddings.projection"
    layers = "layers"

    def table(self) -> Tensor:
        """The table without the row of the class token."""
        return square(self.module.embeddings.position_embeddings[0, 1:])

    def prefix(self) -> Tensor:
        """The class token with its own position."""
        embeddings = self.module.embeddings
        return embeddings.cls_token[0] + embeddings.position_embeddings[0, :1]

    def after(self, states: Tensor) -> Tensor:
        """The last norm."""
        return self.module.layernorm(states)

    def pool(self, states: Tensor, packing: Packing) -> Tensor | None:
        """The head's vector, where the tower has a head."""
        return None if self.module.pooler is None else self.module.pooler(packing.first_tokens(states)[:, None])
