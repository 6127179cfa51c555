"""What the pocket models can do at the sizes they were trained for, on scenes that training never drew."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from random import Random

import torch
from PIL import Image
from torch import Generator, Tensor
from transformers import CLIPModel, LlavaForConditionalGeneration, Qwen2VLForConditionalGeneration

from qlip.data.backgrounds import TEST, cut_backgrounds
from qlip.data.language import (
    ASK_WORD,
    IMAGE,
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
from recipes.pocket.models import (
    GRID,
    IMAGE_SIZE,
    MERGE,
    PATCH_SIZE,
    normalise,
    qwen_tokenizer,
    to_qwen_patches,
)

SEED = 30_000  # far from the seeds of training and of the benchmarks
BATCH = 100
QWEN_SIZES = (112, 224, 336)
# Puts one question about each image ``(B, 3, n, n)``, and gives the likeliest first token of each answer ``(B,)``.
Ask = Callable[[Tensor, list[str]], Tensor]


def check_clip(clip: CLIPModel, count: int = 500) -> dict[str, float]:
    """Measure the share of scenes whose own caption is the closest of 100, over drawn backgrounds and over photographs."""
    return _over_each(lambda batches: _retrieval(clip.eval(), batches), count, IMAGE_SIZE)


def check_llava(llava: LlavaForConditionalGeneration, count: int = 500) -> dict[str, float]:
    """Measure the share of right answers to each kind of question, over drawn backgrounds and over photographs.

    Every scene is asked one question of each kind; an answer is one word. "colour in a window" is asked about larger scenes, of which
    only 112 pixels round the object are shown: what is left to be had if one looks at the right place.
    """
    ask = partial(_ask_llava, llava.eval())
    whole = _over_each(lambda batches: _answers(ask, batches), count, IMAGE_SIZE)
    return whole | _over_each(lambda batches: _colour_in_window(ask, batches), count, 3 * IMAGE_SIZE)


def check_qwen(qwen: Qwen2VLForConditionalGeneration, count: int = 500) -> dict[str, float]:
    """Measure the share of right answers to each kind of question at three sizes, over drawn backgrounds and over photographs."""
    ask = partial(_ask_qwen, qwen.eval())
    found: dict[str, float] = {}
    for edge in QWEN_SIZES:
        measured = _over_each(lambda batches: _answers(ask, batches), count, edge)
        found |= {f"{name}, {edge} px": value for name, value in measured.items()}
    return found


def _over_each(measure: Callable[[Iterable[Scenes]], dict[str, float]], count: int, edge: int) -> dict[str, float]:
    """Measure on ``count`` scenes over drawn backgrounds, and on as many over photographs that training never saw."""
    photographs = [read_image(file) for file in TEST]
    drawn, photo = (measure(_batches(count, edge, behind)) for behind in ([], photographs))
    return drawn | {f"{name}, over photographs": value for name, value in photo.items()}


@torch.no_grad()
def _retrieval(clip: CLIPModel, batches: Iterable[Scenes]) -> dict[str, float]:
    tokenizer, hits = make_tokenizer("<s> $A </s>"), []
    for number, scenes in enumerate(batches):
        texts = [caption(things(scenes, i), Random(number)) for i in range(len(scenes))]
        inputs = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        logits = clip(pixel_values=normalise(scenes.images), **inputs).logits_per_image
        hits.append(logits.argmax(1) == torch.arange(len(logits)))
    return {f"retrieval of 1 in {BATCH}": torch.cat(hits).float().mean().item()}


def _answers(ask: Ask, batches: Iterable[Scenes]) -> dict[str, float]:
    random, right = Random(SEED), defaultdict(list)
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
        for name, pairs in asked.items():
            right[name].append(_right(ask, scenes.images, pairs))
    return {name: torch.cat(answers).float().mean().item() for name, answers in right.items()}


def _colour_in_window(ask: Ask, batches: Iterable[Scenes]) -> dict[str, float]:
    random, right = Random(SEED), []
    for scenes in batches:
        windows, asked = [], []
        for i in range(len(scenes)):
            scene, edge = things(scenes, i), scenes.images.shape[-1]
            thing = random.choice(scene)
            y, x = (round(min(max(edge * at - IMAGE_SIZE / 2, 0), edge - IMAGE_SIZE)) for at in (thing.y, thing.x))
            windows.append(scenes.images[i, :, y : y + IMAGE_SIZE, x : x + IMAGE_SIZE])
            choice = ask_colour(thing, scene, random)
            asked.append((choice.worded(random), choice.options[0]))
        right.append(_right(ask, torch.stack(windows), asked))
    return {"colour in a window": torch.cat(right).float().mean().item()}


def _right(ask: Ask, images: Tensor, asked: list[tuple[str, str]]) -> Tensor:
    """Ask one question about each image, and tell which answers are right: ``(B,)`` bool."""
    tokenizer = make_tokenizer("$A")
    wanted = torch.tensor([tokenizer.convert_tokens_to_ids(answer) for _, answer in asked])
    return ask(images, [question for question, _ in asked]) == wanted


@torch.no_grad()
def _ask_llava(llava: LlavaForConditionalGeneration, images: Tensor, questions: list[str]) -> Tensor:
    tokenizer = make_tokenizer("<s> $A")
    features = llava.get_image_features(normalise(images)).pooler_output
    prompts = [f"USER: {IMAGE * GRID * GRID}\n{question} ASSISTANT:" for question in questions]
    inputs = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False)
    embeds = llava.get_input_embeddings()(inputs["input_ids"])
    embeds[inputs["input_ids"] == IMAGE_ID] = torch.cat(list(features))
    logits = llava(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], logits_to_keep=1).logits[:, -1]
    return logits.argmax(-1)


@torch.no_grad()
def _ask_qwen(qwen: Qwen2VLForConditionalGeneration, images: Tensor, questions: list[str]) -> Tensor:
    grid = [edge // PATCH_SIZE for edge in images.shape[-2:]]
    pads = "<|image_pad|>" * (grid[0] * grid[1] // MERGE**2)
    prompts = [
        f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
        for question in questions
    ]
    inputs = qwen_tokenizer()(
        prompts, padding=True, padding_side="left", return_tensors="pt", return_token_type_ids=False
    )
    logits = qwen(
        **inputs,
        pixel_values=to_qwen_patches(normalise(images)),
        image_grid_thw=torch.tensor([[1, *grid]]).expand(len(images), -1),
        mm_token_type_ids=(inputs["input_ids"] == qwen.config.image_token_id).int(),
        logits_to_keep=1,
    ).logits[:, -1]
    return logits.argmax(-1)


def _batches(count: int, edge: int, photographs: Sequence[Image.Image]) -> Iterator[Scenes]:
    """Draw square scenes, all of them over photographs if there are any."""
    generator, random = Generator().manual_seed(SEED), Random(f"background {SEED}")
    for _ in range(count // BATCH):
        backgrounds = cut_backgrounds(photographs, BATCH if photographs else 0, edge, edge, random)
        yield draw_scenes(BATCH, edge, edge, generator, backgrounds=backgrounds)
