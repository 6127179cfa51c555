"""qlip's preprocessing with the interface of Hugging Face's image processors: pictures in, what a converted model takes out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import make_flat_list_of_images

from qlip.families.hub import find_file
from qlip.families.stock_options import OF_THE_VALUES, as_told, own_options
from qlip.files import replacing_folder
from qlip.images.fetch import fetched
from qlip.images.pixels import PerImage, pack
from qlip.images.processor import PROCESSOR_FILE, QlipImageProcessor
from qlip.images.read import ImageLike, open_picture, to_pixels
from qlip.towers.hub import NO_CODE

Images = ImageLike | Sequence[ImageLike] | Sequence[Sequence[ImageLike]]


class PreparedInputs(BatchFeature):
    """What converted processors return: transformers' own class, whose ``to`` moves and casts what a `PerImage` holds too."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move everything and cast floats, in place, as the parent does."""
        super().to(*args, **kwargs)
        self.data |= {name: each.to(*args, **kwargs) for name, each in self.items() if isinstance(each, PerImage)}
        return self


class LeafImagesKwargs(TypedDict, total=False):
    """What a call may override; transformers passes on only names that stand here. Values are checked by `qlip.core.rules`."""

    alpha: object
    max_tokens: object
    criterion: object
    cover: object
    score: object
    fit: object
    size: object
    crop: object
    pad: object
    do_rescale: object
    input_data_format: object
    do_resize: object
    do_normalize: object
    do_convert_rgb: object
    return_tensors: object


class LeafImageProcessor(BaseImageProcessor):
    """`QlipImageProcessor` with Hugging Face's interface.

    Modifications of `transformers.BaseImageProcessor` (5.23 to 5.24):
    - ``preprocess`` returns ``pixel_values`` as a `PerImage` with a pair for each image, see `qlip.images.pixels`;
    - pictures are read by `qlip.images.read` alone, so that a path gives the same pixels as the picture in it;
    - takes the options of `QlipImageProcessor.with_options`, those of `qlip.families.stock_options`, and no others.

    Args:
        settings: The preprocessing, which does the work.
    """

    valid_kwargs = LeafImagesKwargs  # type: ignore[assignment]

    def __init__(self, settings: QlipImageProcessor) -> None:
        super().__init__()
        self.settings = settings

    def preprocess(self, images: Images, return_tensors: object = None, **options: object) -> BatchFeature:
        """Cut images along their quadtrees.

        Args:
            images: One picture, a list, or a list of lists.
            return_tensors: Makes no difference: images differ in size, and their pairs hold torch tensors in any case.
            options: Options for this call alone, see `QlipImageProcessor.each` and `qlip.families.stock_options`.
        """
        return PreparedInputs({"pixel_values": PerImage(self.encode(*pair) for pair in self._each(images, options))})

    def count_tokens(self, images: Images, **options: object) -> list[int]:
        """Tokens that each image will take within a budget: its leaves, see `QlipImageProcessor.count_tokens`."""
        return [self.count(*pair) for pair in self._each(images, options)]

    def _each(self, images: Images, options: Mapping[str, Any]) -> list[tuple[QlipImageProcessor, Any]]:
        """Each picture with its settings."""
        told = {name: options[name] for name in OF_THE_VALUES if name in options}
        pictures = [as_told(image, **told) for image in self._flat(images)]
        return list(zip(self.settings.each(len(pictures), **own_options(options)), pictures, strict=True))

    def encode(self, settings: QlipImageProcessor, image: ImageLike) -> Any:
        """What the model is given of an image: a pair, see `qlip.images.pixels`."""
        return pack(*settings.cut(image), settings.unit)

    def count(self, settings: QlipImageProcessor, image: ImageLike) -> int:
        """Tokens of an image that a budget is about."""
        return len(settings.cut(image)[1])

    def most(self, height: int, width: int) -> int:
        """The same for a grid of ``height x width`` units of which none merge."""
        return height * width

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """The same nested lists with every picture as transformers takes it; batches of arrays become lists.

        Files are opened and not decoded, for that would be all at once. Arrays stay, for a call may say more about their values;
        those of two dimensions get a third, which transformers asks for.
        """
        if isinstance(image_url_or_urls, list | tuple) or getattr(image_url_or_urls, "ndim", 3) == 4:
            return [self.fetch_images(image) for image in image_url_or_urls]
        found = fetched(image_url_or_urls) if isinstance(image_url_or_urls, str) else image_url_or_urls
        if isinstance(found, str | Path | bytes):
            return open_picture(found)
        if isinstance(found, np.ndarray | Tensor) and found.ndim == 2:
            return found[..., None] if isinstance(found, np.ndarray) else found[None]
        array = isinstance(found, np.ndarray | Tensor) and found.ndim == 3
        return found if array or isinstance(found, Image.Image) else to_pixels(found)

    def _flat(self, images: Any) -> list[Any]:
        """Pictures in a plain list; addresses and paths are fetched."""
        return list(make_flat_list_of_images(self.fetch_images(images)))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """The settings in plain values."""
        return {"image_processor_type": type(self).__name__, **self.settings.to_dict()}


