"""SigLIP's vision tower, also SigLIP 2's of a fixed size."""

import torch
from torch import Tensor

from qlip.towers.base import Tower, square
from qlip.towers.packing import Packing


class Siglip(Tower, hosts=("SiglipVisionModel",)):
    """No class token; a head that attends to all patches makes one vector of them."""

    def table(self) -> Tensor:
        """The whole table."""
        return square(self.module.embeddings.position_embedding.weight)

    def after(self, states: Tensor) -> Tensor:
        """The last norm."""
        return self.module.post_layernorm(states)

    def pool(self, states: Tensor, packing: Packing) -> Tensor | None:
        """The head's vector, where the tower has a head."""
        return (
            torch.cat([self.module.head(image) for image in packing.images_of(states)])
            if self.module.use_head
            else None
        )
