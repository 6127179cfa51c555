"""A row of the contract at work: its stock model and processor, prompts with one image, two and none, and pictures for them."""

import copy
from functools import cache
from typing import Any

import torch
from PIL.Image import Image
from transformers import PreTrainedModel

import qlip
from tests.families.row import PLACEHOLDER, VOCABULARY
from tests.families.rows import ROWS
from tests.families.tiny_llava import scene
from tests.shaken import shake

Grouped = list[list[Image]]


@cache
def stock_model(name: str) -> PreTrainedModel:
    """A stock model whose answers have a fixed length: random weights would stop anywhere."""
    row = ROWS[name]
    model = shake(row.make())
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(row.embeddings)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    model.generation_config.suppress_tokens = [0, *range(PLACEHOLDER, VOCABULARY)]  # padding counts as said before
    return model


class Case:
    """A row with a model of its own, which a test may change.

    Attributes:
        prompts: With one image, with two, and without any.
        natives: Pictures for them that the stock processor leaves as they are.
        pictures: Pictures for them of other shapes: 81, 84 and 96 units.
    """

    def __init__(self, name: str) -> None:
        self.row = row = ROWS[name]
        self.model: Any = copy.deepcopy(stock_model(name))
        self.processor: Any = row.processor()
        self.prompts = [f"{row.mark} what is there", f"{row.mark} {row.mark} left or right", "what is left"]
        self.natives = grouped([scene(*size, seed) for seed, size in enumerate(row.native, start=3)])
        sizes = ((9, 9), (7, 12), (12, 8))
        self.pictures = grouped([scene(w * row.pixels, h * row.pixels, seed) for seed, (w, h) in enumerate(sizes)])

    def stock_inputs(self, which: slice = slice(None)) -> Any:
        """What the stock processor makes of the native pictures, for the chosen prompts."""
        return self.inputs(self.processor, self.natives, which, **dict(self.row.plain))

    def inputs(self, processor: Any, images: Grouped, which: slice = slice(None), **options: object) -> Any:
        """What a processor makes of the chosen prompts with their images."""
        return inputs_of(processor, images[which], self.prompts[which], **options)

    def alone(self, processor: Any, images: Grouped) -> list[Any]:
        """Each of the prompts with its images; without the one that has none if the family cannot take it alone."""
        count = len(self.prompts) - ("words alone" in self.row.lacks)
        return [self.inputs(processor, images, slice(i, i + 1)) for i in range(count)]

    def convert(self, **options: object) -> Any:
        """The converted model and processor."""
        return qlip.convert(self.model, self.processor, position=self.row.position, **options)


def grouped(pictures: list[Image]) -> Grouped:
    """Those of each prompt."""
    return [pictures[:1], pictures[1:], []]


def inputs_of(processor: Any, images: Grouped, text: list[str], **options: object) -> Any:
    """Prompts and images, padded on the left."""
    given = images if any(images) else None
    return processor(images=given, text=text, return_tensors="pt", padding=True, padding_side="left", **options)


def answer(model: Any, inputs: Any, **mode: object) -> list[list[int]]:
    """New tokens, none of them twice: random weights with tied embeddings would say one word over and over."""
    output = model.generate(**inputs, max_new_tokens=6, do_sample=False, no_repeat_ngram_size=1, **mode)
    return output[:, inputs["input_ids"].shape[1] :].tolist()


def deviation(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest, in parts of the largest value."""
    return ((got - expected).abs().max() / expected.abs().max()).item()
