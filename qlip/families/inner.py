"""The model behind the head, taking patches and leaves: its tower is run on trees, its features are projected, prompts are checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qlip.core.names import Weighting
from qlip.core.position import Position
from qlip.encoder import QlipVisionModel, QlipVisionOutput
from qlip.families.placeholders import check_placeholders
from qlip.images.pixels import PixelValues, to_batch, token_counts
from qlip.towers.base import Tower, find_tower, onloaded


@dataclass
class Encoding:
    """What a converted model needs besides its own weights.

    Held outside the module tree: so ``state_dict`` and ``parameters`` stay the original's, and ``model.to(bfloat16)``
    leaves the position in float32.

    Attributes:
        position: Encodings of coordinates; None for a tower that rotates.
        unit: Patches along the side of what the language model sees as one token.
        weighting: How leaves count in the tower's attention, see `QlipVisionModel`.
    """

    position: Position | None
    unit: int = 1
    weighting: Weighting = "once"

    def encode(
        self, tower: nn.Module, pixel_values: PixelValues, output_hidden_states: bool = False
    ) -> tuple[QlipVisionOutput, list[int]]:
        """Run the tower on ``pixel_values``; also the number of leaves of each image."""
        model = QlipVisionModel(tower, self.position, weighting=self.weighting)
        with onloaded(*model.tower.inputs()):
            device = model.device
        if isinstance(self.position, nn.Module):
            self.position.to(device)  # follows the tower, wherever it was moved since; does nothing if it is there
        batch = to_batch(pixel_values).to(device)
        return model(batch, output_hidden_states=output_hidden_states), token_counts(pixel_values, self.unit)


class Features(list[Tensor]):
    """Features of each image, ``(N_i, E)``, for families that expect one tensor and ask it to move."""

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """All of them as one tensor ``(N_1 + N_2 + ..., E)``, moved or cast as any tensor."""
        return torch.cat(self).to(*args, **kwargs)


if TYPE_CHECKING:  # mixins: each stands before a class of transformers whose methods it calls
    Host = PreTrainedModel
else:
    Host = object


class Renamed(Host):
    """A subclass that goes by its parent's name: pipelines, trainers and quantisers go by ``type(model).__name__``.

    Pickle goes by ``__qualname__``, which stays.
    """

    original: ClassVar[type[PreTrainedModel]]

    def __init_subclass__(cls, original: type[PreTrainedModel] | None = None, **kwargs: object) -> None:
        """Take the name of ``original``, the class of transformers that this one stands for."""
        super().__init_subclass__(**kwargs)
        if original is not None:
            cls.original, cls.__name__ = original, original.__name__

    def check_alone(self) -> None:
        """Raise in a replica of DataParallel, which gets its share of the prompts and every image.

        Raises:
            RuntimeError: if this is one.
        """
        if getattr(self, "_is_replica", False):
            raise RuntimeError(
                "DataParallel cannot deal out images of different size among GPUs. Start one process for each GPU with torchrun or "
                "accelerate launch, or show one GPU alone with CUDA_VISIBLE_DEVICES=0"
            )


class ConvertedInner(Renamed):
    """A generative model without its head, taking patches and leaves.

    Modifications of the families' inner models (transformers 5.23 to 5.24):
    - ``pixel_values`` is a pair for each image (see `qlip.images.pixels`), or a `PatchBatch`; each image has as
      many features as leaves;
    - placeholders are checked image by image before anything is encoded.

    Attributes:
        tower_path: Where the tower is.
        features_class: `Features` where the family asks its features to move, else a plain list.
        breaks: How many other tokens may stand between two placeholders of an image.
    """

    tower_path: ClassVar[str] = "vision_tower"
    features_class: ClassVar[type[list[Tensor]]] = list
    breaks: ClassVar[int] = 0
    qlip: Encoding
    config: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check the placeholders, then run; not in ``forward``, which accelerate replaces on instances.

        ``generate`` brings features that it has repeated for beams or cut into chunks, as a plain list.
        """
        self.check_alone()
        encoded = (kwargs.get("mm_encoder_outputs") or {}).get("image")
        if encoded is not None and type(encoded.pooler_output) is list:
            encoded.pooler_output = self.features_class(encoded.pooler_output)
        input_ids = args[0] if args else kwargs.get("input_ids")
        pixel_values = args[1] if len(args) > 1 else kwargs.get("pixel_values")
        if input_ids is not None and pixel_values is not None:
            self.check_prompts(input_ids, self.feature_counts(pixel_values, kwargs))
        return super().__call__(*args, **kwargs)

    def check_prompts(self, input_ids: Tensor, counts: list[int]) -> None:
        """Raise unless ``input_ids (B, L)`` has a placeholder for each of the features; see `check_placeholders`."""
        check_placeholders(input_ids, counts, self.config.image_token_id, breaks=self.breaks)

    def feature_counts(self, pixel_values: PixelValues, options: Mapping[str, Any]) -> list[int]:
        """Features of each image: its leaves, and whatever a family adds by the ``options`` of a call."""
        return token_counts(pixel_values, self.qlip.unit)

    @property
    def fixed_tokens(self) -> int:
        """Features of every image besides those that a budget is about."""
        return 0

    @property
    def feature_layers(self) -> list[int] | None:
        """Hidden states of the tower that the language model is shown, joined; None for the tower's last states."""
        return None

    @property
    def tower(self) -> Tower:
        """The vision tower."""
        return find_tower(self.get_submodule(self.tower_path))

    def project(self, states: Tensor) -> Tensor:
        """What the language model is shown of units, ``(M, E)``, from the states of their patches, ``(M, u * u, D)``."""
        raise NotImplementedError

    def finish(self, features: list[Tensor], pixel_values: PixelValues) -> list[Tensor]:
        """The features of each image, ``(N_i, E)``, with the model's own tokens among them; `feature_counts` counts these too."""
        return features

    def get_image_features(
        self, pixel_values: PixelValues, *unused: Any, return_dict: bool = True, **kwargs: Any
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode and project images.

        Args:
            pixel_values: A pair for each image, in a `PerImage` or a list; or a `PatchBatch`.
            unused: What some families pass by place; it has no meaning here.
            return_dict: False returns a tuple.
            kwargs: transformers' other options; they have no meaning here, but ``generate`` passes them.

        Returns:
            The tower's output with ``pooler_output`` a list of features ``(N_i, E)``, one for each image.
        """
        output = self.encode_images(pixel_values, self.feature_layers)
        return output if return_dict else output.to_tuple()

    def encode_images(
        self, pixel_values: PixelValues, layers: list[int] | None, keep_prefix: bool = False
    ) -> QlipVisionOutput:
        """The tower's output with ``pooler_output`` the features of each image.

        Args:
            pixel_values: A pair for each image, in a `PerImage` or a list; or a `PatchBatch`.
            layers: See `feature_layers`.
            keep_prefix: Show the tower's first tokens too, for towers whose unit is one patch.
        """
        tower, patches = self.tower, self.qlip.unit**2
        output, counts = self.qlip.encode(tower.module, pixel_values, output_hidden_states=layers is not None)
        if layers is None:
            states = output.last_hidden_state
        else:
            assert output.hidden_states is not None
            states = torch.cat([output.hidden_states[layer] for layer in layers], dim=-1)  # (B, F + N, L * D)
        assert states is not None
        prefix = tower.prefix_length
        first = 0 if keep_prefix else prefix
        chosen = [state[first : prefix + patches * n] for state, n in zip(states, counts, strict=True)]
        projected = self.project(torch.cat(chosen).unflatten(0, (-1, patches)))  # nothing spent on padding
        lengths = [len(state) // patches for state in chosen]
        features = self.finish(list(projected.split(lengths)), pixel_values)
        output.pooler_output = self.features_class(features)  # type: ignore[assignment]
        return output