class ConvertedImageProcessor(LeafImageProcessor):
    """The image processor of a model that takes pictures alone, as `LeafImageProcessor`, saved and loaded with the original's.

    Attributes:
        original_image_processor: What it stands for.
    """

    original_image_processor: BaseImageProcessor

    @classmethod
    def convert(cls, processor: object, settings: QlipImageProcessor) -> Self:
        """A new image processor; the given one stays as it is.

        Raises:
            TypeError: if ``processor`` is none for images.
        """
        if not isinstance(processor, BaseImageProcessor):
            raise TypeError(
                f"processor: got {type(processor).__name__}; this model takes an image processor "
                f"(AutoImageProcessor.from_pretrained gives it)"
            )
        new = cls(settings)
        new.original_image_processor = processor
        return new

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> list[str]:  # type: ignore[override]
        """Save for `qlip.from_pretrained`, and for ``AutoImageProcessor.from_pretrained``; see `save_beside`."""
        return save_beside(self.original_image_processor, self.settings, save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Load what `save_pretrained` wrote, from a folder or the Hub.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            args: Arguments of transformers.
            kwargs: Options of transformers.

        Raises:
            OSError: if there is no image processor, or no ``qlip.json`` with it.
        """
        settings = QlipImageProcessor.read(find_file(pretrained_model_name_or_path, PROCESSOR_FILE, kwargs))
        options = {**NO_CODE, **kwargs}
        images = AutoImageProcessor.from_pretrained(pretrained_model_name_or_path, *args, **options)
        return cls.convert(images, settings)


def save_beside(
    original: ProcessorMixin | BaseImageProcessor,
    settings: QlipImageProcessor,
    folder: Any,
    *args: Any,
    **kwargs: Any,
) -> list[str]:
    """Save an original processor's files with qlip's settings beside them in ``qlip.json``, whole or not at all.

    Args:
        original: The processor of transformers.
        settings: The preprocessing.
        folder: Where they go.
        args: Arguments of transformers' ``save_pretrained``.
        kwargs: Its options.

    Raises:
        TypeError: if the quadtree's criterion is a function.
        ValueError: if ``push_to_hub`` is given, which would upload before the settings are there.
    """
    settings.check_writable()
    if kwargs.pop("push_to_hub", False):
        raise ValueError("push_to_hub: got True; save here first, then call processor.push_to_hub(repository)")
    with replacing_folder(folder, ours=()) as new:
        files = original.save_pretrained(str(new), *args, **kwargs)
        files = [*files, str(settings.save_pretrained(new))]
    return [str(Path(folder, Path(file).relative_to(new))) for file in files]
