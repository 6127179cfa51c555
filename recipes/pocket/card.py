"""Model cards of the pocket models: the README.md in each of their folders."""

from collections.abc import Mapping
from dataclasses import asdict

from huggingface_hub import ModelCardData

from recipes.pocket.run import Schedule

_CLIP = """A CLIP of 1.5 million parameters for 112 pixel images (patches of 14, 8 x 8 grid), trained on drawn scenes and captions of
them. A stand-in with which methods that change CLIP's input can be tried in minutes on a laptop. It knows shapes and colours, over drawn
backgrounds, textures and photographs, and nothing else.

```python
import qlip
clip, processor = qlip.from_pretrained("pocket-clip", dtype="float32")    # converted: takes images of any size
tower = qlip.load_clip("pocket-clip")                                      # its vision side, as it was trained
```

The whole stock model, from its folder:

```python
from transformers import CLIPModel, CLIPProcessor
from qlip.shipped import shipped
clip = CLIPModel.from_pretrained(shipped("pocket-clip"), dtype="float32")
processor = CLIPProcessor.from_pretrained(shipped("pocket-clip"))
```
"""

_LLAVA = """A LLaVA of 2 million parameters over pocket-clip's vision tower: it reads the last layer but one, as LLaVA-1.5 does, and answers
questions about the colour, the place and the presence of shapes, over drawn backgrounds, textures and photographs. It has only ever
seen 112 pixel images.

```python
import qlip
model, processor = qlip.from_pretrained("pocket-llava", dtype="float32")    # converted: takes images of any size
```

The stock model, from its folder:

```python
from transformers import AutoProcessor, LlavaForConditionalGeneration
from qlip.shipped import shipped
model = LlavaForConditionalGeneration.from_pretrained(shipped("pocket-llava"), dtype="float32")
processor = AutoProcessor.from_pretrained(shipped("pocket-llava"))
```
"""

_QWEN = """A Qwen2-VL of 2 million parameters: a tower that rotates, a merger of 2 x 2 patches, M-RoPE. It answers questions about the
colour, the place and the presence of shapes, over drawn backgrounds, textures and photographs, and was trained on scenes of 112 to 672
pixels. A token is 28 x 28 pixels, and pictures keep their size.

```python
import qlip
model, processor = qlip.from_pretrained("pocket-qwen", dtype="float32")    # converted: as many tokens as a picture deserves
```

The stock model, from its folder:

```python
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
from qlip.shipped import shipped
model = Qwen2VLForConditionalGeneration.from_pretrained(shipped("pocket-qwen"), dtype="float32")
processor = AutoProcessor.from_pretrained(shipped("pocket-qwen"))
```
"""


def clip_card(metrics: Mapping[str, float], seed: int, schedule: Schedule) -> str:
    """Write the card of pocket-clip."""
    task = "zero-shot-image-classification"
    return _card("pocket-clip", task, "clip", _CLIP, "112 px scenes", metrics, _pair(seed, schedule), schedule)


def llava_card(metrics: Mapping[str, float], seed: int, schedule: Schedule) -> str:
    """Write the card of pocket-llava."""
    task = "image-text-to-text"
    return _card("pocket-llava", task, "clip", _LLAVA, "112 px scenes", metrics, _pair(seed, schedule), schedule)


def qwen_card(metrics: Mapping[str, float], seed: int, schedule: Schedule) -> str:
    """Write the card of pocket-qwen."""
    task, command = "image-text-to-text", f"train-qwen --seed {seed} --schedule.texture={schedule.texture:g}"
    return _card("pocket-qwen", task, "qwen2-vl", _QWEN, "scenes", metrics, command, schedule)


def _pair(seed: int, schedule: Schedule) -> str:
    """The command that trains pocket-clip and pocket-llava."""
    return f"train --seed {seed} --clip.texture={schedule.texture:g} --reader.texture={schedule.texture:g}"


def _card(
    name: str,
    task: str,
    kind: str,
    text: str,
    scenes: str,
    metrics: Mapping[str, float],
    command: str,
    schedule: Schedule,
) -> str:
    data = ModelCardData(
        library_name="transformers", license="apache-2.0", pipeline_tag=task, tags=["qlip", kind, "synthetic"]
    )
    rows = "\n".join(f"| {measure} | {value:.3f} |" for measure, value in metrics.items())
    trained = ", ".join(f"{key} {value}" for key, value in asdict(schedule).items())
    return f"""---
{data.to_yaml()}
---

# {name}

{text}
| on fresh {scenes} | share right |
|---|---|
{rows}

Weights in float16. Trained by `python -m recipes.pocket {command}` ({trained}); qlip implements
[QLIP](https://arxiv.org/abs/2505.23004).
"""
