"""Any tower on ragged batches of patches: patches and coordinates in place of pixels and a table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qlip.core.names import Weighting
from qlip.core.patches import PatchBatch
from qlip.core.position import Position
from qlip.core.quadtree import centres
from qlip.core.rules import shown
from qlip.files import open_to_all, replacing_folder
from qlip.towers.base import Tower, find_tower, onloaded, position_table
from qlip.towers.packing import Packing, takes_mask
from qlip.zoo.position_file import POSITION_FILE, check_writable, write_position
from qlip.zoo.resolve import resolve_position

CONFIG_KEY = "qlip_weighting"
_MODEL_FILES = (  # of earlier saves, with more shards perhaps, or a position that this model lacks
    POSITION_FILE,
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
)


def edge_coords(geometry: Tensor, side: int) -> Tensor:
    """Where leaves ``(..., 5)`` stand in a table of ``side x side`` entries that ends at the image's edges, ``(..., 2)`` float32.

    Its corner entries are at -1 and 1, see `QlipVisionModel.coords_of`.
    """
    return centres(geometry, "edges") * (side / max(side - 1, 1))


@dataclass
class QlipVisionOutput(BaseModelOutputWithPooling):
    """Hugging Face's output of a vision tower, plus the projected class token.

    Attributes:
        last_hidden_state: ``(B, F + N, D)``, the tower's F first tokens (CLIP: the class token) and the patches, zero where
            padded.
        pooler_output: ``(B, D)``, one vector for each image: CLIP's normalised class token, SigLIP's head.
        hidden_states: On request, the embeddings and the output of every layer, ``(B, F + N, D)`` each.
        image_embeds: ``(B, E)``, the class token in the space shared with text, where CLIP has a projection.
    """

    image_embeds: Tensor | None = None


def save_converted(
    original: PreTrainedModel,
    folder: str | Path,
    position: Position | None,
    weighting: Weighting,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Save an original model's checkpoint with all that makes it a converted one, whole or not at all.

    Its configuration says that it was converted, and how leaves count; a position is beside it in ``qlip.safetensors``.

    Args:
        original: The model of transformers.
        folder: Where it goes; the user's own files in it stay.
        position: None if the tower places leaves itself.
        weighting: See `QlipVisionModel`.
        args: Arguments of transformers' ``save_pretrained``.
        kwargs: Its options.
    """
    with replacing_folder(folder, _MODEL_FILES) as new:
        setattr(original.config, CONFIG_KEY, weighting)
        try:
            original.save_pretrained(new, *args, **kwargs)
        except SafetensorError as error:  # of a full disk
            raise OSError(f"{folder} cannot be written ({error}); free the disk or take another place") from error
        finally:
            delattr(original.config, CONFIG_KEY)
        open_to_all(new)
        if position is not None:
            write_position(new / POSITION_FILE, position)


def saved_weighting(config: PretrainedConfig) -> Weighting | None:
    """What `save_converted` wrote there, removed from ``config``; None if the model was saved without."""
    return vars(config).pop(CONFIG_KEY, None)


def check_weighting(weighting: Weighting, layer: nn.Module) -> Weighting:
    """The weighting, if it is one and a tower with such layers can do it.

    Raises:
        ValueError: if not.
    """
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting: got {shown(weighting)}; takes {' or '.join(map(repr, get_args(Weighting)))}")
    if weighting == "area" and not takes_mask(type(layer).forward):
        raise ValueError(f"weighting: got 'area'; a {type(layer).__name__} takes no mask. Use weighting='once'")
    return weighting


def prepare_training(position: Position | None, train: bool) -> None:
    """Give a position gradients, or none.

    Raises:
        ValueError: if it is to be trained and has no weights.
    """
    weights = list(position.parameters()) if isinstance(position, nn.Module) else []
    for weight in weights:
        weight.requires_grad_(train)
    if train and not weights:
        got = "a tower that places leaves itself" if position is None else f"position={position!r}"
        raise ValueError(
            f"train_position: got True with {got}; takes a position with weights, such as position='solve'"
        )


def mean_of_patches(states: Tensor, batch: PatchBatch, weighting: Weighting) -> Tensor:
    """One vector for each image, ``(B, D)``: the mean of its patches' states ``(B, N, D)``, each counted once or by its area."""
    counts = batch.mask
    if weighting == "area":
        assert batch.geometry is not None, "a tower that counts by area has asked for it"
        counts = batch.geometry[..., 2].square()  # zero in padding
    shares = (counts / counts.sum(1, keepdim=True)).to(states.device)
    return (states.float() * shares[..., None]).sum(1).to(states.dtype)


