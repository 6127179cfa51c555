"""The one verb: give a model images of any size, and take it back."""

from pathlib import Path
from typing import Any

from transformers import (
    CLIPModel,
    CLIPProcessor,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.image_processing_utils import BaseImageProcessor

from qlip.core.position import Position
from qlip.core.quadtree import Quadtree
from qlip.encoder import QlipVisionModel
from qlip.families.base import Converted
from qlip.families.clip import QlipCLIPModel
from qlip.families.llava import QlipLlavaForConditionalGeneration
from qlip.families.processor import ConvertedProcessor, QlipCLIPProcessor, QlipLlavaProcessor
from qlip.images.processor import Crop, Pad, QlipImageProcessor
from qlip.towers.load import position_table
from qlip.zoo.resolve import resolve_position

DEFAULT_QUADTREE = Quadtree()
WHOLE: dict[type, type[Converted]] = {
    LlavaForConditionalGeneration: QlipLlavaForConditionalGeneration,
    CLIPModel: QlipCLIPModel,
}
TAKES = "a LlavaForConditionalGeneration, CLIPModel, CLIPVisionModel or CLIPVisionModelWithProjection"


def convert(
    model: Any,
    processor: Any = None,
    *,
    position: Position | str | Path | None = "solve",
    quadtree: Quadtree = DEFAULT_QUADTREE,
    size: int | None = 336,
    crop: Crop = "patch",
    pad: Pad | None = None,
) -> Any:
    """Give a model images of any size, with as many tokens as each deserves.

    A LLaVA or a CLIPModel is converted in place and returned: it works as before, on what the converted processor makes.
    A CLIP tower stays as it was, and a `QlipVisionModel` that shares its weights is returned. Nothing is copied.

    Args:
        model: A LlavaForConditionalGeneration (with a CLIP tower), CLIPModel, CLIPVisionModel or
            CLIPVisionModelWithProjection.
        processor: The model's own, left as it is. A tower's comes back as a `QlipImageProcessor`.
        position: Where tokens are: a position; ``"solve"``, ``"bicubic"``, ``"bilinear"``, ``"nearest"`` or ``"zero"``,
            made from the model's own table; or anything `qlip.load` takes.
        quadtree: Chooses the tokens.
        size: Shortest edge of images in pixels, None for their native size. A call of the processor may override this
            and the next two, and the quadtree's ``alpha`` and ``max_tokens``.
        crop: ``"patch"`` keeps the aspect of images, ``"square"`` cuts their middle; see `QlipImageProcessor`.
        pad: ``"square"`` puts images in the middle of a square first.

    Returns:
        The model, or model and processor if a processor was given.

    Raises:
        TypeError: if model, processor or position are of another kind.
        ValueError: if the model is converted already, or position or quadtree do not fit its tower.
        OSError: if a position is sought by name and not found.
    """
    if isinstance(model, Converted | QlipVisionModel):
        raise ValueError(
            f"model: got a {type(model).__qualname__}, which is converted already; qlip.restore(model) gives back the "
            f"original, to be converted anew"
        )
    clip = _clip_of(model)
    _check_patch_size(clip, quadtree)
    new_processor = None
    if processor is not None:
        settings = QlipImageProcessor(size, crop, quadtree, *_statistics(processor), pad)
        new_processor = _convert_processor(model, processor, settings)
    resolved = resolve_position(position, position_table(clip))
    converted: Any
    if type(model) in WHOLE:
        converted = WHOLE[type(model)].attach(model, resolved)
    else:
        converted = QlipVisionModel.from_clip(model, resolved)
        converted.__dict__["original"] = model  # beside the module tree, or its weights would be listed twice
    return converted if processor is None else (converted, new_processor)


def restore(model: Any) -> Any:
    """Undo `convert`: the original model, bit for bit.

    Args:
        model: What `convert` returned. A LLaVA or CLIPModel is switched back in place; for a tower, which was never
            changed, it is the tower.

    Raises:
        TypeError: if the model is not converted.
    """
    if isinstance(model, Converted):
        return model.detach()
    if isinstance(model, QlipVisionModel) and "original" in model.__dict__:
        return model.__dict__["original"]
    raise TypeError(f"model: got {type(model).__qualname__}; takes what qlip.convert returned")


def _clip_of(model: Any) -> Any:
    """The CLIP inside a model, checked."""
    if type(model) is LlavaForConditionalGeneration:
        tower = model.model.vision_tower
        if not isinstance(tower, CLIPVisionModel):
            raise TypeError(f"model: got a LLaVA with a {type(tower).__name__}; takes one with a CLIPVisionModel")
        return tower
    if type(model) not in (CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection):
        raise TypeError(
            f"model: got {type(model).__qualname__}; takes {TAKES}, itself and no subclass. Convert before wrapping "
            f"(PEFT, DataParallel, torch.compile)"
        )
    return model


def _check_patch_size(clip: Any, quadtree: Quadtree) -> None:
    config = getattr(clip.config, "vision_config", clip.config)
    if quadtree.patch_size != config.patch_size:
        raise ValueError(
            f"quadtree: got patch_size={quadtree.patch_size}; this tower's patches have {config.patch_size} pixels. Pass "
            f"quadtree=Quadtree(patch_size={config.patch_size})"
        )


def _statistics(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels that the model was trained with."""
    if isinstance(processor, ConvertedProcessor | QlipImageProcessor):
        raise ValueError(
            f"processor: got a {type(processor).__qualname__}, which is converted already; pass the original one"
        )
    images = getattr(processor, "image_processor", processor)
    if not isinstance(images, BaseImageProcessor):
        raise TypeError(f"processor: got {type(processor).__name__}; takes the model's own processor")
    mean, std = (tuple(getattr(images, name)) for name in ("image_mean", "image_std"))
    return mean, std


def _convert_processor(model: Any, processor: Any, settings: QlipImageProcessor) -> Any:
    """A new processor of the kind that the model needs."""
    if isinstance(model, LlavaForConditionalGeneration):
        _check_processor(processor, LlavaProcessor, model)
        config: Any = model.config
        if processor.image_token_id != config.image_token_id:
            raise ValueError(
                f"processor: its placeholder {processor.image_token!r} is token {processor.image_token_id}, the model's is "
                f"{config.image_token_id}; pass the processor that belongs to the model"
            )
        return QlipLlavaProcessor.convert(
            processor,
            settings,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            image_token=processor.image_token,
            num_additional_image_tokens=1,  # CLIP's class token, which older processors forget to count
        )
    if isinstance(model, CLIPModel):
        _check_processor(processor, CLIPProcessor, model)
        return QlipCLIPProcessor.convert(processor, settings)
    return settings


def _check_processor(processor: Any, kind: type, model: Any) -> None:
    if not isinstance(processor, kind):
        raise TypeError(
            f"processor: got {type(processor).__name__}; a {type(model).__name__} takes a {kind.__name__} "
            f"(AutoProcessor.from_pretrained gives it)"
        )
