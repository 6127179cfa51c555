"""From pictures to ragged batches of patches: the preprocessing of every qlip model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from qlip._version import __version__
from qlip.core.patches import PatchBatch
from qlip.core.quadtree import Leaves, Quadtree
from qlip.core.roots import Roots
from qlip.core.rules import Number, check_fields, check_names, numbers, shown
from qlip.core.score_map import check_score_maps, largest_inside
from qlip.files import write_json
from qlip.images.budget import counted_at, shortest_edges, size_of_tree
from qlip.images.eight_bit import EightBitImage
from qlip.images.names import Crop, Fit, Pad, Resample
from qlip.images.read import MAX_PIXELS, ImageLike, as_list, to_pixels, to_rgb
from qlip.images.resize import centre_crop, pad_to_square, resize, resize_shortest_edge, shortest_edge_shape
from qlip.images.settings import read_settings

OF_THE_TREE = ("alpha", "max_tokens", "criterion", "cover", "score")
OPTIONS = (*OF_THE_TREE, "fit", "size", "crop", "pad")
PROCESSOR_FILE = "qlip.json"
# pixels after scaling: 4096 x 4096, 85,000 patches of 14; in floats and their scores, most of a gigabyte
MAX_PREPARED = 2**24
_MEAN, _STD = Number(-1e6, 1e6, fraction=True), Number(1e-6, 1e6, fraction=True)  # else pixels would not be finite


@dataclass(frozen=True)
class QlipImageProcessor:
    """Bring pictures to whole patches, normalise them, and cut them along a quadtree.

    Attributes:
        size: Shortest edge in pixels after resizing, aspect kept; None leaves the image at its native size, but enlarges one
            that is smaller than a patch, and scales one of more than `MAX_PREPARED` pixels down to them.
        crop: ``"patch"`` trims each side to whole patches, from the centre; ``"square"`` cuts the centred square, which
            with ``size=336`` is Hugging Face's preprocessing of CLIP; ``"units"`` cuts nothing off, each side is scaled to the
            nearest whole number of the quadtree's patches.
        quadtree: Chooses the leaves; its ``patch_size`` must be the encoder's, times ``unit``.
        mean, std: Of the channels in [0, 1]; CLIP's own by default.
        unit: Patches along the side of what the language model sees as one token, see `qlip.images.pixels`.
        pad: ``"square"`` first puts the picture in the middle of a square of the mean colour, which with ``size=336`` is
            the preprocessing of LLaVA's original repository; None leaves its shape alone.
        fit: How a picture keeps to the quadtree's ``max_tokens``. ``"prune"`` leaves its size alone and merges the least
            deserving blocks; only where its borders cannot merge enough is it scaled down, as little as need be. ``"scale"``
            leaves ``alpha`` in force, so that only flat blocks merge, and scales the picture down to the largest size at which
            the tree fits; what is left of the budget is spent on further splits.
        resample: The filter with which pictures are scaled; a converted model has its own.
    """

    size: int | None = 336
    crop: Crop = "patch"
    quadtree: Quadtree = field(default_factory=Quadtree)
    mean: tuple[float, ...] = tuple(OPENAI_CLIP_MEAN)
    std: tuple[float, ...] = tuple(OPENAI_CLIP_STD)
    pad: Pad | None = None
    unit: int = 1
    fit: Fit = "prune"
    resample: Resample = "bicubic"

    def __post_init__(self) -> None:
        if not isinstance(self.quadtree, Quadtree):
            raise TypeError(f"quadtree: got {shown(self.quadtree)}; takes a Quadtree, such as Quadtree(alpha=0.3)")
        check_fields(self, "size", "crop", "pad", "unit", "fit", "resample")
        for name, rule in (("mean", _MEAN), ("std", _STD)):
            if numbers(getattr(self, name), rule, count=3) is None:
                raise ValueError(f"{name}: got {shown(getattr(self, name))}; takes three finite numbers, each {rule}")
        if self.size is not None and self.size < self.quadtree.patch_size:
            raise ValueError(
                f"size: got {self.size}; takes at least one patch ({self.quadtree.patch_size} pixels), or None for native"
            )

    def __call__(self, images: ImageLike | Sequence[ImageLike], **options: object) -> PatchBatch:
        """Prepare one image or several, of any sizes, as one ragged batch.

        Args:
            images: What `qlip.images.read.to_pixels` takes.
            options: For this call alone, see `with_options`.

        Raises:
            ValueError: if an image is too large after scaling, see `grid`, or no image is given.
        """
        pictures = as_list(images)
        each = zip(pictures, self.each(len(pictures), **options), strict=True)
        # a picture has no name here, which would hold it while the next one is read
        return PatchBatch.collate(EightBitImage.batch(*settings.cut(image), self.unit) for image, settings in each)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them; a criterion of the user's own by its name."""
        values = asdict(replace(self, quadtree=replace(self.quadtree, score=None)))
        del values["quadtree"]["score"]  # of one picture, not of the settings
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
            TypeError: if the quadtree's criterion is a function, or it has a score map.
        """
        if self.quadtree.score is not None:
            raise TypeError(
                "score: got a map, which belongs to one picture; give it in a call of the processor instead"
            )
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
        """Read what `save_pretrained` wrote; raises as `read_settings`."""
        images = read_settings(path, cls.__dataclass_fields__, Quadtree.__dataclass_fields__)
        try:
            return cls.from_dict(images)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: images: {error}") from error

    def with_options(self, **options: Any) -> "QlipImageProcessor":
        """A processor with some settings changed.

        Args:
            options: ``size``, ``crop``, ``pad``, ``fit``, and the quadtree's ``alpha``, ``max_tokens``, ``criterion``, ``cover``
                and ``score``. An ``alpha`` puts an earlier ``max_tokens`` out of force, but for ``fit="scale"``, where both count;
                where both are given, ``max_tokens`` counts.

        Raises:
            TypeError: for any other name.
            ValueError: for a value that is not taken.
        """
        check_names("options", options, OPTIONS)
        if "alpha" in options and options.get("fit", self.fit) != "scale":
            options = {"max_tokens": None, **options}
        tree = {name: options.pop(name) for name in OF_THE_TREE if name in options}
        quadtree = replace(self.quadtree, **tree) if tree else self.quadtree
        return replace(self, quadtree=quadtree, **options)

    def each(self, count: int, score: Any = None, **options: object) -> list["QlipImageProcessor"]:
        """The settings for each of several pictures, with the options of one call.

        Args:
            count: Number of pictures.
            score: A map for the only picture, or a list with a map or None for each.
            options: See `with_options`.

        Raises:
            ValueError: if there are not as many maps as pictures.
        """
        settings = self.with_options(**options)
        if score is None:
            return [settings] * count
        maps = check_score_maps(score, count)
        return [settings if each is None else settings.with_options(score=each) for each in maps]

    def count_tokens(self, images: ImageLike | Sequence[ImageLike], **options: object) -> list[int]:
        """Patches that each image will take, class token not counted; nothing is resampled or encoded.

        Args:
            images: As in a call.
            options: As in a call.
        """
        pictures = as_list(images)
        each = zip(pictures, self.each(len(pictures), **options), strict=True)
        return [len(settings.cut(image)[1]) for image, settings in each]

    def cut(self, image: ImageLike) -> tuple[EightBitImage, Leaves]:
        """What the encoder sees of an image, and its leaves. Raises as `fitted`."""
        picture = to_pixels(image)
        settings = self.fitted(picture)
        seen, tree = settings._eight_bit(picture), settings.tree_of(*picture.shape[1:])
        del picture  # the largest thing there is, if nobody else holds it
        return seen, seen.leaves(tree)

    def view_and_leaves(self, image: ImageLike) -> tuple[Image.Image, Leaves]:
        """The part of the picture that the encoder sees, see `view`, and its leaves. Raises as `fitted`."""
        seen, leaves = self.cut(image)
        return to_rgb(seen.pixels), leaves

    def seen(self, image: ImageLike) -> EightBitImage:
        """What the encoder sees of an image: resized and cropped, both sides whole patches. Raises as `fitted`."""
        picture = to_pixels(image)
        return self.fitted(picture)._eight_bit(picture)

    def prepare(self, image: ImageLike) -> Tensor:
        """The same, normalised: ``(3, H, W)`` float32. Raises as `fitted`."""
        return self.seen(image).floats

    def view(self, image: ImageLike) -> Image.Image:
        """The part of the picture that the encoder sees, RGB, both sides whole patches. Raises as `fitted`."""
        return to_rgb(self.seen(image).pixels)

    def fitted(self, image: ImageLike) -> "QlipImageProcessor":
        """These settings with the size at which a picture keeps to the budget; themselves where there is none.

        Raises:
            ValueError: if the picture is so long and thin that the budget does not hold it even with a shortest edge of one
                patch; or, where there is no budget, if it is too large after scaling, see `grid`.
        """
        budget, picture = self.quadtree.max_tokens, to_pixels(image)
        height, width = picture.shape[1:]
        if budget is None:
            self.grid(height, width)
            return self
        sizes = self._sizes(height, width)
        if self.fit == "scale":
            sizes = self._scaled(picture, sizes, budget)
        for size in sizes:
            h, w = self._grid(height, width, size)
            roots = Roots.of(h, w, self.quadtree.cover)
            if (h * w if self.quadtree.criterion == "uniform" else roots.fewest_leaves()) <= budget:
                return replace(self, size=size, fit="prune")
        raise ValueError(
            f"image: got {width} x {height} pixels, {max(height, width) / min(height, width):.3g} times as long as wide; "
            f"max_tokens={budget} takes at most {budget} times. Raise max_tokens or cut the picture"
        )

    def _sizes(self, height: int, width: int) -> list[int]:
        """Shortest edges to which a picture may be scaled, falling; none makes it too large to prepare."""
        top = self._shortest_edge(height, width) or min(self._padded(height, width))
        height, width = self._padded(height, width)
        aspect = max(height, width) / min(height, width)
        top = min(top, max(int((MAX_PREPARED / aspect) ** 0.5), self.quadtree.patch_size))
        return shortest_edges(top, aspect, self.quadtree.patch_size)

    def _scaled(self, picture: Tensor, sizes: list[int], budget: int) -> list[int]:
        """The sizes from the largest on at which the picture's tree fits the budget, its threshold left alone."""
        height, width = picture.shape[1:]
        grid = partial(self._grid, height, width)
        enough = next((size for size in reversed(sizes) if prod(grid(size)) >= budget), sizes[0])
        if enough == sizes[0]:  # there even the whole grid fits
            return sizes
        counted = counted_at(sizes[0], self.quadtree.patch_size, grid, budget)
        pyramid, scaled = {}, picture
        for size in reversed(counted):
            scaled = resize_shortest_edge(scaled, size, self.resample) if self.pad is None else picture
            pyramid[size] = scaled
        wanted = size_of_tree(lambda size: replace(self, size=size)._count(pyramid[size]), counted, budget)
        return [size for size in sizes if size <= max(wanted, enough)]

    def _count(self, picture: Tensor) -> int:
        """The leaves of a picture at the size that is set, the threshold left alone."""
        return self._eight_bit(picture).count(self.tree_of(*picture.shape[1:]))

    def _eight_bit(self, picture: Tensor) -> EightBitImage:
        """What the encoder sees of a picture, at the size that is set."""
        return EightBitImage(self._view(picture), self.mean, self.std)

    def _view(self, picture: Tensor) -> Tensor:
        """Its pixels."""
        height, width = picture.shape[1:]
        h, w = self.grid(height, width)
        if self.pad == "square":
            picture = pad_to_square(picture, self.mean)
        p = self.quadtree.patch_size
        if self.crop == "units":
            return resize(picture, h * p, w * p, self.resample)
        size = self._shortest_edge(height, width)
        if size is not None:
            picture = resize_shortest_edge(picture, size, self.resample)
        return centre_crop(picture, h * p, w * p)

    def tree_of(self, height: int, width: int) -> Quadtree:
        """The quadtree for a picture of this size in pixels; a score map, which covers the picture, is cut as the picture is."""
        tree = self.quadtree
        if tree.score is None:
            return tree
        p, size, padded = tree.patch_size, self._shortest_edge(height, width), self._padded(height, width)
        scaled = padded if size is None else shortest_edge_shape(*padded, size)
        edges = []
        for patches, pixels, framed, seen in zip(
            self.grid(height, width), (height, width), padded, scaled, strict=True
        ):
            seen = patches * p if self.crop == "units" else seen
            first, offset = (seen - patches * p) // 2, (framed - pixels) // 2
            edges.append([((first + i * p) * framed / seen - offset) / pixels for i in range(patches + 1)])
        return replace(tree, score=largest_inside(tree.score, *edges))

    def _shortest_edge(self, height: int, width: int) -> int | None:
        """What a picture is scaled to, None for its own size; one smaller than a patch is enlarged, one too large scaled down."""
        if self.size is not None:
            return self.size
        height, width = self._padded(height, width)
        shorter, p = min(height, width), self.quadtree.patch_size
        if height * width > MAX_PREPARED:
            return max(int(shorter * (MAX_PREPARED / (height * width)) ** 0.5), p)
        return p if shorter < p else None

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture once it is padded, if it is."""
        return (max(height, width),) * 2 if self.pad == "square" else (height, width)

    def _grid(self, height: int, width: int, size: int | None) -> tuple[int, int]:
        """Rows and columns of patches of a picture scaled to a shortest edge."""
        height, width = self._padded(height, width)
        if size is not None:
            height, width = shortest_edge_shape(height, width, size)
        p = self.quadtree.patch_size
        if self.crop == "units":
            return max(round(height / p), 1), max(round(width / p), 1)
        h, w = height // p, width // p
        return (min(h, w),) * 2 if self.crop == "square" else (h, w)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that a picture of ``height x width`` pixels becomes: what a uniform grid would cost.

        With a budget, a picture that would be too large is scaled down to what is taken.

        Raises:
            ValueError: if there is no budget and the image has more than `MAX_PREPARED` pixels after scaling.
        """
        size = self._shortest_edge(height, width)
        h, w = self._grid(height, width, size)
        p = self.quadtree.patch_size
        if h * w * p * p > MAX_PREPARED and self.quadtree.max_tokens is not None:
            return self._grid(height, width, self._sizes(height, width)[0])
        scaled = (height, width) if size is None else shortest_edge_shape(*self._padded(height, width), size)
        if scaled[0] * scaled[1] > MAX_PIXELS or h * w * p * p > MAX_PREPARED:
            raise ValueError(
                f"image: got {width} x {height} pixels, which size={self.size} makes {scaled[1]} x {scaled[0]}; takes at most "
                f"{MAX_PREPARED:,} pixels after scaling and cropping. Set a smaller size, or max_tokens"
            )
        return h, w