class QlipVisionModel(nn.Module):
    """A vision tower for ragged batches of patches with coordinates.

    Modifications of the tower's own class (transformers 5.23 to 5.24), whose modules it calls:
    - takes a `PatchBatch` in place of ``pixel_values``; the tower's patch embedding is applied to patches already cut;
    - adds ``position(coords)`` in place of the table's rows; a class token keeps its own position;
    - a tower that rotates, or resizes its table to each picture, does so at the centres of the leaves;
    - images of different lengths go through the layers in one row, without padding, see `qlip.towers.packing`.

    Args:
        vision_model: The tower, of a class in `qlip.towers.base.TOWERS`; shared, not copied.
        position: Encodings of coordinates, see `qlip.core.position`; None leaves it to the tower, if it can.
        projection: CLIP's projection of the class token, if it has one.
        weighting: How a leaf counts as a key in the tower's attention: ``"once"``, as in the paper, or by its ``"area"``, as
            many times as it has patches, which keeps vectors for whole images near those of the whole grid.

    Raises:
        ValueError: if the tower's layers take no mask and ``weighting`` is ``"area"``.
    """

    def __init__(
        self,
        vision_model: nn.Module,
        position: Position | None,
        projection: nn.Module | None = None,
        weighting: Weighting = "once",
    ) -> None:
        super().__init__()
        self.vision_model, self.projection, self.position = vision_model, projection, position
        self.__dict__["tower"] = find_tower(vision_model)
        self.weighting = check_weighting(weighting, next(self.layers()))

    tower: Tower

    @classmethod
    def from_clip(cls, clip: nn.Module, position: Position | str | Path = "solve") -> "QlipVisionModel":
        """Build on any tower; its weights are shared and ``clip`` stays as it was.

        Args:
            clip: A CLIPModel, CLIPVisionModel or CLIPVisionModelWithProjection, or another model whose tower is known.
            position: See `qlip.zoo.resolve.resolve_position`.

        Raises:
            TypeError: if there is no known tower in ``clip``.
            ValueError: if the position is unknown or does not fit the tower.
        """
        module = find_tower(clip, "clip").module
        resolved = resolve_position(position, position_table(module))
        return cls(module, resolved, getattr(clip, "visual_projection", None))

    @property
    def config(self) -> PretrainedConfig:
        """The tower's configuration."""
        return self.tower.config

    @property
    def device(self) -> torch.device:
        """Where the patches are embedded."""
        return self.tower.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the tower computes in; positions stay in float32."""
        return self.tower.weight.dtype

    def forward(
        self, batch: PatchBatch, *, positions: Tensor | None = None, output_hidden_states: bool = False
    ) -> QlipVisionOutput:
        """Encode a batch.

        Args:
            batch: Patches normalised as the tower expects them.
            positions: ``(B, N, D)``, used in place of the model's own; for gradients with respect to them.
            output_hidden_states: Return the hidden states of every layer.

        Raises:
            ValueError: if the patches do not have the tower's patch size, or the batch lacks the geometry that it needs.
        """
        tower = self.tower
        with onloaded(*tower.inputs()):
            prefix = tower.prefix()
            packing = Packing.of(batch.mask, tower.prefix_length, share=tower.rotates)
            patches = tower.embed(packing.pack(batch.patches))  # (R, P, D)
            added = self.positions_of(batch, packing) if positions is None else packing.pack(positions)
            if added is not None:
                patches = patches + added.to(patches.dtype)
            states = packing.insert(prefix, patches)
        states = tower.before(states)
        rotation = None
        if tower.rotates:
            rotation = packing.rotated(tower.rotation(packing.pack(self.geometry_of(batch))[0]))
            assert rotation is not None
            rotation = rotation[0].to(states.dtype), rotation[1].to(states.dtype)
        if self.weighting == "area":
            sizes = self.geometry_of(batch)[..., 2].clamp(min=1)  # zero in padding
            if (sizes > 1).any():  # else every patch counts once, and attention keeps its fastest way
                packing = packing.by_area(sizes.float().square())
        options = {name: value.to(states.device) for name, value in tower.options.items()}
        collected = [packing.unpack(states)] if output_hidden_states else []
        for layer in self.layers():
            states = packing.through(layer, states, tower.config, rotation, options)
            if output_hidden_states:
                collected.append(packing.unpack(states))
        last = tower.after(states)
        pooled = tower.pool(last, packing)
        return QlipVisionOutput(
            last_hidden_state=collected[-1] if collected and last is states else packing.unpack(last),
            pooler_output=pooled,
            hidden_states=tuple(collected) if collected else None,
            image_embeds=None if self.projection is None else self.projection(pooled),
        )

    def layers(self) -> Iterator[nn.Module]:
        """The tower's layers, first to last."""
        return self.vision_model.get_submodule(self.tower.layers).children()

    def positions_of(self, batch: PatchBatch, packing: Packing) -> Tensor | None:
        """What is added to the patches in their rows, ``(R, P, D)``; None if nothing is."""
        if self.position is not None:
            return self.position(packing.pack(self.coords_of(batch)))
        if not self.tower.places_itself:
            return None
        return self.tower.positions(packing.pack(self.geometry_of(batch)))

    def coords_of(self, batch: PatchBatch) -> Tensor:
        """Where the patches stand in the tower's table, whose corner entries are at -1 and 1: ``(B, N, 2)`` float32.

        For a tower whose own interpolation looks at the image's edges, a place at the very edge lies half an entry outside.

        Raises:
            ValueError: if the tower needs the geometry of the leaves and the batch has none.
        """
        if self.tower.frame == "corners":
            return batch.coords
        return edge_coords(self.geometry_of(batch), self.tower.grid)

    def geometry_of(self, batch: PatchBatch) -> Tensor:
        """The geometry of the leaves, ``(B, N, 5)``.

        Raises:
            ValueError: if the batch has none.
        """
        if batch.geometry is None:
            raise ValueError(
                f"batch.geometry: got None; a {type(self.vision_model).__name__} with weighting={self.weighting!r} needs more "
                f"than coordinates. Pass a PatchBatch with geometry, as PatchBatch.from_image and QlipImageProcessor make it"
            )
        return batch.geometry

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Save the original tower, and the position beside it in ``qlip.safetensors``; `qlip.from_pretrained` reads both.

        Raises:
            TypeError: if the position is a function, or the model was not made by `qlip.convert`.
        """
        original = self.__dict__.get("original")
        if not isinstance(original, PreTrainedModel):
            raise TypeError("self: got a QlipVisionModel without an original; takes one made by qlip.convert(tower)")
        if self.position is not None:
            check_writable(self.position)
        save_converted(original, save_directory, self.position, self.weighting)

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
