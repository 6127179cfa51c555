"""Gemma 4's vision tower."""

import torch
from torch import Tensor

from qlip.core.quadtree import centres
from qlip.towers.base import Tower


class Gemma4(Tower, hosts=("Gemma4VisionModel",)):
    """A table for rows and one for columns, read at centres and linearly between entries; patches are turned besides."""

    patch = "patch_embedder.input_proj"
    layers = "encoder.layers"
    options = {"position_ids": torch.zeros(1, 1, 2)}  # noqa: RUF012 (the layers ask only how many axes there are)

    size = None  # any

    def embed(self, patches: Tensor) -> Tensor:
        """Embeddings of pixels in [0, 1], which the tower itself brings to [-1, 1]."""
        return super().embed(2 * (patches - 0.5))

    def positions(self, geometry: Tensor) -> Tensor:
        """The sum of both tables at the leaves, ``(R, P, D)``."""
        columns, rows = self.module.patch_embedder.position_embedding_table  # (entries, D) each
        at = centres(geometry, "patches")
        low = at.floor().long()
        share = (at - low)[..., None]  # (R, P, axis, 1)
        total = torch.zeros((), dtype=rows.dtype, device=rows.device)
        for axis, table in enumerate((rows, columns)):
            here, after = table[low[..., axis]], table[(low[..., axis] + 1).clamp(max=len(table) - 1)]
            total = total + torch.lerp(here.float(), after.float(), share[..., axis, :]).to(table.dtype)
        return total

    def rotation(self, geometry: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine ``(1, P, d)``, the same for all heads."""
        at = centres(geometry, "patches").flip(-1)[None]  # column first
        return self.module.encoder.rotary_emb(at, at)
