"""What a stock processor spends on a picture, and how it is told to spend no more than a budget."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from transformers.image_processing_utils import get_size_dict

Options = Mapping[str, object]
SOFT_TOKENS = (70, 140, 280, 560, 1120)  # what Gemma 4 was trained with, and all that it takes


class StockProcessor:
    """A family's own processor, asked for counts of tokens.

    A count hangs on the size of a picture alone, and is read off the tokens that the processor writes, so that it is
    right for every family; it is kept, because many pictures of a benchmark share their size.

    Args:
        processor: The processor of transformers.
        placeholder_id: Token that stands for a feature of an image.
    """

    def __init__(self, processor: Any, placeholder_id: int) -> None:
        self.processor = processor
        lined = hasattr(processor, "image_break_token_id")  # Pixtral ends every line, and so pays for them
        self.token_ids = torch.tensor(processor.image_token_ids if lined else [placeholder_id])
        self._counts: dict[tuple[int, int], int] = {}
        self._options: dict[tuple[int, frozenset[tuple[int, int]]], Options] = {}

    def count(self, input_ids: Any) -> int:
        """Image tokens of a prompt, ``(L,)``."""
        return int(torch.isin(torch.as_tensor(input_ids), self.token_ids).sum())

    def tokens(self, width: int, height: int) -> int:
        """Image tokens of a picture of ``width x height`` pixels, at the processor's own settings."""
        if (width, height) not in self._counts:
            self._counts[width, height] = self._count(width, height, {})
        return self._counts[width, height]

    def within(self, budget: int, *sizes: tuple[int, int]) -> Options:
        """Options of the image processor with which pictures take at most ``budget`` tokens each: they are scaled down.

        Args:
            budget: Tokens of a picture.
            sizes: Width and height of each.

        Raises:
            ValueError: if pictures have one size for this model, or the budget is too small for one of these.
        """
        key = (budget, frozenset(sizes))
        if key not in self._options:
            self._options[key] = self._within(*key)
        return self._options[key]

    def scales(self, budget: int, *sizes: tuple[int, int]) -> bool:
        """Whether pictures can be scaled down to at most ``budget`` tokens each, and some have to be."""
        try:
            return any([self.within(budget, size) for size in sizes])
        except ValueError:
            return False

    def _within(self, budget: int, sizes: frozenset[tuple[int, int]]) -> Options:
        if all(self.tokens(*size) <= budget for size in sizes):
            return {}
        ladder = _ladder(self.processor.image_processor, budget)
        if not ladder:
            raise ValueError(
                f"max_tokens: got {budget} for the stock model, whose {type(self.processor).__name__} has no option that "
                f"bounds the tokens of a picture; leave it out"
            )
        fitting = bisect_right(ladder, budget, key=lambda options: max(self._count(*size, options) for size in sizes))
        if not fitting:
            pixels = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
            raise ValueError(
                f"max_tokens: got {budget}, fewer than the stock model takes for a picture of {pixels} pixels"
            )
        return ladder[fitting - 1]

    def _count(self, width: int, height: int, options: Options) -> int:
        blank = Image.new("RGB", (width, height))
        inputs = self.processor(images=[blank], text=[self.processor.image_token], images_kwargs=dict(options))
        return self.count(inputs["input_ids"][0])


def _ladder(images: Any, budget: int) -> list[Options]:
    """Settings of an image processor, from few tokens to many, the largest its own; empty if it has one size alone."""
    size = dict(images.size) if images.size else {}
    if hasattr(images, "max_soft_tokens"):  # Gemma 4
        return [{"max_soft_tokens": count} for count in SOFT_TOKENS if count <= images.max_soft_tokens]
    if hasattr(images, "merge_size") and size.get("shortest_edge") and size.get("longest_edge"):
        # Qwen-VL: both "edges" are areas in pixels; GLM-4V's count the frames of a film that stands still
        frames = images.temporal_patch_size if type(images).__name__.startswith("Glm") else 1
        token = (images.patch_size * images.merge_size) ** 2 * frames
        lows = sorted({min(size["shortest_edge"], count * token) for count in range(1, budget + 1)})  # small ones grow
        return [{"size": {"shortest_edge": low, "longest_edge": budget * token}} for low in lows]
    if [name for name, value in size.items() if value] == ["longest_edge"]:  # of the picture, in pixels
        patched = hasattr(images, "patch_size")  # Pixtral; Idefics 3 and SmolVLM cut tiles
        step = get_size_dict(images.patch_size)["height"] if patched else images.max_image_size["longest_edge"]
        return [{"size": {"longest_edge": edge}} for edge in range(step, size["longest_edge"] + 1, step)]
    return []
