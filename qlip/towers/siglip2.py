"""SigLIP 2's tower of free resolution, known as naflex."""

from torch import Tensor

from qlip.core.resample import read_table
from qlip.towers.siglip import Siglip


class Siglip2(Siglip, hosts=("Siglip2VisionModel",)):
    """As SigLIP; its patch embedding is a linear layer, and it resizes its table to every picture, antialiased."""

    size = None  # any

    def positions(self, geometry: Tensor) -> Tensor:
        """The table at the leaves, as the tower itself would resize it to the picture."""
        return read_table(self.square_table(), geometry, "bilinear")
