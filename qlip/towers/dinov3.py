"""DINOv3."""

import torch
from torch import Tensor

from qlip.core.quadtree import centres
from qlip.towers.base import Tower
from qlip.towers.packing import Packing


class Dinov3(Tower, hosts=("DINOv3ViTModel",)):
    """A class token and registers in front, which are not turned; patches are, by their centres between the image's edges."""

    patch = "embeddings.patch_embeddings"
    layers = "model.layer"

    def prefix(self) -> Tensor:
        """The class token and the registers, without positions."""
        embeddings = self.module.embeddings
        return torch.cat([embeddings.cls_token[0], embeddings.register_tokens[0]])

    def rotation(self, geometry: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine ``(P, d)``, the same for all heads."""
        turns = centres(geometry, "edges")[:, :, None] * self.module.rope_embeddings.inv_freq  # (P, 2, d / 4)
        angles = (2 * torch.pi * turns).flatten(1).tile(2)
        return angles.cos(), angles.sin()

    def after(self, states: Tensor) -> Tensor:
        """The last norm."""
        return self.module.norm(states)

    def pool(self, states: Tensor, packing: Packing) -> Tensor:
        """The normalised class token."""
        return packing.first_tokens(states)
