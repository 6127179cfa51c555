"""How a loaded model is switched to a class of ours and back, its weights untouched, and what all families have in common.

Why a change of class: transformers calls ``get_image_features`` from ``forward`` and from ``generate``, accelerate replaces
``forward`` on instances but not this method, and a class at module level pickles.

A family is a subclass of `Converted` with one of `ConvertedTower` for its tower, or of `ConvertedGenerative` with one of
`ConvertedInner` for the model without its head. It registers itself in `FAMILIES` under the class of transformers that it stands for.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from qlip.core.names import Weighting
from qlip.core.position import Position
from qlip.encoder import check_weighting, prepare_training, save_converted, saved_weighting
from qlip.families.context import check_context, context_of
from qlip.families.hub import HUB_OPTIONS, find_file
from qlip.families.image_processor import ConvertedImageProcessor
from qlip.families.inner import ConvertedInner, Encoding, Renamed
from qlip.families.processor import ConvertedProcessor, PromptProcessor
from qlip.families.tower import ConvertedTower
from qlip.images.processor import QlipImageProcessor
from qlip.towers.base import Tower, find_tower, position_table
from qlip.towers.hub import read_config
from qlip.towers.load import load_whole
from qlip.zoo.position_file import POSITION_FILE, check_writable, read_position

POSITION_NAME = "qlip_position"  # of a position that is trained, among a whole model's modules
FAMILIES: dict[type[nn.Module], type["Converted"]] = {}


class Converted(Renamed):
    """A whole model that takes patches and leaves: a position, and how the two are saved and loaded.

    Modifications of `transformers.PreTrainedModel` (5.23 to 5.24):
    - ``pixel_values`` is a pair for each image (see `qlip.images.pixels`), or a `PatchBatch`: the part of the
      model that sees pictures is switched with it;
    - ``save_pretrained`` writes the original's checkpoint, and the position beside it in ``qlip.safetensors``;
    - ``from_pretrained`` reads the two together.

    Attributes:
        original: The class of transformers, given as ``class X(Converted, Original, original=Original)``.
        processor_class: The converted processor that goes with it.
        inner_class: The converted class of the part that sees pictures.
        weighting: How leaves count in the tower's attention if not told otherwise: by area where one vector stands for a whole
            picture, once where a language model looks at each of them.
        qlip: The position, the unit and the weighting.
    """

    processor_class: ClassVar[type[ConvertedProcessor] | type[ConvertedImageProcessor]]
    inner_class: ClassVar[type[ConvertedTower] | type[ConvertedInner]]
    weighting: ClassVar[Weighting] = "area"
    qlip: Encoding

    def __init_subclass__(cls, original: type[PreTrainedModel] | None = None, **kwargs: object) -> None:
        """Register the family."""
        super().__init_subclass__(original=original, **kwargs)
        if original is not None:
            FAMILIES[original] = cls

    @classmethod
    def tower_of(cls, model: nn.Module) -> Tower:
        """The vision tower inside a model of the original class.

        Raises:
            TypeError: if it is none that is known.
        """
        return find_tower(model)

    @classmethod
    def inner_of(cls, model: Any) -> Any:
        """The part of a model of the original class that sees pictures: its tower."""
        return cls.tower_of(model).module

    @classmethod
    def unit_of(cls, model: Any) -> int:
        """Patches along the side of what the language model sees as one token, for a model of the original class."""
        return 1

    @classmethod
    def patch_size_of(cls, model: nn.Module) -> int:
        """Side of a patch of the tower in pixels."""
        return cls.tower_of(model).patch_size

    @classmethod
    def table_of(cls, model: nn.Module) -> Tensor | None:
        """The tower's own positions, ``(n, n, D)``; None if it has no square table."""
        tower = cls.tower_of(model)
        return None if tower.table() is None else position_table(tower.module)

    @classmethod
    def default_position(cls, model: nn.Module) -> str | None:
        """The position if none is asked for; None leaves it to the tower, which places patches itself."""
        return None if cls.tower_of(model).places_itself else "solve"

    @classmethod
    def check_weighting(cls, model: nn.Module, weighting: Weighting) -> Weighting:
        """The weighting, if the tower can do it.

        Raises:
            ValueError: if not.
        """
        tower = cls.tower_of(model)
        return check_weighting(weighting, next(tower.module.get_submodule(tower.layers).children()))

    @classmethod
    def size_of(cls, model: nn.Module) -> int | None:
        """Shortest edge in pixels that the model was made for; None if it takes pictures as they are."""
        return cls.tower_of(model).size

    @classmethod
    def stock_tokens(cls, model: nn.Module, processor: Any) -> int | None:
        """The most tokens that `qlip.convert` lets a picture take if not told otherwise: the stock model's, at its own size.

        None for a model that takes pictures as they are: leaves are never more than its own grid.

        Args:
            model: Of the original class.
            processor: The original, or None.
        """
        images = getattr(processor, "image_processor", processor)
        cropped = getattr(images, "do_center_crop", False) and getattr(images, "crop_size", None)
        size = cropped["height"] if cropped else cls.size_of(model)
        return None if size is None else (size // (cls.unit_of(model) * cls.patch_size_of(model))) ** 2

    @classmethod
    def convert_processor(
        cls, model: nn.Module, processor: object, settings: QlipImageProcessor
    ) -> ConvertedProcessor | ConvertedImageProcessor:
        """The converted processor that goes with a model of the original class.

        Raises:
            TypeError: if ``processor`` belongs to another kind of model.
        """
        return cls.processor_class.convert(processor, settings)

    @classmethod
    def attach(
        cls, model: nn.Module, position: Position | None, weighting: Weighting = "once", train_position: bool = False
    ) -> Self:
        """Switch a model of the original class to this one, its inner part with it, in place, and return it.

        With ``train_position`` the position becomes a part of the model, `POSITION_NAME`, with gradients; else it has none.

        Raises:
            ValueError: if there is nothing to train.
        """
        converted: Any = model
        prepare_training(position, train_position)
        if train_position:
            converted.add_module(POSITION_NAME, position)
        inner, encoding = cls.inner_of(model), Encoding(position, cls.unit_of(model), weighting)
        converted.qlip, converted.__class__ = encoding, cls
        inner.qlip, inner.__class__ = encoding, cls.inner_class
        return converted

    def detach(self) -> PreTrainedModel:
        """Undo `attach`, in place, and return the model."""
        original: Any = self
        original._modules.pop(POSITION_NAME, None)
        for part in (self.inner_of(self), original):
            del part.qlip
            part.__class__ = part.original
        return original

    @contextmanager
    def as_original(self) -> Iterator[PreTrainedModel]:
        """Within this context the model is what it was before `attach`."""
        cls, position, weighting, train = type(self), self.position, self.qlip.weighting, hasattr(self, POSITION_NAME)
        original = self.detach()
        try:
            yield original
        finally:
            cls.attach(original, position, weighting, train)

    @property
    def position(self) -> Position | None:
        """Encodings of coordinates, in float32; among ``parameters()`` if they are trained. None if the tower rotates."""
        return self.qlip.position

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save for `qlip.from_pretrained`, and for ``from_pretrained`` of the original class.

        Args:
            save_directory: Folder that gets the original's checkpoint and ``qlip.safetensors``.
            args: Arguments of transformers.
            kwargs: Options of transformers.

        Raises:
            TypeError: if the position is a function.
            ValueError: if ``push_to_hub`` is given, which would upload before the position is there.
        """
        if kwargs.pop("push_to_hub", False):
            raise ValueError("push_to_hub: got True; save here first, then call model.push_to_hub(repository)")
        if self.position is not None:
            check_writable(self.position)
        position, weighting = self.position, self.qlip.weighting
        if not kwargs.get("is_main_process", True):  # writes nothing, but may have a part in gathering the weights
            with self.as_original() as original:
                original.save_pretrained(save_directory, *args, **kwargs)
            return
        with self.as_original() as original:
            # transformers renames tensors back to the checkpoint's names, but not for classes that are not its own
            save_converted(original, save_directory, position, weighting, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load what `save_pretrained` wrote, from a folder or the Hub.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            args: Arguments of transformers.
            kwargs: Options of transformers.

        Raises:
            OSError: if there is no checkpoint, or nothing that says it was converted.
            ValueError: if weights or the position are damaged or missing.
        """
        hub = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        weighting = saved_weighting(
            read_config(str(pretrained_model_name_or_path), "pretrained_model_name_or_path", **hub)
        )
        position = find_position(pretrained_model_name_or_path, hub, missing=weighting is not None)
        informed = kwargs.pop("output_loading_info", False)
        model, report = load_whole(cls.original, str(pretrained_model_name_or_path), "model", *args, **kwargs)
        saved_weighting(model.config)
        if position is None and cls.default_position(model) is not None:
            find_position(pretrained_model_name_or_path, hub)  # raises and says what is missing
        converted = cls.attach(model, position, weighting or "once")  # qlip 0.1 had no weighting, and wrote none
        return (converted, report) if informed else converted


def find_position(source: str | Path, options: Mapping[str, Any], missing: bool = False) -> Position | None:
    """The position in a folder or Hub repository.

    Args:
        source: Folder or Hub id.
        options: Those about the Hub.
        missing: Return None if there is none; the tower may place patches itself.

    Raises:
        OSError: if there is no such folder or repository, or no position in it.
    """
    try:
        return read_position(find_file(source, POSITION_FILE, options))
    except FileNotFoundError:
        if missing:
            return None
        raise


class ConvertedGenerative(Converted):
    """A whole model that answers in words; the model without its head is switched with it.

    Modifications of the families' models (transformers 5.23 to 5.24), besides those of `Converted`:
    - ``generate`` checks, before it encodes images, that prompt and answer fit the context, and the placeholders image by image
      before it expands prompts for beams.
    """

    processor_class: ClassVar[type[PromptProcessor]]
    weighting = "once"
    inner_class: ClassVar[type[ConvertedInner]]
    model: Any

    @classmethod
    def tower_of(cls, model: Any) -> Tower:
        """The tower of the inner model."""
        return find_tower(model.model)

    @classmethod
    def inner_of(cls, model: Any) -> Any:
        """The model without its head."""
        return model.model

    @classmethod
    def convert_processor(cls, model: Any, processor: object, settings: QlipImageProcessor) -> PromptProcessor:
        """The converted processor that goes with a model of the original class.

        Raises:
            TypeError: if ``processor`` belongs to another kind of model.
            ValueError: if it has another placeholder than the model.
        """
        new = cls.processor_class.convert(processor, settings)
        placeholder = model.config.image_token_id
        if new.placeholder_id != placeholder:
            raise ValueError(
                f"processor: its placeholder {new.placeholder!r} is token {new.placeholder_id}, the model's is "
                f"{placeholder}; pass the processor that belongs to the model"
            )
        new.context = context_of(model)
        return new

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor: Tensor, model_kwargs: dict[str, Any], model_input_name: str | None, generation_config: Any
    ) -> dict[str, Any]:
        """Check that the context holds prompt and answer, then encode as the parent does."""
        context, images = context_of(self), model_kwargs.get("pixel_values")
        new = generation_config.max_new_tokens
        if context is not None and new is not None and images is not None and model_input_name == "input_ids":
            counts, fixed = self.model.feature_counts(images, model_kwargs), self.model.fixed_tokens
            check_context(inputs_tensor, self.config.image_token_id, counts, new, context, fixed)
        return super()._maybe_prepare_encoder_kwargs_for_generation(  # type: ignore[misc]
            inputs_tensor, model_kwargs, model_input_name, generation_config
        )

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> Any:
        """Check the images against the prompts, then expand as the parent does; transformers has encoded them by now."""
        encoded = (model_kwargs.get("mm_encoder_outputs") or {}).get("image")
        cache = model_kwargs.get("cache", model_kwargs.get("past_key_values"))  # renamed by 5.24
        fresh = cache is None or cache.get_seq_length() == 0  # else the prompt may hold images of earlier turns
        if encoded is not None and fresh and input_ids is not None and input_ids.numel():
            self.model.check_prompts(input_ids, [len(features) for features in encoded.pooler_output])
        return super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
