"""DINOv2, without and with registers."""

import torch
from torch import Tensor

from qlip.core.resample import read_table
from qlip.towers.packing import Packing
from qlip.towers.vit import Vit


class Dinov2(Vit, hosts=("Dinov2Model",)):
    """As ViT, without a head."""

    layers = "encoder.layer"

    def pool(self, states: Tensor, packing: Packing) -> Tensor:
        """The normalised class token."""
        return packing.first_tokens(states)


class Dinov2WithRegisters(Dinov2, hosts=("Dinov2WithRegistersModel",)):
    """Registers follow the class token; the table is resized to the picture, antialiased."""

    def prefix(self) -> Tensor:
        """The class token with its own position, and the registers, which have none."""
        return torch.cat([super().prefix(), self.module.embeddings.register_tokens[0]])

    def positions(self, geometry: Tensor) -> Tensor:
        """The table at the leaves, as the tower itself would resize it to the picture."""
        return read_table(self.square_table(), geometry, "bicubic")
