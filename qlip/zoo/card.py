"""Model cards: what the Hub shows about an entry, generated from its configuration."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from qlip.zoo.config import ZooConfig
from qlip.zoo.registry import is_hub_id

PAPER = "https://arxiv.org/abs/2505.23004"
_METRICS = {
    "R": "mean absolute difference from CLIP's table, on its grid",
    "R2": "mean squared difference from CLIP's table, on its grid",
    "offgrid": "relative rms difference from bicubic interpolation, between the grid's points",
    "l_cls": "difference of [CLS] from CLIP's own on validation images, as trained on",
}
_COSINE = re.compile(r"cos_cls_(\d+)")


def model_card(config: ZooConfig, name: str) -> str:
    """The ``README.md`` of an entry: Hub metadata, what it is, how to use it, its metrics.

    Args:
        config: What the entry says about itself.
        name: What `qlip.load` takes to load it: its name in the zoo, or its Hub id.
    """
    config = without_paths(config)
    results = _eval_results(config)
    data = ModelCardData(
        library_name="qlip",
        license="apache-2.0",
        base_model=config.backbone if is_hub_id(config.backbone) else None,
        pipeline_tag="image-feature-extraction",
        tags=["qlip", "clip", "positional-encoding", "arxiv:2505.23004"],
        model_name=name.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    rows = "\n".join(f"| {key} | {value:.3g} | {_meaning(key)} |" for key, value in config.metrics.items())
    revision = f", revision={config.backbone_revision!r}" if config.backbone_revision else ""
    quadtree = "" if config.patch_size == 14 else f", quadtree=qlip.Quadtree(patch_size={config.patch_size})"
    return f"""---
{data.to_yaml()}
---

# {name}

Positional encodings for `{config.backbone}` at any image size and for patches of any size: the coordinate MLP of
[QLIP]({PAPER}), {config.depth} layers of {config.hidden}, for a {config.grid} x {config.grid} grid of width {config.dim}.
These weights are the MLP alone; CLIP's own come from where they always did and are not changed.

```python
import qlip
clip = qlip.load_clip({config.backbone!r}{revision})
model = qlip.convert(clip, position=qlip.load({name!r}){quadtree})
```

`qlip.convert` does the same to a LLaVA with this tower.

| metric | value | meaning |
|---|---|---|
{rows}

{_origin(config)} Written by qlip {config.qlip_version}.
"""


def without_paths(config: ZooConfig) -> ZooConfig:
    """The same with the last part alone of every absolute path: where things lie on a disk is nobody else's business."""
    training = {name: _last_part(value) for name, value in config.training.items()}
    return replace(config, backbone=_last_part(config.backbone), training=training)


def _last_part(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _eval_results(config: ZooConfig) -> list[EvalResult]:
    """The cosines; the Hub's model index wants a data set for each number, and R has none."""
    return [
        EvalResult(
            task_type="image-feature-extraction",
            dataset_type="imagefolder",
            dataset_name="validation images",
            metric_type="cosine_similarity",
            metric_name=f"cos [CLS], {match[1]} px",
            metric_value=value,
        )
        for key, value in config.metrics.items()
        if (match := _COSINE.fullmatch(key))
    ]


def _meaning(metric: str) -> str:
    if match := _COSINE.fullmatch(metric):
        return f"cosine between [CLS] at {match[1]} px and CLIP's own at its native size"
    return _METRICS.get(metric, "")


def _origin(config: ZooConfig) -> str:
    if not config.training:
        return "Solved from CLIP's own table, not trained."
    return f"Training: {', '.join(f'{key} {value}' for key, value in config.training.items())}."
