"""Loading a vision tower by name, a CLIP's or any other that is known."""

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from qlip.core.rules import shown
from qlip.shipped import shipped
from qlip.towers.base import TOWERS
from qlip.towers.hub import NO_CODE, read_config
from qlip.towers.synthetic import random_clip_from_name

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
CLIPS = ("clip", "clip_vision_model")


def load_clip(name: str, revision: str | None = None) -> CLIPVisionModel | CLIPVisionModelWithProjection:
    """Load the vision side of a Hugging Face CLIP, by Hub id or from a local folder, with its projection if it has one.

    ``random:<width>x<layers>`` builds one with random weights, see `qlip.towers.synthetic`; ``pocket-clip`` comes with
    the package, see `qlip.shipped`. The weights are float32, whatever they are stored as.

    Raises:
        OSError: if it cannot be found.
        ValueError: if it is no CLIP, or some of its weights are missing.
    """
    if name.startswith("random:"):
        return random_clip_from_name(name)
    config = _config(name, revision)
    if config.model_type not in CLIPS:
        raise ValueError(
            f"backbone: got {shown(name)}, a {config.model_type!r} model; takes a CLIP (model type 'clip')"
        )
    projected = config.model_type == "clip" or "CLIPVisionModelWithProjection" in (config.architectures or [])
    kind = _ProjectedVisionSide if projected else CLIPVisionModel
    if config.model_type == "clip":  # a whole CLIP says the width of its projection once, for both sides
        config.vision_config.projection_dim = config.projection_dim
        config = config.vision_config
    clip = _load(kind, name, config, revision)
    if projected:
        clip.__class__ = CLIPVisionModelWithProjection
    return clip


def load_tower(name: str, revision: str | None = None) -> PreTrainedModel:
    """Load a vision tower with a table of positions, by Hub id or from a local folder; CLIPs as `load_clip` does.

    Takes a tower of a class in `qlip.towers.base.TOWERS`, a classifier built on one, or a whole SigLIP. The weights are float32.

    Raises:
        OSError: if it cannot be found.
        ValueError: if there is no such tower in it, or some of its weights are missing.
    """
    if name.startswith("random:"):
        return random_clip_from_name(name)
    config = _config(name, revision)
    if config.model_type in CLIPS:
        return load_clip(name, revision)
    kinds = {
        getattr(transformers, host).config_class: getattr(transformers, host)
        for host in TOWERS
        if hasattr(transformers, host)
    }
    own = next((each for each in (config, getattr(config, "vision_config", None)) if type(each) in kinds), None)
    if own is None:
        known = sorted({kind.model_type for kind in kinds})
        raise ValueError(f"backbone: got {shown(name)}, a {config.model_type!r} model; takes one of {', '.join(known)}")
    return _load(kinds[type(own)], name, own, revision)


def image_statistics(name: str, revision: str | None = None) -> Statistics:
    """Mean and standard deviation of the channels that a tower was trained with, each 3 numbers for values in [0, 1].

    Read from the image processor beside the weights; a CLIP may come without one.

    Raises:
        ValueError: if there is none, and the tower is no CLIP.
    """
    clip = name.startswith("random:") or _config(name, revision).model_type in CLIPS
    try:
        images = (
            None
            if name.startswith("random:")
            else AutoImageProcessor.from_pretrained(shipped(name), revision=revision, **NO_CODE)
        )
    except (OSError, ValueError) as error:
        if not clip:
            raise ValueError(
                f"backbone: {name!r} has no preprocessor_config.json, which says the mean and deviation of its pictures; save the "
                f"model's image processor there"
            ) from error
        images = None
    if images is None:
        return tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD)
    return tuple(images.image_mean), tuple(images.image_std)


def _config(name: str, revision: str | None) -> PretrainedConfig:
    return read_config(shipped(name), "backbone", revision=revision)


def load_whole(kind: Any, source: str, what: str, *args: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model of transformers with all its weights, and transformers' report on their loading.

    Args:
        kind: The class that has ``from_pretrained``.
        source: Hub id or folder.
        what: Name of the argument that the source comes from, for errors.
        args: Arguments of transformers.
        options: Options of transformers.

    Raises:
        ValueError: if weights are missing, which transformers makes up with a warning, or are not finite.
    """
    model, report = kind.from_pretrained(source, *args, **options, output_loading_info=True)
    broken = [name for name, weight in model.named_parameters() if not _is_finite(weight)]
    for problem, names in (
        ("lacks the weights", report["missing_keys"]),
        ("has values that are not finite in", broken),
    ):
        if names:
            listed = ", ".join(sorted(names)[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
            raise ValueError(f"{what}: {source!r} {problem} {listed}; fetch or save it again")
    return model, report


def _is_finite(weight: Tensor) -> bool:
    """Whether all values are finite, or cannot be seen: quantised, or not in memory."""
    if weight.is_meta or not weight.numel() or weight.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return True
    return all(bool(extreme.isfinite()) for extreme in weight.detach().aminmax())  # NaN is an extreme; needs no memory


def _load(kind: Any, name: str, config: PretrainedConfig, revision: str | None) -> Any:
    """A tower of a class, in float32."""
    options = {"config": config, "revision": revision or "main", "dtype": torch.float32}
    return load_whole(kind, shipped(name), "backbone", **options)[0]


class _ProjectedVisionSide(CLIPVisionModelWithProjection):
    """The vision side of a whole CLIP while it is loaded: prints no page about the text side that it leaves out."""

    _keys_to_ignore_on_load_unexpected = [r"^text_model\.", r"^text_projection\.", r"^logit_scale$"]  # noqa: RUF012
