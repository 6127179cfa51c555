"""Is a larger language model more sensitive to how it is shown a picture? Two widths of pocket-llava over one tower (open question 3).

python -m recipes.pocket train --out checkpoints/pocket-narrow --width 64 --reader.cycles='[700,500,500]'
python benchmarks/reader_sizes.py checkpoints/pocket-narrow/pocket-llava      ten minutes on one core, writes a section of docs/evidence.md

Both are asked about the same fresh scenes, first as they were trained, then larger, longer, and cut by a quadtree.
"""

from argparse import ArgumentParser
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from _report import table, write_section
from numpy.typing import NDArray
from torch import Generator
from transformers import AutoProcessor, LlavaForConditionalGeneration

import qlip
from qlip.data.backgrounds import TEST, cut_backgrounds
from qlip.data.language import ASK_WORD, NEGATIVES, absent, ask_colour, ask_height, ask_presence, ask_side, things
from qlip.data.scenes import Scenes, draw_scenes
from qlip.evaluation.statistics import estimate
from qlip.images.read import read_image
from qlip.shipped import shipped

SEED = 50_000  # far from the seeds of training, of the checks and of the benchmarks
SCENES = 200  # of each shape, half of them over photographs
AT_ONCE = 25
RESAMPLES = 2_000
WHOLE = {"criterion": "uniform", "alpha": 0.0}  # every patch, whatever the budget that comes with the model


@dataclass(frozen=True)
class View:
    """How scenes are shown: their height and width in pixels, and what the processor is told."""

    name: str
    height: int = 112
    width: int = 112
    options: dict[str, Any] = field(default_factory=lambda: dict(WHOLE))


TRAINED = View("112 x 112, as trained")
VIEWS = (
    TRAINED,
    *(View(f"{edge} x {edge}", edge, edge) for edge in (168, 224, 336)),
    *(View(f"112 x {width}", 112, width) for width in (168, 224, 336)),
    *(View(f"112 x 112, {budget} tokens", options={"max_tokens": budget}) for budget in (48, 32)),
    *(View(f"224 x 224, alpha {alpha}", 224, 224, {"alpha": alpha}) for alpha in (0.1, 0.6, 1.2)),
)


def load(folder: Path | str) -> tuple[Any, Any]:
    """A stock LLaVA in a folder, converted, and its processor."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return qlip.convert(model.eval(), AutoProcessor.from_pretrained(folder))


def scenes_of(height: int, width: int) -> Scenes:
    """Fresh scenes of one shape, the first half of them over photographs that training never saw."""
    generator, random = Generator().manual_seed(SEED), Random(SEED)
    backgrounds = cut_backgrounds([read_image(file) for file in TEST], SCENES // 2, height, width, random)
    return draw_scenes(SCENES, height, width, generator, backgrounds=backgrounds)


def questions_about(scenes: Scenes) -> list[list[tuple[str, str]]]:
    """Four questions about each scene, colour, side, height and presence, with their answers of one word."""
    random, asked = Random(SEED), []
    for i in range(len(scenes)):
        scene = things(scenes, i)
        thing = random.choice(scene)
        choices = (ask_colour(thing, scene, random), ask_side(thing), ask_height(thing))
        there = random.random() < 0.5
        pair = (thing.colour, thing.shape) if there else absent(scene, random.choice(NEGATIVES), random)
        presence = (f"{ask_presence(*pair)}\n{ASK_WORD}", "yes" if there else "no")
        asked.append([*((choice.worded(random), choice.options[0]) for choice in choices), presence])
    return asked


@torch.no_grad()
def ask(model: Any, processor: Any, view: View) -> tuple[NDArray[np.float64], float]:
    """The share of right answers about each scene ``(SCENES,)``, and the mean image tokens."""
    scenes = scenes_of(view.height, view.width)
    pictures = [(255 * image).round().byte().permute(1, 2, 0).numpy() for image in scenes.images]
    asked = [(i, *pair) for i, pairs in enumerate(questions_about(scenes)) for pair in pairs]
    options, right = {"size": None, **view.options}, defaultdict(list)
    for first in range(0, len(asked), AT_ONCE):
        batch = asked[first : first + AT_ONCE]
        inputs = processor(
            images=[pictures[i] for i, _, _ in batch],
            text=[f"USER: <image>\n{question} ASSISTANT:" for _, question, _ in batch],
            padding=True,
            padding_side="left",
            return_tensors="pt",
            **options,
        )
        found = model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1)
        for (i, _, answer), token in zip(batch, found, strict=True):
            right[i].append(int(token) == processor.tokenizer.convert_tokens_to_ids(answer))
    tokens = sum(processor.image_processor.count_tokens(pictures, **options)) / len(pictures)
    return np.array([np.mean(right[i]) for i in range(len(scenes))]), tokens


def main() -> None:
    """Measure and write."""
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("narrow", help="folder of the narrower pocket-llava")
    names = {"narrow": parser.parse_args().narrow, "wide": "pocket-llava"}
    readers = {name: load(shipped(source)) for name, source in names.items()}
    drawn = np.random.default_rng(0).integers(0, SCENES, (RESAMPLES, SCENES))
    rows, reference = [], {}
    for view in VIEWS:
        shares = {}
        for name, (model, processor) in readers.items():
            shares[name], tokens = ask(model, processor, view)
        reference = reference or dict(shares)
        lost = {name: 100 * (reference[name] - shares[name]) for name in readers}
        row = [view.name, f"{tokens:.0f}", *(f"{100 * shares[name].mean():.1f}" for name in readers)]
        for values in () if view is TRAINED else (lost["narrow"], lost["wide"], lost["wide"] - lost["narrow"]):
            found = estimate(values.mean(), values[drawn].mean(1))
            row.append(f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]")
        rows.append([*row, *[""] * (7 - len(row))])
        print(*rows[-1], sep="\t", flush=True)
    sizes = [sum(p.numel() for p in model.model.language_model.parameters()) for model, _ in readers.values()]
    header = ["scenes shown at", "tokens", "narrow, %", "wide, %", "narrow loses", "wide loses", "wide loses more by"]
    text = TEXT.format(sizes[0] / 1e6, sizes[1] / 1e6, SCENES, table(header, rows))
    write_section("reader_sizes", text, Path(__file__).parents[1] / "docs/evidence.md")


TEXT = """Language models of {:.2f} and {:.2f} million parameters over the same tower, trained on the same scenes; {} scenes of each shape, half of them over photographs, four questions about each. Points lost
against scenes as both were trained; intervals are 95 %, by scenes, and in the last column of one reader less the other on the same questions.

{}"""

if __name__ == "__main__":
    main()
