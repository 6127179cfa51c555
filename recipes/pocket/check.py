"""What the pocket models can do at the size they were trained for, on scenes that training never drew."""

from collections import defaultdict
from random import Random

import torch
from torch import Generator
from transformers import CLIPModel, LlavaForConditionalGeneration

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
from recipes.pocket.models import GRID, IMAGE_SIZE, normalise

SEED = 30_000  # far from the seeds of training and of the benchmarks
BATCH = 100


@torch.no_grad()
def check_clip(clip: CLIPModel, count: int = 500) -> dict[str, float]:
    """Measure the share of scenes whose own caption is the closest of 100."""
    clip.eval()
    tokenizer, hits = make_tokenizer("<s> $A </s>"), 0
    for number, scenes in enumerate(_batches(count)):
        texts = [caption(things(scenes, i), Random(number)) for i in range(len(scenes))]
        inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        logits = clip(pixel_values=normalise(scenes.images), **inputs).logits_per_image
        hits += int((logits.argmax(1) == torch.arange(len(logits))).sum())
    return {f"retrieval of 1 in {BATCH}": hits / count}


@torch.no_grad()
def check_llava(llava: LlavaForConditionalGeneration, count: int = 500) -> dict[str, float]:
    """Measure the share of right answers to each kind of question.

    Every scene is asked one question of each kind; an answer is one word.
    """
    llava.eval()
    tokenizer, random = make_tokenizer("<s> $A"), Random(SEED)
    right: dict[str, int] = defaultdict(int)
    for scenes in _batches(count):
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
    return {name: hits / count for name, hits in right.items()}


def _batches(count: int) -> list[Scenes]:
    generator = Generator().manual_seed(SEED)
    return [draw_scenes(BATCH, IMAGE_SIZE, IMAGE_SIZE, generator) for _ in range(count // BATCH)]
