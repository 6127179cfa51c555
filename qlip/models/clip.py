"""CLIP's vision tower with patches and coordinates in place of pixels and a table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qlip.core.patches import PatchBatch
from qlip.core.position import Position, PositionMLP, TableMode, TablePosition
from qlip.models.attention import Rows
from qlip.models.offload import onloaded
from qlip.models.shipped import shipped
from qlip.models.synthetic import random_clip_from_name

Clip = CLIPModel | CLIPVisionModel | CLIPVisionModelWithProjection
PositionName = Literal[TableMode, "solve"]


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
    - images of different lengths go through the layers in one row, without padding, see `qlip.models.attention`.

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
    def from_clip(cls, clip: Clip, position: Position | PositionName = "solve") -> "QlipVisionModel":
        """Build on any Hugging Face CLIP; its weights are shared and ``clip`` stays as it was.

        Args:
            clip: A CLIPModel, CLIPVisionModel or CLIPVisionModelWithProjection.
            position: A position, or a name: ``"bicubic"``, ``"bilinear"``, ``"nearest"``, ``"zero"`` interpolate CLIP's
                own table; ``"solve"`` solves a PositionMLP for it.

        Raises:
            TypeError: if ``clip`` is no CLIP.
            ValueError: if the position is unknown or does not fit the tower.
        """
        tower = vision_tower(clip)
        return cls(tower, make_position(tower, position), getattr(clip, "visual_projection", None))

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


def vision_tower(clip: Clip) -> CLIPVisionModel:
    """The bare vision tower inside any Hugging Face CLIP.

    Raises:
        TypeError: if there is none.
    """
    tower = getattr(clip, "vision_model", clip)
    if not isinstance(tower, CLIPVisionModel):
        raise TypeError(
            f"clip: got {type(clip).__name__}; takes a CLIPModel, CLIPVisionModel or CLIPVisionModelWithProjection"
        )
    return tower


def position_table(clip: Clip) -> Tensor:
    """CLIP's table of positional embeddings on its grid, without the class token's: ``(n, n, D)``."""
    embedding = vision_tower(clip).embeddings.position_embedding
    with onloaded(embedding):
        weight = embedding.weight.detach().clone()
    side = round((len(weight) - 1) ** 0.5)
    return weight[1:].unflatten(0, (side, side))


def make_position(clip: Clip, position: Position | PositionName) -> Position:
    """Turn a name into a position for this CLIP, or check that a given one fits.

    Raises:
        ValueError: if the name is unknown, or width or grid differ from the tower's.
    """
    table = position_table(clip)
    if isinstance(position, str):
        if position == "solve":
            return solved_position(table)
        if position not in get_args(TableMode):
            raise ValueError(f"position: got {position!r}; takes 'solve', {', '.join(map(repr, get_args(TableMode)))}")
        return TablePosition(table, position)  # type: ignore[arg-type]
    if isinstance(position, PositionMLP | TablePosition) and (position.grid, position.dim) != tuple(table.shape[1:]):
        raise ValueError(
            f"position: got one for a {position.grid} x {position.grid} grid of width {position.dim}; this tower has "
            f"{table.shape[0]} x {table.shape[1]} of width {table.shape[2]}. Fit one for it, or use 'solve'"
        )
    return position


def solved_position(table: Tensor, **architecture: int | float) -> PositionMLP:
    """A PositionMLP solved for ``table (n, n, D)``: the same one every time, whatever the random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = PositionMLP(table.shape[-1], table.shape[0], **architecture)  # type: ignore[arg-type]
    return mlp.to(table.device).solve_(table)


def load_clip(name: str, revision: str | None = None) -> CLIPVisionModel | CLIPVisionModelWithProjection:
    """Load the vision side of a Hugging Face CLIP, by Hub id or from a local folder, with its projection if it has one.

    ``random:<width>x<layers>`` builds one with random weights, see `qlip.models.synthetic`; ``pocket-clip`` comes with
    the package, see `qlip.models.shipped`. The weights are float32, whatever they are stored as.

    Raises:
        OSError: if it cannot be found.
        ValueError: if it is no CLIP, or some of its weights are missing.
    """
    if name.startswith("random:"):
        return random_clip_from_name(name)
    name = shipped(name)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"backbone: {name!r} is no folder of a model here and could not be downloaded: {reason}"
        ) from error
    if config.model_type not in ("clip", "clip_vision_model"):
        raise ValueError(f"backbone: got {name!r}, a {config.model_type!r} model; takes a CLIP (model type 'clip')")
    projected = config.model_type == "clip" or "CLIPVisionModelWithProjection" in (config.architectures or [])
    kind = _ProjectedVisionSide if projected else CLIPVisionModel
    if config.model_type == "clip":  # a whole CLIP says the width of its projection once, for both sides
        config.vision_config.projection_dim = config.projection_dim
        config = config.vision_config
    loaded: Any = kind.from_pretrained(
        name, config=config, revision=revision or "main", dtype=torch.float32, output_loading_info=True
    )
    clip, report = loaded
    if report["missing_keys"]:  # transformers only warns, and makes them up
        raise ValueError(f"backbone: {name!r} lacks the weights {', '.join(sorted(report['missing_keys']))}")
    if projected:
        clip.__class__ = CLIPVisionModelWithProjection
    return clip


class _ProjectedVisionSide(CLIPVisionModelWithProjection):
    """The vision side of a whole CLIP while it is loaded: prints no page about the text side that it leaves out."""

    _keys_to_ignore_on_load_unexpected = [r"^text_model\.", r"^text_projection\.", r"^logit_scale$"]  # noqa: RUF012
