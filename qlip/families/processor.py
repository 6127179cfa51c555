"""Hugging Face's processors with qlip's preprocessing inside: text and images in, everything a model takes out."""

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from transformers import BatchFeature, CLIPProcessor, LlavaProcessor, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import make_flat_list_of_images
from transformers.processing_utils import MultiModalData

from qlip._version import __version__
from qlip.core.quadtree import Quadtree
from qlip.families.base import find_file
from qlip.families.placeholders import check_placeholders
from qlip.files import write_json
from qlip.images.pixels import pack, token_counts
from qlip.images.processor import OPTIONS, QlipImageProcessor

PROCESSOR_FILE = "qlip.json"


class LeafImagesKwargs(TypedDict, total=False):
    """What a call may override; transformers passes on only names that stand here."""

    alpha: float | int | None
    max_tokens: int | None
    size: int | None
    crop: str
    pad: str | None
    return_tensors: Any


class LeafImageProcessor(BaseImageProcessor):
    """`QlipImageProcessor` with Hugging Face's interface.

    Modifications of `transformers.BaseImageProcessor` (5.17 to 5.23):
    - ``preprocess`` returns ``pixel_values`` as a list with a pair for each image, see `qlip.images.pixels`;
    - takes the options of `QlipImageProcessor.with_options` and no others.

    Args:
        settings: Does the work.
    """

    valid_kwargs = LeafImagesKwargs  # type: ignore[assignment]

    def __init__(self, settings: QlipImageProcessor) -> None:
        super().__init__()
        self.settings = settings

    def preprocess(self, images: Any, return_tensors: Any = None, **options: Any) -> BatchFeature:
        """Cut images along their quadtrees.

        Args:
            images: One picture, a list, or a list of lists.
            return_tensors: Makes no difference: the list holds torch tensors in any case.
            options: For this call alone, see `QlipImageProcessor.with_options`.
        """
        settings = self.settings.with_options(**options)
        return BatchFeature({"pixel_values": [pack(*settings.cut(image)) for image in self._flat(images)]})

    def count_tokens(self, images: Any, **options: Any) -> list[int]:
        """Patches that each image will take, see `QlipImageProcessor.count_tokens`."""
        return self.settings.count_tokens(self._flat(images), **options)

    def _flat(self, images: Any) -> list[Any]:
        """Pictures in a plain list; addresses and paths are fetched."""
        flat: Any = make_flat_list_of_images(self.fetch_images(images))
        return list(flat)

    def to_dict(self) -> dict[str, Any]:
        """The settings in plain values."""
        return {"image_processor_type": type(self).__name__, **settings_to_dict(self.settings)}


def settings_to_dict(settings: QlipImageProcessor) -> dict[str, Any]:
    """Settings as JSON can hold them; a criterion of the user's own by its name."""
    values = asdict(settings)
    criterion = settings.quadtree.criterion
    values["quadtree"]["criterion"] = criterion if isinstance(criterion, str) else getattr(criterion, "__name__", "?")
    return values


def settings_from_dict(values: dict[str, Any]) -> QlipImageProcessor:
    """Undo `settings_to_dict`."""
    quadtree = Quadtree(**values["quadtree"])
    return QlipImageProcessor(
        **{**values, "quadtree": quadtree, "mean": tuple(values["mean"]), "std": tuple(values["std"])}
    )


