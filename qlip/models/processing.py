"""From pictures to ragged batches of patches: the preprocessing of every qlip model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from qlip.core.patches import PatchBatch
from qlip.core.quadtree import Quadtree
from qlip.models.images import ImageLike, centre_crop, normalise, resize_shortest_edge, to_rgb

Crop = Literal["patch", "square"]


@dataclass(frozen=True)
class QlipImageProcessor:
    """Resize, crop to whole patches, normalise, and cut along a quadtree.

    Attributes:
        size: Shortest edge in pixels after resizing, aspect kept; None leaves the image at its native size.
        crop: ``"patch"`` trims each side to whole patches, from the centre; ``"square"`` cuts the centred square, which
            with ``size=336`` is Hugging Face's preprocessing of CLIP.
        quadtree: Chooses the leaves; its ``patch_size`` must be the encoder's.
        mean, std: Of the channels in [0, 1]; CLIP's own by default.
    """

    size: int | None = 336
    crop: Crop = "patch"
    quadtree: Quadtree = field(default_factory=Quadtree)
    mean: tuple[float, ...] = tuple(OPENAI_CLIP_MEAN)
    std: tuple[float, ...] = tuple(OPENAI_CLIP_STD)

    def __post_init__(self) -> None:
        if self.crop not in ("patch", "square"):
            raise ValueError(f"crop: got {self.crop!r}; takes 'patch' or 'square'")
        if self.size is not None and self.size < self.quadtree.patch_size:
            raise ValueError(
                f"size: got {self.size}; takes at least one patch ({self.quadtree.patch_size} pixels), or None for native"
            )

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> PatchBatch:
        """Prepare one image or several, of any sizes, as one ragged batch.

        Raises:
            ValueError: if an image is smaller than a patch, or no image is given.
        """
        several = images if isinstance(images, Sequence) and not isinstance(images, str) else [images]
        prepared = [self.prepare(image) for image in several]  # type: ignore[arg-type]
        return PatchBatch.collate(
            PatchBatch.from_image(image, self.quadtree.batch(image[None])[0]) for image in prepared
        )

    def prepare(self, image: ImageLike) -> Tensor:
        """Resize, crop and normalise: ``(3, H, W)`` float32, both sides whole patches.

        Raises:
            ValueError: if the image is smaller than a patch.
        """
        return normalise(self.view(image), self.mean, self.std)

    def view(self, image: ImageLike) -> Image.Image:
        """The part of the picture that the encoder sees, as an RGB image whose sides are whole patches.

        Raises:
            ValueError: if the image is smaller than a patch.
        """
        picture = to_rgb(image)
        if self.size is not None:
            picture = resize_shortest_edge(picture, self.size)
        p = self.quadtree.patch_size
        height, width = picture.height // p * p, picture.width // p * p
        if not height or not width:
            raise ValueError(
                f"image: got {picture.width} x {picture.height} pixels, less than one patch of {p}; set size to enlarge it"
            )
        if self.crop == "square":
            height = width = min(height, width)
        return centre_crop(picture, height, width)
