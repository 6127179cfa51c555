"""CLIP's vision tower."""

from torch import Tensor

from qlip.towers.base import Tower, square
from qlip.towers.packing import Packing


class Clip(Tower, hosts=("CLIPVisionModel",)):
    """A class token in front; states are not normalised at the end, the class token is."""

    frame = "corners"  # the paper's; transformers' interpolate_pos_encoding looks at the edges instead

    def table(self) -> Tensor:
        """The table without the row of the class token."""
        return square(self.module.embeddings.position_embedding.weight[1:])

    def prefix(self) -> Tensor:
        """The class token with its own position."""
        embeddings = self.module.embeddings
        return (embeddings.class_embedding + embeddings.position_embedding.weight[0])[None]

    def before(self, states: Tensor) -> Tensor:
        """CLIP's first norm, which is spelt so."""
        return self.module.pre_layrnorm(states)

    def pool(self, states: Tensor, packing: Packing) -> Tensor:
        """The normalised class token."""
        return self.module.post_layernorm(packing.first_tokens(states))
