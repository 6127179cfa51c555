"""The two arms of every comparison, loaded the same way: a stock LLaVA, or the same one converted."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoProcessor, LlavaForConditionalGeneration

from qlip.conversion import convert, restore
from qlip.core.quadtree import Cover, Quadtree
from qlip.evaluation.benchmarks.base import Style
from qlip.families.base import Converted
from qlip.images.processor import Crop
from qlip.images.read import ImageLike, pad_to_square, to_rgb
from qlip.shipped import shipped
from qlip.zoo.position_file import saved_position

Baseline = Literal["crop", "pad"]
Dtype = Literal["float32", "bfloat16", "float16"]

_LLAVA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the user's questions. USER: <image>\n{} ASSISTANT:"
)
_VLMEVALKIT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the human's questions. USER:  <image> {} ASSISTANT: "
)
# Written out rather than rendered: chat templates leave the system sentence out, and one revision prints it twice.
CHATS: dict[Style, str] = {"llava": _LLAVA, "vlmevalkit": _VLMEVALKIT, "lmms": _LLAVA}


@dataclass(frozen=True, kw_only=True)
class Vision:
    """How an arm sees."""

    baseline: Baseline | None = None
    """The stock model: ``crop`` is Hugging Face's preprocessing, ``pad`` that of LLaVA's own repository."""
    position: str | None = None
    """As in `qlip.convert`; the position saved with the model if there is one, else ``solve``."""
    size: int | None = 336
    """Shortest edge in pixels, None for native."""
    crop: Crop = "patch"
    """``patch`` keeps the aspect, ``square`` cuts the middle."""
    alpha: float = 0.1
    """Split threshold."""
    max_tokens: int | None = None
    """Token budget, in place of alpha."""
    criterion: str = "derivative"
    """Split criterion."""
    cover: Cover = "roots"
    """``full`` lets the borders merge too; the paper leaves them whole."""
    seed: int = 0
    """Of the random criterion."""


@dataclass(frozen=True)
class Prepared:
    """One question, ready for the model.

    Attributes:
        input_ids: ``(L,)``.
        pixel_values: A tensor ``(1, 3, n, n)``, or a list with one pair.
        tokens: Image tokens in the prompt.
    """

    input_ids: Tensor
    pixel_values: Any
    tokens: int


class Arm:
    """A model and all that turns a question into its input.

    Args:
        model: A LLaVA, converted or not.
        processor: The one that goes with it.
        vision: How it sees.
    """

    def __init__(self, model: Any, processor: Any, vision: Vision) -> None:
        self.model, self.processor, self.vision = model, processor, vision
        config = model.config.vision_config
        self.baseline_tokens = (config.image_size // config.patch_size) ** 2
        self.context = int(model.config.text_config.max_position_embeddings)
        self.pad_id = processor.tokenizer.pad_token_id

    def prepare(self, image: ImageLike, text: str, seed: int) -> Prepared:
        """Picture and text ``<image>`` included; ``seed`` decides what a random criterion draws."""
        picture = to_rgb(image)
        if self.vision.baseline == "pad":
            picture = pad_to_square(picture, tuple(self.processor.image_processor.image_mean))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inputs = self.processor(images=[picture], text=[text], return_tensors="pt")
        ids = inputs["input_ids"][0]
        return Prepared(ids, inputs["pixel_values"], int((ids == self.model.config.image_token_id).sum()))

    def cost(self, width: int, height: int) -> int:
        """The most image tokens that a picture can take, from its size alone; what batches are sorted by."""
        if self.vision.baseline:
            return self.baseline_tokens
        h, w = self.processor.image_processor.settings.grid(height, width)
        return min(h * w, self.vision.max_tokens or h * w)

    def collate(self, items: Sequence[Prepared]) -> dict[str, Any]:
        """Pad on the left, images side by side: what ``generate`` takes."""
        longest = max(len(item.input_ids) for item in items)
        ids = torch.full((len(items), longest), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, item in enumerate(items):
            ids[row, longest - len(item.input_ids) :] = item.input_ids
            mask[row, longest - len(item.input_ids) :] = 1
        values = [item.pixel_values for item in items]
        pixels = torch.cat(values) if isinstance(values[0], Tensor) else [pair for value in values for pair in value]
        return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}

    def encode(self, text: str) -> Tensor:
        """Tokens of a continuation, ``(L,)``, without special ones."""
        return torch.tensor(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)

    def decode(self, tokens: Tensor) -> list[str]:
        """Texts of generated tokens ``(B, L)``."""
        return [text.strip() for text in self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


@lru_cache(maxsize=1)  # the cells of a sweep share the model, which takes minutes to read
def _load(source: str, revision: str | None, dtype: Dtype) -> tuple[Any, Any]:
    revision = revision or "main"
    model = LlavaForConditionalGeneration.from_pretrained(source, revision=revision, dtype=getattr(torch, dtype))
    return model.eval(), AutoProcessor.from_pretrained(source, revision=revision)


def load_arm(source: str, vision: Vision, revision: str | None = None, dtype: Dtype = "float32") -> Arm:
    """Load a model once, and convert it or put it back as the arm demands.

    Args:
        source: Hub id or folder of a LLaVA, converted before or not, or ``pocket-llava``.
        vision: How the arm sees.
        revision: Of a Hub id.
        dtype: Of the weights.

    Raises:
        OSError: if there is no such model.
        ValueError: if an option is not taken.
    """
    source = shipped(source)
    model, processor = _load(source, revision, dtype)
    if isinstance(model, Converted):
        restore(model)
    if vision.baseline:
        return Arm(model, processor, vision)
    patch = model.config.vision_config.patch_size
    tree = Quadtree(vision.alpha, vision.criterion, vision.max_tokens, patch, vision.cover)
    position = vision.position or saved_position(source) or "solve"
    model, processor = convert(model, processor, position=position, quadtree=tree, size=vision.size, crop=vision.crop)
    return Arm(model, processor, vision)
