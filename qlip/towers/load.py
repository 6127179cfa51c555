"""Loading the vision side of a CLIP by name."""

from typing import Any

import torch
from transformers import AutoConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from qlip.shipped import shipped
from qlip.towers.synthetic import random_clip_from_name


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
    name = shipped(name)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"backbone: {name!r} is no folder of a model here and could not be downloaded: {reason}"
        ) from error
    if config.model_type not in ("clip", "clip_vision_model"):
        raise ValueError(f"backbone: got {name!r}, a {config.model_type!r} model; takes a CLIP (model type 'clip')")
    projected = config.model_type == "clip" or "CLIPVisionModelWithProjection" in (config.architectures or [])
    kind = _ProjectedVisionSide if projected else CLIPVisionModel
    if config.model_type == "clip":  # a whole CLIP says the width of its projection once, for both sides
        config.vision_config.projection_dim = config.projection_dim
        config = config.vision_config
    loaded: Any = kind.from_pretrained(
        name, config=config, revision=revision or "main", dtype=torch.float32, output_loading_info=True
    )
    clip, report = loaded
    if report["missing_keys"]:  # transformers only warns, and makes them up
        raise ValueError(f"backbone: {name!r} lacks the weights {', '.join(sorted(report['missing_keys']))}")
    if projected:
        clip.__class__ = CLIPVisionModelWithProjection
    return clip


class _ProjectedVisionSide(CLIPVisionModelWithProjection):
    """The vision side of a whole CLIP while it is loaded: prints no page about the text side that it leaves out."""

    _keys_to_ignore_on_load_unexpected = [r"^text_model\.", r"^text_projection\.", r"^logit_scale$"]  # noqa: RUF012
