"""CLIP's vision tower with patches and coordinates in place of pixels and a table."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qlip.core.patches import PatchBatch
from qlip.core.position import Position
from qlip.towers.load import Clip, position_table, vision_tower
from qlip.towers.offload import onloaded
from qlip.towers.packing import Rows
from qlip.zoo.resolve import resolve_position


@dataclass
class QlipVisionOutput(BaseModelOutputWithPooling):
    """Hugging Face's output of a vision tower, plus the projected [CLS].

    Attributes:
        last_hidden_state: ``(B, 1 + N, D)``, class token first, zero where padded.
        pooler_output: ``(B, D)``, the normalised class token.
        hidden_states: On request, the embeddings and the output of every layer, ``(B, 1 + N, D)`` each.
        image_embeds: ``(B, E)``, the class token in the space shared with text, where CLIP has a projection.
    """

    image_embeds: Tensor | None = None


class QlipVisionModel(nn.Module):
    """CLIP's vision tower for ragged batches of patches with coordinates.

    Modifications of `transformers.CLIPVisionModel` (5.17 to 5.23), whose modules it holds by reference:
    - takes a `PatchBatch` in place of ``pixel_values``; its own patch embedding is applied to patches already cut;
    - adds ``position(coords)`` in place of the table's rows; the class token keeps CLIP's own;
    - images of different lengths go through the layers in one row, without padding, see `qlip.towers.packing`.

    Args:
        tower: CLIP's vision tower; shared, not copied.
        position: Encodings of coordinates, see `qlip.core.position`.
        projection: CLIP's projection of the class token, if it has one.
    """

    def __init__(self, tower: CLIPVisionModel, position: Position, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.config = tower.config
        self.embeddings, self.pre_layernorm = tower.embeddings, tower.pre_layrnorm
        self.encoder, self.post_layernorm = tower.encoder, tower.post_layernorm
        self.projection, self.position = projection, position

    @classmethod
    def from_clip(cls, clip: Clip, position: Position | str | Path | None = "solve") -> "QlipVisionModel":
        """Build on any Hugging Face CLIP; its weights are shared and ``clip`` stays as it was.

        Args:
            clip: A CLIPModel, CLIPVisionModel or CLIPVisionModelWithProjection.
            position: A position; ``"solve"``, ``"bicubic"``, ``"bilinear"``, ``"nearest"`` or ``"zero"``, made from CLIP's
                own table; or anything `qlip.load` takes.

        Raises:
            TypeError: if ``clip`` is no CLIP, or the position is nothing of the above.
            ValueError: if the position does not fit the tower.
            OSError: if a position is sought by name and not found.
        """
        tower = vision_tower(clip)
        return cls(tower, resolve_position(position, position_table(tower)), getattr(clip, "visual_projection", None))

    def forward(
        self, batch: PatchBatch, *, positions: Tensor | None = None, output_hidden_states: bool = False
    ) -> QlipVisionOutput:
        """Encode a batch.

        Args:
            batch: Patches normalised as CLIP expects them.
            positions: ``(B, N, D)``, used in place of ``position(batch.coords)``; for gradients with respect to them.
            output_hidden_states: Return the hidden states of every layer.

        Raises:
            ValueError: if the patches do not have the tower's patch size.
        """
        rows = Rows.of(batch.mask)
        states = self.pre_layernorm(self._embed(batch, positions, rows))
        collected = [rows.unpack(states)] if output_hidden_states else []
        for layer in self.encoder.layers:
            states = rows.through(layer, states, self.config)
            if output_hidden_states:
                collected.append(rows.unpack(states))
        pooled = self.post_layernorm(rows.class_tokens(states))
        return QlipVisionOutput(
            last_hidden_state=collected[-1] if collected else rows.unpack(states),
            pooler_output=pooled,
            hidden_states=tuple(collected) if collected else None,
            image_embeds=None if self.projection is None else self.projection(pooled),
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QlipVisionModel":
        """Move and cast as any module, but only move the position: ``model.to(bfloat16)`` must not round it."""
        position = self._modules.pop("position", None)
        try:
            super()._apply(fn, recurse)
        finally:
            if position is not None:
                self._modules["position"] = position
        if position is not None:
            position._apply(lambda tensor: tensor.to(fn(tensor).device))
        return self

    def _embed(self, batch: PatchBatch, positions: Tensor | None, rows: Rows) -> Tensor:
        """Token embeddings in rows, ``(R, T, D)``, a class token before each image."""
        embeddings = self.embeddings
        with onloaded(embeddings, embeddings.patch_embedding, embeddings.position_embedding):
            weight = embeddings.patch_embedding.weight
            if batch.patches.shape[2:] != weight.shape[1:]:
                raise ValueError(
                    f"batch.patches: got patches of shape {tuple(batch.patches.shape[2:])}; this tower takes "
                    f"{tuple(weight.shape[1:])}. Set patch_size={weight.shape[-1]} in the Quadtree"
                )
            patches = F.linear(rows.pack(batch.patches).to(weight.dtype).flatten(2), weight.flatten(1))  # (R, P, D)
            added = self.position(rows.pack(batch.coords)) if positions is None else rows.pack(positions)
            first = embeddings.class_embedding + embeddings.position_embedding.weight[0]
            return rows.insert(first, patches + added.to(patches.dtype))
