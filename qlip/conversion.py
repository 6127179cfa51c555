"""The one verb: give a model images of any size, take it back, and load what was converted and saved."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import transformers
from torch import Tensor, nn
from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from qlip.core.names import Weighting
from qlip.core.position import Position
from qlip.core.quadtree import Quadtree
from qlip.core.rules import check_names, shown
from qlip.encoder import QlipVisionModel, prepare_training, saved_weighting
from qlip.families import FAMILIES, Converted, ConvertedProcessor
from qlip.families.base import find_position
from qlip.families.context import context_of
from qlip.families.hub import HUB_OPTIONS, find_file
from qlip.families.image_processor import LeafImageProcessor
from qlip.families.processor import PromptProcessor
from qlip.images.names import Fit, Resample
from qlip.images.processor import PROCESSOR_FILE, Crop, Pad, QlipImageProcessor
from qlip.shipped import is_shipped, shipped
from qlip.towers.base import TOWERS, find_tower
from qlip.towers.hub import read_config
from qlip.towers.load import load_whole
from qlip.zoo.resolve import resolve_position

Processor = ProcessorMixin | BaseImageProcessor
DEFAULT_QUADTREE = Quadtree()
# PIL's and torchvision's names of the filters that all supported versions of torchvision have; bicubic stands in for others
FILTERS: dict[object, Resample] = {2: "bilinear", "bilinear": "bilinear", 3: "bicubic", "bicubic": "bicubic"}
# of `convert`, in the message about a name that is misspelt
_ARGUMENTS = ("position", "quadtree", "size", "crop", "pad", "fit", "weighting", "train_position")


def convert(
    model: nn.Module,
    processor: Processor | None = None,
    *,
    position: Position | str | Path | None = None,
    quadtree: Quadtree = DEFAULT_QUADTREE,
    size: int | Literal["model"] | None = "model",
    crop: Crop = "units",
    pad: Pad | None = None,
    fit: Fit = "prune",
    weighting: Weighting | None = None,
    train_position: bool = False,
    **tree: Any,
) -> Any:
    """Give a model images of any size, with as many tokens as each deserves.

    A whole model, such as a LLaVA, a CLIPModel or a classifier, is converted in place and returned: it works as before, on what the
    converted processor makes. A tower stays as it was; a `QlipVisionModel` that shares its weights is returned. Nothing is copied.

    Args:
        model: A whole model of a class in `qlip.families.FAMILIES`, or a tower of a class in `qlip.towers.base.TOWERS`.
        processor: The model's own, left as it is. A tower's comes back as a `QlipImageProcessor`.
        position: Where tokens are: a position; ``"solve"``, ``"bicubic"``, ``"bilinear"``, ``"nearest"`` or ``"zero"``,
            made from the model's own table; or anything `qlip.load` takes. If not given, a tower that rotates, or resizes its
            table to every picture, places leaves itself; for any other it is ``"solve"``.
        quadtree: Chooses the tokens; its patch size is the model's. If neither it nor ``alpha`` nor ``max_tokens`` is given, a
            picture may take as many as the stock model spends at its own size; where that is the picture's, ``alpha`` decides.
        size: Shortest edge of images in pixels, None for their native size; ``"model"`` is the size that the model was made
            for. A call of the processor may override this, the next three, and ``tree``.
        crop: ``"units"`` scales images to whole units, ``"patch"`` trims them, ``"square"`` cuts their middle, see
            `QlipImageProcessor`.
        pad: ``"square"`` puts images in the middle of a square first.
        fit: How a picture keeps to ``max_tokens``: ``"prune"`` suits a few small things on quiet ground, ``"scale"`` suits text.
        weighting: How a leaf counts in the tower's attention: ``"once"``, or by its ``"area"``, in patches. If not given,
            ``"area"`` where one vector stands for a whole picture (CLIPModel, SiglipModel, classifiers), else ``"once"``.
        train_position: Give the position gradients, among the model's parameters; else it is frozen.
        tree: ``alpha``, ``max_tokens``, ``criterion``, ``cover`` or ``score``, in place of the quadtree's.

    Returns:
        The model, or model and processor if a processor was given.

    Raises:
        TypeError: if model or processor are of another kind.
        ValueError: if the model is converted already, or an option does not fit; OSError if no position is found.
    """
    family = FAMILIES.get(type(model))
    _check_original(model, known=family is not None)
    facts = family or Converted  # a bare tower has the facts of a family without peculiarities
    unit, table = facts.unit_of(model), facts.table_of(model)
    quadtree = _tree(quadtree, unit * facts.patch_size_of(model), facts.stock_tokens(model, processor), tree)
    settings = None
    if processor is not None:
        shortest = facts.size_of(model) if isinstance(size, str) and size == "model" else size
        settings = QlipImageProcessor(shortest, crop, quadtree, pad=pad, unit=unit, fit=fit, **_preparation(processor))
    new_processor = family.convert_processor(model, processor, settings) if family and settings else settings
    resolved = _position(facts.default_position(model) if position is None else position, table)
    chosen = facts.check_weighting(model, weighting or (family.weighting if family else "once"))
    converted = (family.attach if family else _encoder)(model, resolved, chosen, train_position)
    return converted if processor is None else (converted, new_processor)


def restore(model: nn.Module | Converted) -> PreTrainedModel:
    """Undo `convert`: the original model, bit for bit.

    Args:
        model: What `convert` returned. A whole model is switched back in place; for a tower, which was never changed, it is
            the tower.

    Raises:
        TypeError: if the model is not converted.
    """
    if isinstance(model, Converted):
        return model.detach()
    if isinstance(model, QlipVisionModel) and "original" in model.__dict__:
        return model.__dict__["original"]
    raise TypeError(f"model: got {type(model).__qualname__}; takes what qlip.convert returned")


def from_pretrained(source: str | Path, **options: Any) -> tuple[Any, Any]:
    """Load a converted model and its processor, as both were saved by ``save_pretrained``.

    Args:
        source: Folder or Hub id; or ``"pocket-llava"`` or ``"pocket-qwen"``, which come with the package and are converted with
            the defaults of `convert`.
        options: Options of transformers for the model, such as ``dtype`` and ``device_map``; those about the Hub
            (``revision``, ``token``, ...) are for the processor too.

    Returns:
        Model and processor, as `convert` returns them.

    Raises:
        OSError: if there is no such folder or repository, or the model in it is stock; the message then says how to convert
            it.
        ValueError: if weights, position or settings are damaged or missing.
    """
    folder = shipped(str(source))
    hub = {name: options[name] for name in HUB_OPTIONS if name in options}
    config = read_config(folder, "source", **hub)
    name = (config.architectures or ["?"])[0]
    family = next((family for kind, family in FAMILIES.items() if kind.__name__ == name), None)
    if family and is_shipped(str(source)):
        return convert(family.original.from_pretrained(folder, **options), AutoProcessor.from_pretrained(folder))
    if family:
        model = family.from_pretrained(folder, **options)
        processor = family.processor_class.from_pretrained(folder, **hub)
        if isinstance(processor, PromptProcessor):
            processor.context = context_of(model)
        return model, processor
    weighting = saved_weighting(config)
    position = find_position(folder, hub, missing=weighting is not None)
    settings = QlipImageProcessor.read(find_file(folder, PROCESSOR_FILE, hub))
    tower, _ = load_whole(getattr(transformers, name), folder, "source", **options)
    saved_weighting(tower.config)
    return convert(tower, position=position, quadtree=settings.quadtree, weighting=weighting), settings


def _encoder(model: nn.Module, position: Position | None, weighting: Weighting, train: bool) -> QlipVisionModel:
    """A tower as an encoder, which knows where it came from."""
    prepare_training(position, train)
    projection = getattr(model, "visual_projection", None)
    converted = QlipVisionModel(find_tower(model).module, position, projection, weighting)
    converted.__dict__["original"] = model  # beside the module tree, or its weights would be listed twice
    return converted


def _check_original(model: nn.Module, known: bool) -> None:
    """Raise unless ``model`` is of a known family, or a known tower, or one with a projection on top and nothing else."""
    if isinstance(model, Converted | QlipVisionModel):
        raise ValueError(
            f"model: got a {type(model).__qualname__}, which is converted already; qlip.restore(model) gives back the "
            f"original, to be converted anew"
        )
    bare = type(model).__name__.removesuffix("WithProjection") in TOWERS
    if not known and (not bare or not type(model).__module__.startswith("transformers.")):
        known_names = sorted({kind.__name__ for kind in FAMILIES} | set(TOWERS))
        raise TypeError(
            f"model: got {type(model).__qualname__}; takes a {', '.join(known_names[:-1])} or {known_names[-1]}, itself and no "
            f"subclass. Convert before wrapping (PEFT, DistributedDataParallel, torch.compile)"
        )


def _tree(quadtree: Quadtree, patch_size: int, stock_tokens: int | None, options: dict[str, Any]) -> Quadtree:
    """The quadtree with the model's patch size and the options of a call; within the stock model's tokens if nothing is said."""
    if quadtree is DEFAULT_QUADTREE and not {"alpha", "max_tokens"}.intersection(options):
        options = {"max_tokens": stock_tokens, **options}
    check_names("convert", options, ("alpha", "max_tokens", "criterion", "cover", "score", *_ARGUMENTS))
    if not isinstance(quadtree, Quadtree):
        raise TypeError(f"quadtree: got {shown(quadtree)}; takes a Quadtree; convert(..., alpha=0.3) sets a threshold")
    if quadtree.patch_size not in (DEFAULT_QUADTREE.patch_size, patch_size):
        raise ValueError(
            f"quadtree: got patch_size={quadtree.patch_size}; this model's tokens have {patch_size} pixels. Leave patch_size "
            f"out, or pass quadtree=Quadtree(patch_size={patch_size})"
        )
    return replace(quadtree, patch_size=patch_size, **options)


def _position(position: Position | str | Path | None, table: Tensor | None) -> Position | None:
    """The position that is meant, or None where the tower places leaves itself."""
    if position is None:
        return None
    if table is None:
        raise ValueError(
            f"position: got {shown(position)}; this tower rotates, by the centre of each leaf, and takes no position. Leave it out"
        )
    return resolve_position(position, table)


def _preparation(processor: Processor) -> dict[str, Any]:
    """Mean and standard deviation of the channels that the model was trained with, and the filter that scaled its pictures."""
    if isinstance(processor, ConvertedProcessor | LeafImageProcessor | QlipImageProcessor):
        raise ValueError(
            f"processor: got a {type(processor).__qualname__}, which is converted already; pass the original one"
        )
    images = getattr(processor, "image_processor", processor)
    if not isinstance(images, BaseImageProcessor):
        raise TypeError(f"processor: got {type(processor).__name__}; takes the model's own processor")
    mean, std = (tuple(getattr(images, name)) for name in ("image_mean", "image_std"))
    resample = getattr(images, "resample", None)  # PIL's number, or what torchvision calls it
    return {"mean": mean, "std": std, "resample": FILTERS.get(getattr(resample, "value", resample), "bicubic")}
