"""The two arms of every comparison, loaded the same way: a stock LLaVA, or the same one converted."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import torch
from torch import Tensor
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedConfig

from qlip.conversion import convert, restore
from qlip.core.quadtree import Quadtree
from qlip.evaluation.cell import Vision
from qlip.evaluation.names import Dtype, Style
from qlip.families.base import Converted
from qlip.images.pixels import Pair
from qlip.images.read import ImageLike, check_size, pad_to_square, to_rgb
from qlip.shipped import shipped
from qlip.zoo.position_file import saved_position

Pixels = Tensor | list[Pair]  # (B, 3, n, n) of a stock model, a pair for each image of a converted one

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


@dataclass(frozen=True)
class PreparedQuestion:
    """One question, ready for the model.

    Attributes:
        input_ids: Tokens of the prompt, ``(L,)``.
        pixel_values: A tensor ``(1, 3, n, n)``, or a list with one pair.
        tokens: Number of image tokens in the prompt.
    """

    input_ids: Tensor
    pixel_values: Pixels
    tokens: int


class ModelInputs(TypedDict):
    """What ``generate`` takes for ``B`` questions: tokens and mask ``(B, L)``, and the images of all."""

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Pixels


class Arm:
    """A model and all that turns a question into its input.

    Args:
        model: A LLaVA, converted or not.
        processor: The processor that goes with it.
        vision: How it sees.
    """

    def __init__(self, model: LlavaForConditionalGeneration, processor: LlavaProcessor, vision: Vision) -> None:
        self.model, self.processor, self.vision = model, processor, vision
        config = _vision_config(model)
        self.baseline_tokens = (config.image_size // config.patch_size) ** 2
        self.pad_id = processor.tokenizer.pad_token_id

    def prepare(self, image: ImageLike, text: str, seed: int) -> PreparedQuestion:
        """Picture and text ``<image>`` included; ``seed`` decides what a random criterion draws."""
        picture = to_rgb(image)
        if self.vision.baseline == "pad":
            picture = pad_to_square(picture, tuple(self.processor.image_processor.image_mean))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inputs = self.processor(images=[picture], text=[text], return_tensors="pt")
        ids = inputs["input_ids"][0]
        return PreparedQuestion(ids, inputs["pixel_values"], int((ids == self.model.config.image_token_id).sum()))

    def cost(self, width: int, height: int) -> int:
        """The most image tokens that a picture can take, from its size alone; what batches are sorted by.

        Zero for a picture that cannot be shown; preparing it will say why.
        """
        if self.vision.baseline:
            return self.baseline_tokens
        try:
            check_size(width, height)
            h, w = self.processor.image_processor.settings.grid(height, width)
        except ValueError:
            return 0
        return min(h * w, self.vision.max_tokens or h * w)

    def collate(self, items: Sequence[PreparedQuestion]) -> ModelInputs:
        """Pad on the left, images side by side: what ``generate`` takes."""
        longest = max(len(item.input_ids) for item in items)
        ids = torch.full((len(items), longest), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, item in enumerate(items):
            ids[i, longest - len(item.input_ids) :] = item.input_ids
            mask[i, longest - len(item.input_ids) :] = 1
        tensors = [item.pixel_values for item in items if isinstance(item.pixel_values, Tensor)]
        pairs = [pair for item in items if not isinstance(item.pixel_values, Tensor) for pair in item.pixel_values]
        pixels = torch.cat(tensors) if tensors else pairs
        return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}

    def encode(self, text: str) -> Tensor:
        """Tokens of a continuation, ``(L,)``, without special ones."""
        return torch.tensor(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)

    def decode(self, tokens: Tensor) -> list[str]:
        """Texts of generated tokens ``(B, L)``."""
        return [text.strip() for text in self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


@lru_cache(maxsize=1)  # the cells of a sweep share the model, which takes minutes to read
def _load(source: str, revision: str | None, dtype: Dtype) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    revision = revision or "main"
    model = LlavaForConditionalGeneration.from_pretrained(source, revision=revision, dtype=getattr(torch, dtype))
    return model.eval(), AutoProcessor.from_pretrained(source, revision=revision)


def load_arm(source: str, vision: Vision, revision: str | None = None, dtype: Dtype = "float32") -> Arm:
    """Load a model once, and convert it or put it back as the arm demands.

    Args:
        source: Hub id or folder of a LLaVA, converted before or not, or ``pocket-llava``.
        vision: How the arm sees.
        revision: Commit, branch or tag of a Hub id; the newest commit if not given.
        dtype: Number format that the weights are loaded in.

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
    patch = _vision_config(model).patch_size
    tree = Quadtree(vision.alpha, vision.criterion, vision.max_tokens, patch, vision.cover)
    position = vision.position or saved_position(source) or "solve"
    model, processor = convert(model, processor, position=position, quadtree=tree, size=vision.size, crop=vision.crop)
    return Arm(model, processor, vision)


def _vision_config(model: LlavaForConditionalGeneration) -> PreTrainedConfig:
    config = model.config.vision_config
    assert isinstance(config, PreTrainedConfig), "a loaded model has its configuration parsed"
    return config
