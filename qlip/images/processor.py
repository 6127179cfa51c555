"""From pictures to ragged batches of patches: the preprocessing of every qlip model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from qlip._version import __version__
from qlip.core.patches import PatchBatch
from qlip.core.quadtree import Leaves, Quadtree
from qlip.core.rules import check_fields, check_names
from qlip.files import write_json
from qlip.images.names import Crop, Pad
from qlip.images.read import (
    MAX_PIXELS,
    ImageLike,
    centre_crop,
    normalise,
    pad_to_square,
    resize_shortest_edge,
    shortest_edge_shape,
    to_rgb,
)
from qlip.structured import check_fields as check_fields_of_file
from qlip.structured import read_json

OPTIONS = ("alpha", "max_tokens", "size", "crop", "pad")
PROCESSOR_FILE = "qlip.json"
# pixels after scaling: 4096 x 4096, 85,000 patches of 14; in floats and their scores, most of a gigabyte
MAX_PREPARED = 2**24
# what a file must have, and of what type; other fields came later and have defaults
_IMAGES = {"size": int | None, "crop": str, "quadtree": dict, "mean": list, "std": list}
_QUADTREE = {"alpha": float, "criterion": str, "max_tokens": int | None, "patch_size": int}


@dataclass(frozen=True)
class QlipImageProcessor:
    """Resize, crop to whole patches, normalise, and cut along a quadtree.

    Attributes:
        size: Shortest edge in pixels after resizing, aspect kept; None leaves the image at its native size, and enlarges one
            that is smaller than a patch.
        crop: ``"patch"`` trims each side to whole patches, from the centre; ``"square"`` cuts the centred square, which
            with ``size=336`` is Hugging Face's preprocessing of CLIP; ``"units"`` cuts nothing off, each side is scaled to the
            nearest whole number of the quadtree's patches.
        quadtree: Chooses the leaves; its ``patch_size`` must be the encoder's, times ``unit``.
        mean, std: Of the channels in [0, 1]; CLIP's own by default.
        unit: Patches along the side of what the language model sees as one token, see `qlip.images.pixels`.
        pad: ``"square"`` first puts the picture in the middle of a square of the mean colour, which with ``size=336`` is
            the preprocessing of LLaVA's original repository; None leaves its shape alone.
    """

    size: int | None = 336
    crop: Crop = "patch"
    quadtree: Quadtree = field(default_factory=Quadtree)
    mean: tuple[float, ...] = tuple(OPENAI_CLIP_MEAN)
    std: tuple[float, ...] = tuple(OPENAI_CLIP_STD)
    pad: Pad | None = None
    unit: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.quadtree, Quadtree):
            raise TypeError(f"quadtree: got {self.quadtree!r}; takes a Quadtree, such as Quadtree(alpha=0.3)")
        check_fields(self, "size", "crop", "pad", "unit")
        for name, least in (("mean", -math.inf), ("std", 0.0)):
            values = getattr(self, name)
            if len(values) != 3 or not all(
                isinstance(value, Real) and least < float(value) < math.inf for value in values
            ):
                raise ValueError(
                    f"{name}: got {values!r}; takes three finite numbers{', all above 0' if name == 'std' else ''}"
                )
        if self.size is not None and self.size < self.quadtree.patch_size:
            raise ValueError(
                f"size: got {self.size}; takes at least one patch ({self.quadtree.patch_size} pixels), or None for native"
            )

    def __call__(self, images: ImageLike | Sequence[ImageLike], **options: object) -> PatchBatch:
        """Prepare one image or several, of any sizes, as one ragged batch.

        Args:
            images: What `qlip.images.read.to_rgb` takes.
            options: For this call alone, see `with_options`.

        Raises:
            ValueError: if an image is too large after scaling, see `grid`, or no image is given.
        """
        settings = self.with_options(**options)
        cut = (settings.cut(image) for image in _as_list(images))
        return PatchBatch.collate(PatchBatch.from_image(image, leaves.parts(self.unit)) for image, leaves in cut)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them; a criterion of the user's own by its name."""
        values = asdict(self)
        criterion = self.quadtree.criterion
        values["quadtree"]["criterion"] = (
            criterion if isinstance(criterion, str) else getattr(criterion, "__name__", "?")
        )
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "QlipImageProcessor":
        """Undo `to_dict`."""
        quadtree = Quadtree(**values["quadtree"])
        return cls(**{**values, "quadtree": quadtree, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def check_writable(self) -> None:
        """Raise unless the settings can be saved.

        Raises:
            TypeError: if the quadtree's criterion is a function.
        """
        if not isinstance(self.quadtree.criterion, str):
            raise TypeError(
                f"criterion: got the function {self.to_dict()['quadtree']['criterion']}; only criteria with a name can be "
                f"saved. Save the original processor and convert it again after loading"
            )

    def save_pretrained(self, save_directory: str | Path) -> Path:
        """Write the settings to ``qlip.json`` in a folder, beside the model's own files.

        Raises:
            TypeError: see `check_writable`.
        """
        self.check_writable()
        path = Path(save_directory) / PROCESSOR_FILE
        write_json(path, {"qlip_version": __version__, "images": self.to_dict()})
        return path

    @classmethod
    def read(cls, path: str | Path) -> "QlipImageProcessor":
        """Read what `save_pretrained` wrote.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is damaged, naming it and the field.
        """
        held = check_fields_of_file(read_json(path), str(path), {"images": dict}, {"qlip_version": str})
        images = check_fields_of_file(held["images"], f"{path}: images", _IMAGES, _added(cls, _IMAGES))
        check_fields_of_file(images["quadtree"], f"{path}: images: quadtree", _QUADTREE, _added(Quadtree, _QUADTREE))
        try:
            return cls.from_dict(images)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: images: {error}") from error

    def with_options(self, **options: Any) -> "QlipImageProcessor":
        """A processor with some settings changed.

        Args:
            options: ``size``, ``crop``, ``pad``, and the quadtree's ``alpha`` and ``max_tokens``. An ``alpha`` puts an
                earlier ``max_tokens`` out of force; where both are given, ``max_tokens`` counts.

        Raises:
            TypeError: for any other name.
            ValueError: for a value that is not taken.
        """
        check_names("options", options, OPTIONS)
        if "alpha" in options:
            options = {"max_tokens": None, **options}
        tree = {name: options.pop(name) for name in ("alpha", "max_tokens") if name in options}
        quadtree = replace(self.quadtree, **tree) if tree else self.quadtree
        return replace(self, quadtree=quadtree, **options)

    def count_tokens(self, images: ImageLike | Sequence[ImageLike], **options: object) -> list[int]:
        """Patches that each image will take, class token not counted; nothing is resampled or encoded.

        Args:
            images: As in a call.
            options: As in a call.
        """
        settings = self.with_options(**options)
        return [len(settings.cut(image)[1]) for image in _as_list(images)]

    def cut(self, image: ImageLike) -> tuple[Tensor, Leaves]:
        """The prepared image ``(3, H, W)`` and its leaves.

        Raises:
            ValueError: if the image is too large after scaling, or the token budget smaller than the fewest leaves.
        """
        prepared = self.prepare(image)
        return prepared, self.quadtree.batch(prepared[None])[0]

    def prepare(self, image: ImageLike) -> Tensor:
        """Resize, crop and normalise: ``(3, H, W)`` float32, both sides whole patches.

        Raises:
            ValueError: if the image has more than `MAX_PREPARED` pixels after scaling.
        """
        return normalise(self.view(image), self.mean, self.std)

    def view(self, image: ImageLike) -> Image.Image:
        """The part of the picture that the encoder sees, as an RGB image whose sides are whole patches.

        Raises:
            ValueError: if the image has more than `MAX_PREPARED` pixels after scaling.
        """
        picture = to_rgb(image)
        h, w = self.grid(picture.height, picture.width)
        if self.pad == "square":
            picture = pad_to_square(picture, self.mean)
        p = self.quadtree.patch_size
        if self.crop == "units":
            return picture.resize((w * p, h * p), Image.Resampling.BICUBIC)
        size = self._shortest_edge(picture.height, picture.width)
        if size is not None:
            picture = resize_shortest_edge(picture, size)
        return centre_crop(picture, h * p, w * p)

    def _shortest_edge(self, height: int, width: int) -> int | None:
        """What a picture is scaled to, None for its own size; one smaller than a patch is enlarged to one."""
        p = self.quadtree.patch_size
        return p if self.size is None and min(height, width) < p else self.size

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that a picture of ``height x width`` pixels becomes: what a uniform grid would cost.

        Raises:
            ValueError: if the image has more than `MAX_PREPARED` pixels after scaling.
        """
        if self.pad == "square":
            height = width = max(height, width)
        p, got, size = self.quadtree.patch_size, f"{width} x {height}", self._shortest_edge(height, width)
        if size is not None:
            height, width = shortest_edge_shape(height, width, size)
        h, w = height // p, width // p
        if self.crop == "units":
            h, w = max(round(height / p), 1), max(round(width / p), 1)
        elif self.crop == "square":
            h = w = min(h, w)
        if height * width > MAX_PIXELS or h * w * p * p > MAX_PREPARED:
            raise ValueError(
                f"image: got {got} pixels, which size={self.size} makes {width} x {height}; takes at most {MAX_PREPARED:,} "
                f"pixels after scaling and cropping. Set a smaller size"
            )
        return h, w


def _added(options: type[QlipImageProcessor] | type[Quadtree], first: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that the first files lack; the rules of the options check their values."""
    return {name: object for name in options.__dataclass_fields__ if name not in first}


def _as_list(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """One image as a list of one."""
    return list(images) if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]  # type: ignore[list-item]
