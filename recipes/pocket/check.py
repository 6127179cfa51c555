"""What the pocket models can do at the size they were trained for, on scenes that training never drew."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random

import torch
from PIL import Image
from torch import Generator
from transformers import CLIPModel, LlavaForConditionalGeneration

from qlip.data.backgrounds import TEST, cut_backgrounds
from qlip.data.language import (
    ASK_WORD,
    IMAGE_ID,
    NEGATIVES,
    absent,
    ask_colour,
    ask_height,
    ask_presence,
    ask_side,
    caption,
    make_tokenizer,
    things,
)
from qlip.data.scenes import Scenes, draw_scenes
from qlip.images.read import read_image
from recipes.pocket.models import GRID, IMAGE_SIZE, normalise

SEED = 30_000  # far from the seeds of training and of the benchmarks
BATCH = 100


def check_clip(clip: CLIPModel, count: int = 500) -> dict[str, float]:
    """Measure the share of scenes whose own caption is the closest of 100, over drawn backgrounds and over photographs."""
    return _over_each(lambda batches: _retrieval(clip.eval(), batches), count)


def check_llava(llava: LlavaForConditionalGeneration, count: int = 500) -> dict[str, float]:
    """Measure the share of right answers to each kind of question, over drawn backgrounds and over photographs.

    Every scene is asked one question of each kind; an answer is one word.
    """
    return _over_each(lambda batches: _answers(llava.eval(), batches), count)


def _over_each(measure: Callable[[list[Scenes]], dict[str, float]], count: int) -> dict[str, float]:
    """Measure on ``count`` scenes over drawn backgrounds, and on as many over photographs that training never saw."""
    photographs = [read_image(file) for file in TEST]
    drawn, photo = measure(_batches(count)), measure(_batches(count, photographs))
    return drawn | {f"{name}, over photographs": value for name, value in photo.items()}


@torch.no_grad()
def _retrieval(clip: CLIPModel, batches: list[Scenes]) -> dict[str, float]:
    tokenizer, hits = make_tokenizer("<s> $A </s>"), 0
    for number, scenes in enumerate(batches):
        texts = [caption(things(scenes, i), Random(number)) for i in range(len(scenes))]
        inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        logits = clip(pixel_values=normalise(scenes.images), **inputs).logits_per_image
        hits += int((logits.argmax(1) == torch.arange(len(logits))).sum())
    return {f"retrieval of 1 in {BATCH}": hits / sum(map(len, batches))}


@torch.no_grad()
def _answers(llava: LlavaForConditionalGeneration, batches: list[Scenes]) -> dict[str, float]:
    tokenizer, random = make_tokenizer("<s> $A"), Random(SEED)
    right: dict[str, int] = defaultdict(int)
    for scenes in batches:
        asked: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for i in range(len(scenes)):
            scene = things(scenes, i)
            thing = random.choice(scene)
            for name, choice in {
                "colour": ask_colour(thing, scene, random), "side": ask_side(thing), "height": ask_height(thing),
            }.items():  # fmt: skip
                asked[name].append((choice.worded(random), choice.options[0]))
            there = random.random() < 0.5
            pair = (thing.colour, thing.shape) if there else absent(scene, random.choice(NEGATIVES), random)
            asked["presence"].append((f"{ask_presence(*pair)}\n{ASK_WORD}", "yes" if there else "no"))
        features = llava.get_image_features(normalise(scenes.images)).pooler_output
        image = "<image>" * GRID * GRID
        for name, pairs in asked.items():
            prompts = [f"USER: {image}\n{question} ASSISTANT:" for question, _ in pairs]
            inputs = tokenizer(
                prompts, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False
            )
            embeds = llava.get_input_embeddings()(inputs["input_ids"])
            embeds[inputs["input_ids"] == IMAGE_ID] = torch.cat(list(features))
            logits = llava(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], logits_to_keep=1).logits[
                :, -1
            ]
            wanted = torch.tensor([tokenizer.convert_tokens_to_ids(answer) for _, answer in pairs])
            right[name] += int((logits.argmax(-1) == wanted).sum())
    count = sum(map(len, batches))
    return {name: hits / count for name, hits in right.items()}


def _batches(count: int, photographs: Sequence[Image.Image] = ()) -> list[Scenes]:
    generator, random = Generator().manual_seed(SEED), Random(f"background {SEED}")
    behind = BATCH if photographs else 0
    return [
        draw_scenes(
            BATCH,
            IMAGE_SIZE,
            IMAGE_SIZE,
            generator,
            backgrounds=cut_backgrounds(photographs, behind, IMAGE_SIZE, IMAGE_SIZE, random),
        )
        for _ in range(count // BATCH)
    ]
