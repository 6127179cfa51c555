"""Hugging Face's processors with qlip's preprocessing inside: text and images in, everything a model takes out."""

import copy
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs, MultiModalData

from qlip.core.rules import check_names
from qlip.families.hub import find_file
from qlip.families.image_processor import Images, LeafImageProcessor, PreparedInputs, save_beside
from qlip.families.placeholders import check_placeholders
from qlip.families.stock_options import STOCK_OPTIONS, own_options
from qlip.images.pixels import PerImage
from qlip.images.processor import OPTIONS, PROCESSOR_FILE, QlipImageProcessor
from qlip.towers.hub import NO_CODE

if TYPE_CHECKING:  # mixins: each stands before a class of transformers whose methods it calls
    Host = ProcessorMixin
else:
    Host = object


class ConvertedProcessor(Host):
    """What processors have in common once they are converted.

    Modifications of `transformers.ProcessorMixin` (5.23 to 5.24):
    - ``pixel_values`` is a `PerImage`, whatever ``return_tensors`` says;
    - ``save_pretrained`` writes the original's files, and qlip's settings beside them in ``qlip.json``.

    Attributes:
        original: The class of transformers, given as ``class X(ConvertedProcessor, Original, original=Original)``.
        images_class: What makes pairs of images.
        per_image: Names of what a call returns one value of for each image.
        original_image_processor: The image processor that the original had.
    """

    original: ClassVar[type[ProcessorMixin]]
    images_class: ClassVar[type[LeafImageProcessor]] = LeafImageProcessor
    images_kwargs: ImagesKwargs = {}  # noqa: RUF012  the original's defaults are options of its own image processor
    skip_tensor_conversion = ["video_metadata", "text_replacement_offsets", "pixel_values"]  # noqa: RUF012
    per_image: ClassVar[tuple[str, ...]] = ("pixel_values",)
    image_processor: LeafImageProcessor
    tokenizer: PreTrainedTokenizerBase
    original_image_processor: BaseImageProcessor

    def __init_subclass__(cls, original: type[ProcessorMixin] | None = None, **kwargs: object) -> None:
        """Note the class that this one stands for."""
        super().__init_subclass__(**kwargs)
        if original is not None:
            cls.original = original

    @classmethod
    def convert(cls, processor: object, settings: QlipImageProcessor) -> Self:
        """A new processor; the given one stays as it is.

        Args:
            processor: The original; its tokenizer is copied.
            settings: The preprocessing of images.

        Raises:
            TypeError: if the processor is of another kind.
        """
        if not isinstance(processor, cls.original):
            raise TypeError(
                f"processor: got {type(processor).__name__}; this model takes a {cls.original.__name__} "
                f"(AutoProcessor.from_pretrained gives it)"
            )
        new = cls.__new__(cls)
        new.__dict__.update(processor.__dict__)
        new.tokenizer = copy.deepcopy(processor.tokenizer)
        new.image_processor, new.original_image_processor = cls.images_class(settings), processor.image_processor
        return new

    def __call__(self, *args: Any, **kwargs: Any) -> PreparedInputs:
        """Prepare images and text, as the parent does; for options of a call see `QlipImageProcessor.each`."""
        output = dict(super().__call__(*args, **kwargs))
        return PreparedInputs(output | {name: PerImage(output[name]) for name in self.per_image if name in output})

    def _process_images(self, images: Any, **kwargs: Any) -> tuple[BatchFeature, list[str]]:
        """Images for the parent, which may slice and join them, as a plain list."""
        processed, replacements = super()._process_images(images, **kwargs)
        processed["pixel_values"] = list(processed["pixel_values"])
        return processed, replacements

    def _merge_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, dict[str, Any]]:
        """Sort the options of a call as the parent does; one that it would ignore is refused."""
        merged = super()._merge_kwargs(*args, **kwargs)
        taken = {name for options in merged.values() if isinstance(options, dict) for name in options} | set(merged)
        given = set(kwargs) - {"tokenizer_init_kwargs", "common_kwargs", "text", "images", "videos", "audio"}
        check_names("options", given - taken, (*OPTIONS, *STOCK_OPTIONS))
        return merged

    def to_original(self) -> ProcessorMixin:
        """The original's class with its image processor and this tokenizer."""
        new = self.original.__new__(self.original)
        new.__dict__.update(self.__dict__)
        new.image_processor = new.__dict__.pop("original_image_processor")
        return new

    def count_tokens(self, images: Images, **options: object) -> list[int]:
        """Tokens that each image will take in the prompt; nothing is resampled or encoded.

        Args:
            images: One picture, a list, or a list of lists.
            options: Options for this call alone, see `QlipImageProcessor.each`.
        """
        return self.image_processor.count_tokens(images, **options)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> list[str]:
        """Save for `qlip.from_pretrained`, and for ``from_pretrained`` of the original's class.

        Args:
            save_directory: Folder that gets the original's files and ``qlip.json``.
            args: Arguments of transformers.
            kwargs: Options of transformers.

        Raises:
            TypeError: if the quadtree's criterion is a function.
            ValueError: if ``push_to_hub`` is given, which would upload before the settings are there.
        """
        return save_beside(self.to_original(), self.image_processor.settings, save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Load what `save_pretrained` wrote, from a folder or the Hub.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            args: Arguments of transformers.
            kwargs: Options of transformers.

        Raises:
            OSError: if there is no processor, or no ``qlip.json`` with it.
        """
        settings = QlipImageProcessor.read(find_file(pretrained_model_name_or_path, PROCESSOR_FILE, kwargs))
        options = {**NO_CODE, **kwargs}
        return cls.convert(cls.original.from_pretrained(str(pretrained_model_name_or_path), *args, **options), settings)


class PromptProcessor(ConvertedProcessor):
    """The processor of a model that answers in words: as many placeholders as an image has leaves.

    Modifications of the families' processors (transformers 5.23 to 5.24), besides those of `ConvertedProcessor`:
    - each image gets what the family writes for one plain image, with as many placeholders as the image has leaves, and
      `extra_tokens` more, in place of the family's number;
    - prompts are padded on the left unless a call says otherwise: generation continues from the right;
    - a prompt that was cut inside an image is refused with the image's number;
    - videos are refused.

    Attributes:
        plain_options: Options with which the original's image processor makes one picture of an image, and no tiles or crops.
        template: What the original writes for one plain image; a run of placeholders, with the family's marks around it.
        context: Tokens that the language model can hold; None if not known.
        breaks: How many other tokens may stand between two placeholders of an image.
    """

    plain_options: ClassVar[dict[str, object]] = {}
    template: str
    context: int | None = None
    breaks: ClassVar[int] = 0
    image_token: str
    image_token_id: int

    @classmethod
    def convert(cls, processor: object, settings: QlipImageProcessor) -> Self:
        """A new processor; the given one stays as it is. See `ConvertedProcessor.convert`."""
        new = super().convert(processor, settings)
        new.template = cls.template_of(processor)
        new.tokenizer.padding_side = "left"
        return new

    @classmethod
    def template_of(cls, processor: Any) -> str:
        """What the original ``processor`` writes for one plain image."""
        plain = Image.new("RGB", (224, 224))  # whatever its size, the original scales it to its own
        _, (template,) = processor._process_images([plain], **cls.plain_options)
        return template

    @property
    def placeholder(self) -> str:
        """The token that stands for each of an image's features; some families mark an image by another."""
        return self.image_token

    @property
    def placeholder_id(self) -> int:
        """Its number in the vocabulary."""
        return self.image_token_id

    def __call__(
        self,
        images: Images | None = None,
        text: str | list[str] | None = None,
        return_tensors: Any = None,
        max_new_tokens: int = 512,
        **kwargs: object,
    ) -> PreparedInputs:
        """Prepare prompts and images.

        Args:
            images: One picture, a list, or a list of lists.
            text: One prompt or a list, with the model's placeholder where an image belongs.
            return_tensors: ``"pt"`` makes tensors of token ids and masks.
            max_new_tokens: Tokens kept free for the answer by ``max_tokens="auto"``, which takes what the model's context leaves for
                the images, see `budget`.
            kwargs: Options of transformers; and those for this call alone, see `QlipImageProcessor.each`.

        Raises:
            ValueError: if an image does not get all its placeholders, or ``max_tokens="auto"`` finds no room for images.
        """
        if kwargs.get("max_tokens") == "auto":
            prompts = [text] if isinstance(text, str) else text or []
            budgets = [self.budget(one, self._context(), max_new_tokens) for one in prompts if self.image_token in one]
            kwargs["max_tokens"] = min(budgets, default=None)
        # not handed on: several families convert once more, and would try it on the pairs
        output = super().__call__(images=images, text=text, **kwargs)
        if "input_ids" in output and "pixel_values" in output:
            counts = [self.tokens_of(image) for image in output["pixel_values"]]
            cause = f"the prompt was cut at max_length={kwargs['max_length']}" if kwargs.get("max_length") else ""
            check_placeholders(_rows(output["input_ids"]), counts, self.placeholder_id, cause, self.breaks)
        return PreparedInputs(
            dict(output), tensor_type=return_tensors, skip_tensor_conversion=self.skip_tensor_conversion
        )

    @property
    def extra_tokens(self) -> int:
        """Tokens of every image besides those that a budget is about."""
        return 0

    def tokens_of(self, image: Any) -> int:
        """Placeholders of an image as the image processor returns it."""
        return len(image[1]) + self.extra_tokens

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: object) -> str:
        """The template with the placeholders of one image."""
        placeholders = self.placeholder * self.tokens_of(image_inputs["pixel_values"][image_idx])
        return re.sub(f"(?:{re.escape(self.placeholder)})+", lambda _: placeholders, self.template, count=1)

    def count_tokens(self, images: Images, **options: object) -> list[int]:
        """Tokens that each image will take in the prompt, `extra_tokens` too; see `ConvertedProcessor.count_tokens`."""
        return [count + self.extra_tokens for count in super().count_tokens(images, **options)]

    def budget(self, text: str, context: int, max_new_tokens: int) -> int:
        """The largest ``max_tokens`` with which a prompt, its images and the answer fit into a context.

        Args:
            text: The prompt, with a placeholder where an image belongs; the budget is shared equally.
            context: Tokens that the language model can hold, usually ``model.config.text_config.max_position_embeddings``.
            max_new_tokens: Tokens kept free for the answer.

        Raises:
            ValueError: if nothing is left, or there is no image in the prompt.
        """
        images = text.count(self.image_token)
        words = len(self.tokenizer(text)["input_ids"]) - images
        marks = self.template.replace(self.placeholder, "")
        around = len(self.tokenizer(marks, add_special_tokens=False)["input_ids"]) if marks else 0
        left = (context - max_new_tokens - words) // images - self.extra_tokens - around if images else 0
        if left < 1:
            raise ValueError(
                f"text: got {images} images and {words} other tokens; with max_new_tokens={max_new_tokens} they leave no "
                f"room for images in a context of {context}. Takes a prompt with images, short enough"
            )
        return left

    def _context(self) -> int:
        """Tokens that the language model can hold; `qlip.convert` notes it."""
        if self.context is None:
            raise ValueError(
                'max_tokens: got "auto"; takes a number, for this model does not say how many tokens it can hold'
            )
        return self.context

    def _process_videos(self, videos: object, **kwargs: object) -> NoReturn:
        """Videos are refused: their dense frames would stand among the pairs."""
        name = self.original.__name__.removesuffix("Processor")
        raise ValueError(f"videos: got some; a converted {name} takes images alone. Pass frames as images")

    def _check_special_mm_tokens(self, text: list[str], text_inputs: BatchFeature, modalities: list[str]) -> None:
        """Leave images to the check after the call, which knows each image's count."""
        others = [name for name in modalities if name != "image"]
        super()._check_special_mm_tokens(text, text_inputs, others)

    def _get_num_multimodal_tokens(
        self, image_sizes: Sequence[tuple[int, int]] | None = None, *unused: object, **kwargs: object
    ) -> MultiModalData:
        """The most tokens that images of these sizes ``(height, width)`` can take; the content decides the rest."""
        if image_sizes is None:
            return MultiModalData()
        options = {name: kwargs[name] for name in (*OPTIONS, *STOCK_OPTIONS) if name in kwargs}
        settings = self.image_processor.settings.with_options(**own_options(options))
        grids = [settings.grid(height, width) for height, width in image_sizes]
        limit = settings.quadtree.max_tokens
        grid_tokens = [self.image_processor.most(h, w) for h, w in grids]
        most = [min(count, limit or count) + self.extra_tokens for count in grid_tokens]
        return MultiModalData(num_image_tokens=most, num_image_patches=[1] * len(most))


def _rows(input_ids: Any) -> "Any | list[Iterable[int]]":
    """Token ids as a tensor ``(B, L)`` or a list of rows; a single prompt without ``return_tensors`` stays a list of one."""
    return input_ids if hasattr(input_ids, "shape") or not input_ids or isinstance(input_ids[0], list) else [input_ids]
