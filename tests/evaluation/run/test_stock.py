"""Budgets of stock processors: through the option of each family, and never more tokens than asked for."""

from collections.abc import Callable

import pytest
import transformers
from transformers import ProcessorMixin

from qlip.evaluation.run.stock import StockProcessor
from tests.families.row import PLACEHOLDER, tokenizer

SIZES = [(640, 480), (1000, 300), (120, 90), (700, 1400)]


def qwen3() -> ProcessorMixin:
    words = tokenizer("<image>", "<video>", "<start>", "<end>", image_token="<image>", video_token="<video>")
    images = transformers.Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 65536, "longest_edge": 16777216})
    return transformers.Qwen3VLProcessor(images, words, transformers.Qwen3VLVideoProcessor())


def glm() -> ProcessorMixin:
    words = tokenizer("<image>", "<video>", image_token="<image>", video_token="<video>")
    return transformers.Glm4vProcessor(transformers.Glm4vImageProcessor(), words, transformers.Glm4vVideoProcessor())


def pixtral() -> ProcessorMixin:
    words = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    images = transformers.PixtralImageProcessor(patch_size={"height": 14, "width": 14}, size={"longest_edge": 1540})
    return transformers.PixtralProcessor(images, words, patch_size=14, spatial_merge_size=2)


def smolvlm() -> ProcessorMixin:
    words = tokenizer("<image>", "<fake_token_around_image>", "<end_of_utterance>")
    images = transformers.Idefics3ImageProcessor(size={"longest_edge": 1456}, max_image_size={"longest_edge": 364})
    return transformers.Idefics3Processor(images, words, image_seq_len=25)


def gemma4() -> ProcessorMixin:
    names = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    hearing = {"audio_token": "<audio>", "boa_token": "<boa>", "eoa_token": "<eoa>"}
    words = tokenizer(*names.values(), *hearing.values(), **names, **hearing)
    ears = transformers.Gemma4AudioFeatureExtractor()
    videos = transformers.Gemma4VideoProcessor()
    return transformers.Gemma4Processor(ears, transformers.Gemma4ImageProcessor(), words, videos)


PROCESSORS: dict[str, Callable[[], ProcessorMixin]] = {
    "Qwen3-VL": qwen3, "GLM-4V": glm, "Pixtral": pixtral, "Idefics3": smolvlm, "Gemma 4": gemma4,
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_budget_holds_and_is_used(name: str) -> None:
    processor = PROCESSORS[name]()
    stock = StockProcessor(processor, PLACEHOLDER)
    used = []
    for width, height in SIZES:
        own = stock.tokens(width, height)
        for budget in (75, 150):
            options = stock.within(budget, (width, height))
            count = stock._count(width, height, options)
            assert count <= budget
            assert (count == own) == (own <= budget)
            used.append(count / min(budget, own))
    assert min(used) > (0.3 if name == "Idefics3" else 0.7)  # its tiles are 25 tokens each


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_budget_holds_for_each_of_several_pictures(name: str) -> None:
    stock = StockProcessor(PROCESSORS[name](), PLACEHOLDER)
    options = stock.within(75, *SIZES)
    counts = [stock._count(*size, options) for size in SIZES]
    assert max(counts) <= 75
    assert options in [stock.within(75, size) for size in SIZES]  # that of the one that needs most


def test_a_budget_below_one_tile_is_refused() -> None:
    stock = StockProcessor(smolvlm(), PLACEHOLDER)
    with pytest.raises(
        ValueError, match="max_tokens: got 9, fewer than the stock model takes for a picture of 1000 x 300"
    ):
        stock.within(9, (1000, 300))
    assert not stock.scales(9, (1000, 300))


def test_whether_pictures_are_scaled_down_at_all() -> None:
    stock = StockProcessor(qwen3(), PLACEHOLDER)
    assert stock.scales(75, (1000, 800))
    assert not stock.scales(10_000, (1000, 800))
    assert not stock.scales(75)
    one_size = StockProcessor(
        transformers.LlavaProcessor(transformers.CLIPImageProcessor(), tokenizer("<image>"), 14), PLACEHOLDER
    )
    assert not one_size.scales(75, (1000, 800))
