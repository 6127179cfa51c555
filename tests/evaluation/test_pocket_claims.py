"""What the shipped models show: the claims that hold with room to spare, on fixed seeds (docs/pocket.md has the numbers)."""

from random import Random

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

import qlip
from qlip.data.language import ask_colour, ask_height, ask_side
from qlip.data.pictures import small_objects
from qlip.shipped import SHA256, shipped
from qlip.towers.base import position_table

QUESTIONS = 96
PATCHES = {"uniform": qlip.Quadtree(criterion="uniform"), "cut": qlip.Quadtree(alpha=0.6)}


@pytest.fixture(scope="module")
def scenes():
    return list(small_objects(QUESTIONS, seed=50_000))


def stock():
    folder = shipped("pocket-llava")
    return LlavaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32
    ).eval(), AutoProcessor.from_pretrained(folder)


@torch.no_grad()
def answers(model, processor, questions):
    """Right or not, for pairs of picture and question with its answer; and the image tokens of each."""
    right, tokens = [], []
    image_token = model.config.image_token_id
    for start in range(0, len(questions), 16):
        part = questions[start : start + 16]
        texts = [f"USER: <image>\n{text} ASSISTANT:" for _, (text, _) in part]
        inputs = processor(
            images=[picture for picture, _ in part], text=texts, return_tensors="pt", padding=True, padding_side="left"
        )
        logits = model(**inputs, logits_to_keep=1).logits[:, -1]
        said = processor.tokenizer.convert_ids_to_tokens(logits.argmax(-1).tolist())
        right += [word == answer for word, (_, (_, answer)) in zip(said, part, strict=True)]
        tokens += (inputs["input_ids"] == image_token).sum(1).tolist()
    return torch.tensor(right).double(), torch.tensor(tokens).double()


def asked(choice, random):
    return choice.worded(random), choice.options[0]


def colours(scenes):
    random = Random(0)
    return [(picture, asked(ask_colour(random.choice(scene), scene, random), random)) for picture, scene in scenes]


def places(scenes):
    random = Random(0)
    kinds = (
        lambda scene: ask_side(max(scene, key=lambda t: abs(t.x - 0.5))),
        lambda scene: ask_height(max(scene, key=lambda t: abs(t.y - 0.5))),
    )
    return [(picture, asked(kinds[i % 2](scene), random)) for i, (picture, scene) in enumerate(scenes)]


def standard_error(right, other):
    return ((right.var() + other.var()) / len(right)).sqrt()


def converted(quadtree, size, position="solve"):
    return qlip.convert(*stock(), quadtree=quadtree, size=size, position=position)


def test_small_objects_are_seen_at_full_size_with_a_quadtree_and_not_in_the_crop(scenes):
    questions = colours(scenes)
    crop, _ = answers(*stock(), questions)
    cut, tokens = answers(*converted(qlip.Quadtree(alpha=0.6), None), questions)
    assert cut.mean() - crop.mean() > 2 * standard_error(cut, crop)
    assert tokens.mean() < 0.5 * 32 * 48  # of the whole grid


def test_more_is_seen_with_no_more_tokens_than_the_stock_model_takes(scenes):
    questions = colours(scenes)
    crop, stock_tokens = answers(*stock(), questions)
    cut, tokens = answers(*converted(qlip.Quadtree(max_tokens=64, cover="full"), 336), questions)
    assert cut.mean() - crop.mean() > 2 * standard_error(cut, crop)
    assert tokens.max() <= stock_tokens.min() == 64


def test_where_tokens_go_matters(scenes):
    questions = colours(scenes)
    cut, tokens = answers(*converted(qlip.Quadtree(max_tokens=160, cover="full"), None), questions)
    chance, as_many = answers(
        *converted(qlip.Quadtree(max_tokens=160, cover="full", criterion="random"), None), questions
    )
    assert cut.mean() - chance.mean() > 2 * standard_error(cut, chance)
    assert (tokens - as_many).abs().max() <= 2


def test_places_are_told_from_coordinates(scenes):
    questions = places(scenes)
    placed, _ = answers(*converted(qlip.Quadtree(alpha=0.6), 336), questions)
    blind, _ = answers(*converted(qlip.Quadtree(alpha=0.6), 336, "zero"), questions)
    assert placed.mean() - blind.mean() > 2 * standard_error(placed, blind)


def test_on_its_own_grid_the_converted_model_is_the_stock_model(scenes):
    """Token order, coordinates and patches: any of them off by one and the logits differ."""
    picture, (text, _) = colours(scenes)[0]
    prompt = f"USER: <image>\n{text} ASSISTANT:"
    logits = []
    for model, processor in (
        stock(),
        qlip.convert(*stock(), quadtree=qlip.Quadtree(criterion="uniform"), size=112, crop="square"),
    ):
        with torch.no_grad():
            logits.append(model(**processor(images=[picture], text=[prompt], return_tensors="pt")).logits)
    torch.testing.assert_close(logits[1], logits[0], atol=2e-2, rtol=0)
    assert logits[0].std() > 1


def test_shipped_weights_are_the_published_ones(monkeypatch):
    assert shipped("openai/clip") == "openai/clip"
    assert qlip.load("pocket-clip").residual(position_table(qlip.load_clip("pocket-clip")))[0] < 5e-7
    monkeypatch.setitem(SHA256, "pocket-clip", "0" * 64)
    with pytest.raises(ValueError, match=r"pocket-clip.*sha256"):
        shipped("pocket-clip")