class ConvertedProcessor:
    """What processors have in common once they are converted.

    Modifications of `transformers.ProcessorMixin` (5.17 to 5.23):
    - ``pixel_values`` stays a list, whatever ``return_tensors`` says;
    - prompts are padded on the left unless a call says otherwise: generation continues from the right;
    - ``save_pretrained`` writes the original's files, and qlip's settings beside them in ``qlip.json``.
    """

    original: ClassVar[Any]
    fields: ClassVar[tuple[str, ...]] = ()
    skip_tensor_conversion: ClassVar[list[str]] = ["video_metadata", "text_replacement_offsets", "pixel_values"]
    image_processor: LeafImageProcessor
    tokenizer: PreTrainedTokenizerBase
    original_image_processor: Any
    chat_template: Any

    @classmethod
    def convert(cls, processor: Any, settings: QlipImageProcessor, **fields: Any) -> Any:
        """A new processor; the given one stays as it is.

        Args:
            processor: The original; its tokenizer is copied.
            settings: Of the images.
            fields: Arguments of the original's constructor besides image processor and tokenizer.
        """
        tokenizer = copy.deepcopy(processor.tokenizer)
        tokenizer.padding_side = "left"
        new: Any = cls(LeafImageProcessor(settings), tokenizer, **fields)  # type: ignore[call-arg]
        new.original_image_processor = processor.image_processor
        new.chat_template = processor.chat_template
        return new

    def count_tokens(self, images: Any, **options: Any) -> list[int]:
        """Tokens that each image will take in the prompt; nothing is resampled or encoded.

        Args:
            images: As in a call.
            options: For this call alone: alpha, max_tokens, size, crop, pad.
        """
        return self.image_processor.count_tokens(images, **options)

    def to_original(self) -> Any:
        """The original's class with its image processor and this tokenizer."""
        fields = {name: getattr(self, name) for name in self.fields}
        new = self.original(image_processor=self.original_image_processor, tokenizer=self.tokenizer, **fields)
        new.chat_template = self.chat_template
        return new

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """Save for `from_pretrained` of this class, and of the original's.

        Args:
            save_directory: Gets the original's files and ``qlip.json``.
            kwargs: As in transformers.

        Raises:
            TypeError: if the quadtree's criterion is a function.
            ValueError: if ``push_to_hub`` is given, which would upload before the settings are there.
        """
        settings = self.image_processor.settings
        if not isinstance(settings.quadtree.criterion, str):
            raise TypeError(
                f"criterion: got the function {settings_to_dict(settings)['quadtree']['criterion']}; only criteria with "
                f"a name can be saved. Save the original processor and convert it again after loading"
            )
        if kwargs.pop("push_to_hub", False):
            raise ValueError("push_to_hub: got True; save here first, then call processor.push_to_hub(repository)")
        files = self.to_original().save_pretrained(save_directory, **kwargs)
        path = Path(save_directory) / PROCESSOR_FILE
        write_json(path, {"qlip_version": __version__, "images": settings_to_dict(settings)})
        return [*files, str(path)]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Load what `save_pretrained` wrote, from a folder or the Hub.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            kwargs: As in transformers.

        Raises:
            OSError: if there is no processor, or no ``qlip.json`` with it.
        """
        path = find_file(pretrained_model_name_or_path, PROCESSOR_FILE, kwargs)
        values = json.loads(Path(path).read_text(encoding="utf-8"))["images"]
        processor = cls.original.from_pretrained(pretrained_model_name_or_path, **kwargs)
        fields = {name: getattr(processor, name) for name in cls.fields}
        return cls.convert(processor, settings_from_dict(values), **fields)


class QlipLlavaProcessor(ConvertedProcessor, LlavaProcessor):  # type: ignore[misc]
    """LLaVA's processor for images of any size.

    Modifications of `transformers.LlavaProcessor` (5.17 to 5.23), besides those of `ConvertedProcessor`:
    - each image gets as many placeholders as it has leaves, and one more where LLaVA keeps the class token;
    - a prompt that was cut inside an image is refused with the image's number.
    """

    original = LlavaProcessor
    fields = ("patch_size", "vision_feature_select_strategy", "image_token", "num_additional_image_tokens")

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> BatchFeature:
        """Prepare prompts and images.

        Args:
            images: One picture, a list, or a list of lists.
            text: One prompt or a list, with ``<image>`` where an image belongs.
            kwargs: As in transformers; and for this call alone alpha, max_tokens, size, crop, pad.

        Raises:
            ValueError: if an image does not get all its placeholders.
        """
        output = super().__call__(images=images, text=text, **kwargs)
        if "input_ids" in output and "pixel_values" in output:
            counts = [count + self._extra for count in token_counts(output["pixel_values"])]
            cause = f"the prompt was cut at max_length={kwargs['max_length']}" if kwargs.get("max_length") else ""
            check_placeholders(_rows(output["input_ids"]), counts, self.image_token_id, cause)
        return output

    @property
    def _extra(self) -> int:
        """Features besides the patches: 1 with the class token, else 0."""
        return self.num_additional_image_tokens - (self.vision_feature_select_strategy == "default")

    def replace_image_token(self, image_inputs: Any, image_idx: int, **kwargs: Any) -> str:
        """The placeholders of one image."""
        return self.image_token * (len(image_inputs["pixel_values"][image_idx][0]) + self._extra)

    def count_tokens(self, images: Any, **options: Any) -> list[int]:
        """Placeholders that each image will take in the prompt; nothing is resampled or encoded.

        Args:
            images: As in a call.
            options: For this call alone: alpha, max_tokens, size, crop, pad.
        """
        return [count + self._extra for count in super().count_tokens(images, **options)]

    def budget(self, text: str, context: int, max_new_tokens: int) -> int:
        """The largest ``max_tokens`` with which a prompt, its images and the answer fit into a context.

        Args:
            text: The prompt, with ``<image>`` where an image belongs; the budget is shared equally.
            context: Tokens that the language model can hold, usually ``model.config.text_config.max_position_embeddings``.
            max_new_tokens: Kept free for the answer.

        Raises:
            ValueError: if nothing is left, or there is no image in the prompt.
        """
        images = text.count(self.image_token)
        words = len(self.tokenizer(text)["input_ids"]) - images
        left = (context - max_new_tokens - words) // images - self._extra if images else 0
        if left < 1:
            raise ValueError(
                f"text: got {images} images and {words} other tokens; with max_new_tokens={max_new_tokens} they leave no "
                f"room for images in a context of {context}. Takes a prompt with images, short enough"
            )
        return left

    def _check_special_mm_tokens(self, text: Any, text_inputs: Any, modalities: Sequence[str]) -> None:
        """Leave images to the check after the call, which knows each image's count."""
        super()._check_special_mm_tokens(text, text_inputs, [name for name in modalities if name != "image"])

    def _get_num_multimodal_tokens(self, image_sizes: Any = None, **kwargs: Any) -> MultiModalData:
        """The most tokens that images of these sizes ``(height, width)`` can take; the content decides the rest."""
        if image_sizes is None:
            return MultiModalData()
        options = {name: kwargs[name] for name in OPTIONS if name in kwargs}
        settings = self.image_processor.settings.with_options(**options)
        grids = [settings.grid(height, width) for height, width in image_sizes]
        limit = settings.quadtree.max_tokens
        most = [min(h * w, limit or h * w) + self._extra for h, w in grids]
        return MultiModalData(num_image_tokens=most, num_image_patches=[1] * len(most))


class QlipCLIPProcessor(ConvertedProcessor, CLIPProcessor):  # type: ignore[misc]
    """CLIP's processor for images of any size; see `ConvertedProcessor` for what differs from `transformers.CLIPProcessor`."""

    original = CLIPProcessor


def _rows(input_ids: Any) -> "Any | list[Iterable[int]]":
    """Token ids as a tensor ``(B, L)`` or a list of rows; a single prompt without ``return_tensors`` stays a list of one."""
    return input_ids if hasattr(input_ids, "shape") or not input_ids or isinstance(input_ids[0], list) else [input_ids]
