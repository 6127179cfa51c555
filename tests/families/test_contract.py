"""Every family against its own class of transformers, one row each: adding a family is adding a row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from PIL.Image import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    SiglipImageProcessor,
)

import qlip
from qlip import Quadtree
from qlip.families import FAMILIES
from qlip.families.base import ConvertedGenerative
from tests.families.tiny_llava import scene
from tests.shaken import shake

PLACEHOLDER, VOCABULARY, PATCH = 90, 128, 14
TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
WORDS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA = {**WORDS, "head_dim": 16}


@dataclass(frozen=True)
class Row:
    """A family to try.

    Attributes:
        make: Builds a model with few weights, whose placeholder is token 90.
        processor: Builds its stock processor.
        grid: Patches along the side of the pictures it was made for.
        unit: Patches along the side of what its language model sees as one token.
        mark: Stands for an image in a prompt.
        plain: Options with which the stock processor makes one picture of an image.
        embeddings: Scale of the embeddings of words, which Gemma multiplies by the root of their width.
    """

    make: Callable[[], PreTrainedModel]
    processor: Callable[[], ProcessorMixin]
    grid: int
    unit: int = 1
    mark: str = "<image>"
    plain: tuple[tuple[str, object], ...] = ()
    embeddings: float = 1.0

    @property
    def pixels(self) -> int:
        """Side of a unit."""
        return self.unit * PATCH

    @property
    def side(self) -> int:
        """Side of the pictures it was made for."""
        return self.grid * PATCH


def siglip(grid: int, **options: object) -> dict[str, object]:
    size = {"image_size": grid * PATCH, "patch_size": PATCH, "vision_use_head": False}
    return {**TOWER, **size, "model_type": "siglip_vision_model", **options}


def tokenizer(*special: str, **names: str) -> PreTrainedTokenizerFast:
    """A word a token; the first of the special ones is the placeholder."""
    words = ["<pad>", "<s>", "</s>", "<unk>", "what", "is", "there", "left", "or", "right", "\n"]
    words += [f"word{i}" for i in range(len(words), PLACEHOLDER)]
    model = WordLevel({word: i for i, word in enumerate([*words, *special])}, unk_token="<unk>")
    fast = Tokenizer(model)
    fast.pre_tokenizer = WhitespaceSplit()
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    made = PreTrainedTokenizerFast(tokenizer_object=fast, **ends, extra_special_tokens=names)
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def llava() -> LlavaForConditionalGeneration:
    """Over SigLIP, which has no class token: so "full" is the strategy."""
    config = LlavaConfig(
        vision_config=siglip(12),
        text_config={**WORDS, "model_type": "llama"},
        image_token_index=PLACEHOLDER,
        vision_feature_select_strategy="full",
    )
    return LlavaForConditionalGeneration(config)


def llava_processor() -> LlavaProcessor:
    images, words = SiglipImageProcessor(size=square(12 * PATCH)), tokenizer("<image>")
    options = {"vision_feature_select_strategy": "full", "num_additional_image_tokens": 0}
    return LlavaProcessor(images, words, patch_size=PATCH, **options)


def paligemma(words: dict[str, object]) -> PaliGemmaForConditionalGeneration:
    tower = siglip(12, projection_dim=64)
    config = PaliGemmaConfig(
        vision_config=tower, text_config={**GEMMA, **words}, image_token_index=PLACEHOLDER, projection_dim=64
    )
    return PaliGemmaForConditionalGeneration(config)


def paligemma_processor() -> PaliGemmaProcessor:
    images = SiglipImageProcessor(size=square(12 * PATCH), image_seq_length=144)
    return PaliGemmaProcessor(images, tokenizer("<image>", image_token="<image>"))


def gemma3() -> Gemma3ForConditionalGeneration:
    words = {**GEMMA, "model_type": "gemma3_text", "sliding_window": 64}
    config = Gemma3Config(
        vision_config=siglip(24), text_config=words, image_token_index=PLACEHOLDER, mm_tokens_per_image=36
    )
    return Gemma3ForConditionalGeneration(config)


def gemma3_processor() -> Gemma3Processor:
    names = {"image_token": "<image_soft_token>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    images = Gemma3ImageProcessor(size=square(24 * PATCH), do_pan_and_scan=False)
    return Gemma3Processor(images, tokenizer(*names.values(), **names), image_seq_length=36)


def internvl(layer: int = -1) -> InternVLForConditionalGeneration:
    tower = {**TOWER, "image_size": [12 * PATCH] * 2, "patch_size": [PATCH] * 2}
    config = InternVLConfig(
        vision_config=tower,
        text_config={**WORDS, "model_type": "qwen2"},
        image_token_id=PLACEHOLDER,
        downsample_ratio=0.5,
        vision_feature_layer=layer,
    )
    return InternVLForConditionalGeneration(config)


def internvl_processor() -> InternVLProcessor:
    names = {"context_image_token": "<IMG_CONTEXT>", "start_image_token": "<img>", "end_image_token": "</img>"}
    words = tokenizer(*names.values(), "<video>", **names, video_token="<video>")
    images = GotOcr2ImageProcessor(size=square(12 * PATCH))
    return InternVLProcessor(images, words, InternVLVideoProcessor(), image_seq_length=36)


ROWS = {
    "llava over siglip": Row(llava, llava_processor, 12),
    "paligemma": Row(lambda: paligemma({"model_type": "gemma"}), paligemma_processor, 12, embeddings=0.2),
    "paligemma2": Row(
        lambda: paligemma({"model_type": "gemma2", "sliding_window": 64}), paligemma_processor, 12, embeddings=0.2
    ),
    "gemma3": Row(gemma3, gemma3_processor, 24, unit=4, mark="<boi>", embeddings=0.2),
    "internvl": Row(internvl, internvl_processor, 12, 2, "<IMG_CONTEXT>", (("crop_to_patches", False),)),
    "internvl layer -2": Row(
        lambda: internvl(-2), internvl_processor, 12, 2, "<IMG_CONTEXT>", (("crop_to_patches", False),)
    ),
}


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


@pytest.fixture
def model(row: Row) -> Any:
    """A stock model whose answers have a fixed length: random weights would stop anywhere."""
    model = shake(row.make())
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(row.embeddings)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    model.generation_config.suppress_tokens = [PLACEHOLDER]
    return model


@pytest.fixture
def processor(row: Row) -> ProcessorMixin:
    return row.processor()


@pytest.fixture
def prompts(row: Row) -> list[str]:
    return [f"{row.mark} what is there", f"{row.mark} {row.mark} left or right"]


@pytest.fixture
def pictures(row: Row) -> list[Image]:
    """Three pictures of 81, 84 and 96 units."""
    sizes = ((9, 9), (7, 12), (12, 8))
    return [scene(w * row.pixels, h * row.pixels, seed) for seed, (w, h) in enumerate(sizes)]


def answer(model: Any, inputs: Any, **mode: object) -> list[list[int]]:
    """New tokens, none of them twice: random weights with tied embeddings would say one word over and over."""
    output = model.generate(**inputs, max_new_tokens=6, do_sample=False, no_repeat_ngram_size=1, **mode)
    return output[:, inputs["input_ids"].shape[1] :].tolist()


def inputs_of(processor: Any, images: list[list[Image]], text: list[str], **options: object) -> Any:
    return processor(images=images, text=text, return_tensors="pt", padding=True, padding_side="left", **options)


@torch.no_grad()
def test_uniform_leaves_at_the_native_size_are_the_stock_model(row, model, processor, prompts):
    native = [[scene(row.side, row.side, seed) for seed in seeds] for seeds in ((3,), (4, 5))]
    stock = inputs_of(processor, native, prompts, **dict(row.plain))
    expected, words = model(**stock).logits, answer(model, stock)
    converted, new = qlip.convert(model, processor, position="bicubic", criterion="uniform")
    inputs = inputs_of(new, native, prompts)
    assert inputs.keys() == stock.keys()
    for name in stock.keys() - {"pixel_values"}:
        assert torch.equal(inputs[name], stock[name]), name
    seen = inputs["attention_mask"].bool()
    deviation = (converted(**inputs).logits - expected)[seen].abs().max()
    assert deviation < 1e-5 * expected[seen].abs().max()
    assert answer(converted, inputs) == words


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_a_ragged_batch_answers_as_its_prompts_alone_within_the_budget(row, model, processor, prompts, pictures, beams):
    tree = Quadtree(max_tokens=50, cover="full")
    converted, new = qlip.convert(model, processor, position="bicubic", quadtree=tree, size=None)
    images = [pictures[:1], pictures[1:]]
    batch = inputs_of(new, images, prompts)
    counts = new.count_tokens(pictures)
    assert all(0 <= 50 - count <= 2 for count in counts)
    assert (batch["input_ids"] == PLACEHOLDER).sum(1).tolist() == [counts[0], counts[1] + counts[2]]
    alone = [inputs_of(new, [own], [text]) for own, text in zip(images, prompts, strict=True)]
    for logits, single in zip(converted(**batch).logits, alone, strict=True):
        own = converted(**single).logits[0]
        assert (logits[-len(own) :] - own).abs().max() < 1e-5 * own.abs().max()
    expected = [answer(converted, single, num_beams=beams)[0] for single in alone]
    assert answer(converted, batch, num_beams=beams) == expected
    assert expected[0] != expected[1]


@torch.no_grad()
def test_leaves_told_to_stand_elsewhere_are_seen_otherwise(model, processor, prompts, pictures):
    converted, new = qlip.convert(model, processor, position="bicubic", max_tokens=50, size=None)
    inputs = inputs_of(new, [pictures[:1]], prompts[:1])
    before = converted(**inputs).logits
    ((patches, leaves),) = inputs["pixel_values"]
    moved = torch.cat([leaves[:, :2].flip(0), leaves[:, 2:]], dim=1)
    after = converted(**{**inputs, "pixel_values": [(patches, moved)]}).logits
    assert (after - before).abs().max() > 0.01 * before.abs().max()


@torch.no_grad()
def test_it_is_saved_loaded_and_restored(row, model, processor, prompts, pictures, tmp_path):
    native = [[scene(row.side, row.side, 3)]]
    stock = inputs_of(processor, native, prompts[:1], **dict(row.plain))
    expected = model(**stock).logits
    converted, new = qlip.convert(model, processor, position="bicubic", max_tokens=50, size=None)
    model.generation_config.eos_token_id = 2  # transformers saves no None
    for each in (converted, new):
        each.save_pretrained(tmp_path)
    loaded, other = qlip.from_pretrained(tmp_path)
    ours, theirs = (inputs_of(each, [pictures[1:]], prompts[1:]) for each in (new, other))
    assert torch.equal(loaded(**theirs).logits, converted(**ours).logits)
    again = inputs_of(type(processor).from_pretrained(tmp_path), native, prompts[:1], **dict(row.plain))
    assert torch.equal(qlip.restore(converted)(**again).logits, expected)


def test_a_budget_leaves_room_for_what_stands_around_an_image(model, processor, prompts, pictures):
    _, new = qlip.convert(model, processor, position="zero", size=None, criterion="uniform")
    length = inputs_of(new, [pictures[1:]], prompts[1:])["input_ids"].shape[1]
    assert new.budget(prompts[1], context=length + 10, max_new_tokens=10) == (84 + 96) // 2


def test_a_prompt_that_was_cut_inside_an_image_is_refused(model, processor, prompts, pictures):
    _, new = qlip.convert(model, processor, position="zero", size=None)
    with pytest.raises(ValueError, match=r"cut at max_length=12"):
        new(images=[pictures[:1]], text=prompts[:1], max_length=12, truncation=True)


@torch.no_grad()
def test_paligemmas_suffix_becomes_labels():
    row = ROWS["paligemma"]
    model, processor = row.make(), row.processor()
    converted, new = qlip.convert(model, processor, position="zero", criterion="uniform")
    stock, ours = (
        inputs_of(each, [[scene(row.side, row.side, 1)]], ["<image> what is there"], suffix=["left right"])
        for each in (processor, new)
    )
    assert torch.equal(ours["labels"], stock["labels"])
    assert converted(**ours).loss > 0


def test_videos_are_refused():
    row = ROWS["internvl"]
    _, new = qlip.convert(row.make(), row.processor(), position="zero")
    with pytest.raises(ValueError, match=r"videos: got some; a converted InternVL takes images alone"):
        new(videos=[torch.zeros(4, 3, 28, 28, dtype=torch.uint8)], text=["<video> what is there"])


def test_every_family_that_answers_has_a_row():
    answering = {kind: family for kind, family in FAMILIES.items() if issubclass(family, ConvertedGenerative)}
    rotating = {kind for kind, family in answering.items() if family.__module__ == "qlip.families.qwen"}  # test_qwen.py
    assert {type(row.make()) for row in ROWS.values()} == answering.keys() - rotating
