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
        """The head's vector, where the tower has a head; its query counts patches as the layers do."""
        if not self.module.use_head:
            return None
        images = packing.images_of(states)
        if packing.log_areas is None:
            return torch.cat([self._head(image, None) for image in images])
        biases = packing.images_of(packing.log_areas.to(states.dtype))
        return torch.cat([self._head(image, bias) for image, bias in zip(images, biases, strict=True)])

    def _head(self, states: Tensor, log_areas: Tensor | None) -> Tensor:
        """The head on ``states (R, T, D)``, whose keys get ``log_areas (R, T)``: ``(R, D)``."""
        head = self.module.head
        if log_areas is None:
            return head(states)
        bias = log_areas[:, None].repeat_interleave(head.attention.num_heads, dim=0)  # (R * heads, 1, T)
        query = head.probe.repeat(len(states), 1, 1)
        seen = head.attention(query, states, states, attn_mask=bias)[0]
        return (seen + head.mlp(head.layernorm(seen)))[:, 0]
