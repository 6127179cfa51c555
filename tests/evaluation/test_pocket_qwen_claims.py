"""What the shipped Qwen shows: on its own grid the converted model is the stock one, and small objects are seen with few tokens."""

from random import Random

import pytest
import torch

import qlip
from qlip.data.language import ask_colour
from qlip.data.pictures import small_objects
from qlip.evaluation.cell import Vision
from qlip.evaluation.run.arm import load_arm

SCENES, TOKENS = 64, 64


@pytest.fixture(scope="module")
def questions():
    random = Random(0)
    asked = []
    for picture, scene in small_objects(SCENES, seed=50_000):
        choice = ask_colour(random.choice(scene), scene, random)
        asked.append((picture, choice.worded(random), choice.options[0]))
    return asked


@torch.no_grad()
def right(vision, questions):
    arm = load_arm("pocket-qwen", vision)
    found = []
    for start in range(0, len(questions), 16):
        part = questions[start : start + 16]
        items = [arm.prepare(picture, arm.prompt(text, "llava"), seed=0) for picture, text, _ in part]
        assert max(item.tokens for item in items) <= TOKENS
        said = arm.generate(arm.collate(items), max_new_tokens=1)
        found += [word == answer for word, (_, _, answer) in zip(said, part, strict=True)]
    return torch.tensor(found).double()


def test_small_objects_are_seen_with_a_quadtree_and_not_in_a_picture_scaled_down(questions):
    stock = right(Vision(baseline="own", max_tokens=TOKENS), questions)
    cut = right(Vision(size=None, max_tokens=TOKENS), questions)
    error = ((cut.var() + stock.var()) / SCENES).sqrt()
    assert cut.mean() - stock.mean() > 3 * error
    assert cut.mean() > 0.6, "chance is a quarter"


@torch.no_grad()
def test_on_its_own_grid_the_converted_model_is_the_stock_model(questions):
    picture, text, _ = questions[0]
    logits = []
    for vision in (Vision(baseline="own"), Vision(size=None, criterion="uniform")):
        arm = load_arm("pocket-qwen", vision)
        item = arm.prepare(picture, arm.prompt(text, "llava"), seed=0)
        logits.append(arm.model(**arm.to(item.inputs, "cpu"), logits_to_keep=1).logits)
    torch.testing.assert_close(logits[1], logits[0], atol=2e-3, rtol=0)
    assert logits[0].std() > 1


def test_it_comes_converted(questions):
    model, processor = qlip.from_pretrained("pocket-qwen", dtype=torch.float32)
    picture, text, _ = questions[0]
    content = [{"type": "image"}, {"type": "text", "text": text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[picture], text=[prompt], return_tensors="pt")
    said = model.generate(**inputs, max_new_tokens=2, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert processor.tokenizer.eos_token_id in said.tolist()
