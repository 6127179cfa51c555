"""Every family against its own class of transformers, one row each: adding a family is adding a row."""

from typing import Any

import pytest
import torch
from PIL.Image import Image
from transformers import ProcessorMixin

import qlip
from qlip import Quadtree
from qlip.families import FAMILIES
from qlip.families.base import ConvertedGenerative
from qlip.images.pixels import to_pairs
from tests.families.rows import PLACEHOLDER, ROWS, Row
from tests.families.tiny_llava import scene
from tests.shaken import shake


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
    native = [[scene(row.side, row.side, seed) for seed in seeds] for seeds in row.native]
    prompts = [prompts[len(seeds) - 1] for seeds in row.native]
    stock = inputs_of(processor, native, prompts, **dict(row.plain))
    expected, words = model(**stock).logits, answer(model, stock)
    converted, new = qlip.convert(model, processor, position="bicubic", criterion="uniform")
    inputs = inputs_of(new, native, prompts)
    assert inputs.keys() == stock.keys() - row.left_out
    for name in inputs.keys() - {"pixel_values"}:
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
    within = new.image_processor.count_tokens(pictures)  # without the tokens that each image has besides
    assert all(0 <= 50 - count <= row.slack for count in within)
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
    *others, (patches, leaves) = to_pairs(inputs["pixel_values"])
    moved = torch.cat([leaves[:, :2].flip(0), leaves[:, 2:]], dim=1)
    after = converted(**{**inputs, "pixel_values": [*others, (patches, moved)]}).logits
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
    assert (
        new.budget(prompts[1], context=length + 10, max_new_tokens=10)
        == sum(new.image_processor.count_tokens(pictures[1:])) // 2
    )


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
