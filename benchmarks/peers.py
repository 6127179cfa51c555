"""The quadtree beside its peers on one model: uniform downscaling, merging in the tower (ToMe), dropping after it (VisionZip).

python benchmarks/peers.py [--model FOLDER] [--questions N]     writes a section of docs/evidence.md; can be stopped and goes on

All see pictures through the same tower, at the same solved position, and the reader gets their tokens in the same place of the same prompt.
"""

import argparse
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, TypedDict

import _report
import numpy as np
import peer_tome
import peer_visionzip
import torch
from PIL.Image import Image
from torch import Tensor

from qlip.core.patches import PatchBatch
from qlip.encoder import QlipVisionModel
from qlip.evaluation.benchmarks import get_benchmark
from qlip.evaluation.benchmarks.base import Benchmark, Question
from qlip.evaluation.cell import Vision
from qlip.evaluation.journal import Journal
from qlip.evaluation.run.arm import Arm, load_arm
from qlip.evaluation.statistics import Estimate, compare, score
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import to_rgb
from qlip.shipped import shipped
from qlip.tools.geometry import Geometry, read_geometry
from qlip.towers.packing import Packing

ROOT = Path(__file__).parents[1]
BENCHMARKS = ("vstar-pocket", "pope-pocket", "vstar-photo", "pope-photo")
BUDGETS = (36, 64, 100)
TREES = {"quadtree": "derivative", "blurred": "blurred"}  # criteria
NAMES = {
    "quadtree": "quadtree",
    "blurred": "quadtree, `blurred`",
    "uniform": "downscaling",
    "tome": "ToMe",
    "visionzip": "VisionZip",
}


@dataclass(frozen=True)
class Way:
    """A way to fewer tokens.

    Attributes:
        method: One of `NAMES`.
        tokens: The most that the language model gets.
        start: The most patches of the grid that the encoder starts from; None for the picture's own size.
    """

    method: str
    tokens: int
    start: int | None = None

    @property
    def file(self) -> str:
        """Name of its journal."""
        return f"{self.method}-{self.start or 'native'}-{self.tokens}.jsonl"


class Answer(TypedDict):
    """The answer to one question, a line of a journal: what `qlip.evaluation.statistics` asks of a record, and what the picture cost."""

    id: str
    prompt: str
    parsed: str | None
    answer: str
    correct: bool
    group: str
    unit: str
    tokens: int
    """Of the picture, for the language model."""
    started: int
    """Patches that the encoder starts from."""
    flops: int
    """Of the encoder, up to the layer that is read."""


@dataclass(frozen=True)
class Seen:
    """A picture as a way sees it.

    Attributes:
        features: Its tokens for the language model, ``(N, E)``.
        counts: Patches before the attention and before the MLP of each layer.
    """

    features: Tensor
    counts: list[tuple[int, int]]


def flops(geometry: Geometry, counts: Sequence[tuple[int, int]]) -> int:
    """`Geometry.flops` where layers have different numbers of patches.

    Left out is what a method spends on choosing: ToMe's products of keys, 3 % of its attention here, and the quadtree's differences
    of pixels.

    Args:
        geometry: Of the encoder.
        counts: Patches before the attention and before the MLP of each layer.
    """
    attention = 4 * geometry.width**2
    mlp = geometry.weights // geometry.depth - attention
    total = 2 * counts[0][0] * 3 * geometry.patch_size**2 * geometry.width
    for before, after in counts:
        before, after = before + geometry.prefix, after + geometry.prefix
        total += 2 * before * attention + 4 * before**2 * geometry.width + 2 * after * mlp
    return total


def falling(start: int, tokens: int, layers: int) -> list[int]:
    """Patches after each layer from ``start`` down to ``tokens``, an equal number less each time: ToMe's constant r."""
    return [round(start + (tokens - start) * layer / layers) for layer in range(1, layers + 1)]


def pairs(start: int, after: Sequence[int]) -> list[tuple[int, int]]:
    """Patches before attention and MLP of each layer, where they fall between the two."""
    return list(zip([start, *after[:-1]], after, strict=True))


@cache  # pictures have few shapes
def size_for(images: QlipImageProcessor, patches: int | None, width: int, height: int) -> int | None:
    """The shortest edge at which a picture's grid comes nearest to so many patches; None for its own size."""
    if patches is None:
        return None

    def distance(size: int) -> int:
        return abs(math.prod(replace(images, size=size).grid(height, width)) - patches)

    return min(range(images.quadtree.patch_size, min(width, height) + 1), key=distance)


class Reader:
    """pocket-llava, converted, and every way to show it a picture.

    Args:
        source: Folder of the model, or the name of one that comes with the package.
    """

    def __init__(self, source: str) -> None:
        self.arm: Arm = load_arm(source, Vision(size=None, criterion="uniform"))
        self.model: Any = self.arm.model
        inner = self.model.model
        self.images = self.arm.processor.image_processor.settings
        self.vision = QlipVisionModel(inner.tower.module, self.model.qlip.position)
        self.project = inner.multi_modal_projector
        layers = list(self.vision.layers())
        self.layers = layers[: inner.config.vision_feature_layer + 1]  # -2 reads what the last but one returns
        geometry = read_geometry(source)
        share = geometry.weights // geometry.depth * len(self.layers)
        self.geometry = replace(geometry, depth=len(self.layers), weights=share)

    def comparisons(self) -> dict[str, list[list[Way]]]:
        """What is compared, by title: groups of ways, the others in each with its first."""
        trees = {tokens: Way("quadtree", tokens) for tokens in BUDGETS}
        scaled = {tokens: Way("uniform", tokens, tokens) for tokens in BUDGETS}
        equal_tokens, equal_flops = [], []
        for tokens in BUDGETS:
            starts = (None, 576, 256) if tokens == 64 else (None,)
            peers = [Way(method, tokens, start) for method in ("tome", "visionzip") for start in starts]
            equal_tokens.append([trees[tokens], Way("blurred", tokens), scaled[tokens], *peers])
            half = tokens // 2
            peers = [Way("tome", half, self.start_for(tokens, half)), Way("visionzip", half, tokens)]
            equal_flops.append([trees[tokens], scaled[tokens], *peers])
        gently = [Way("uniform", 256, 256), Way("tome", 230, 256), Way("visionzip", 230, 256)]
        return {"Equal tokens": equal_tokens, "Equal encoder FLOPs": equal_flops, "A tenth fewer tokens": [gently]}

    def ways(self) -> list[Way]:
        """All that is asked, each once."""
        return list(dict.fromkeys(way for groups in self.comparisons().values() for group in groups for way in group))

    def start_for(self, budget: int, tokens: int) -> int:
        """The most patches from which ToMe comes down to ``tokens`` for the FLOPs of ``budget`` patches in every layer."""
        depth, start = len(self.layers), budget
        while flops(self.geometry, pairs(start + 1, falling(start + 1, tokens, depth))) <= self.geometry.flops(budget):
            start += 1
        return start

    def embed(self, batch: PatchBatch) -> Tensor:
        """The states of one picture before the first layer, ``(1 + n, D)``, as `QlipVisionModel` makes them."""
        tower, packing = self.vision.tower, Packing.of(batch.mask, self.vision.tower.prefix_length)
        patches = tower.embed(batch.patches) + self.vision.positions_of(batch, packing)
        return tower.before(packing.insert(tower.prefix(), patches))[0]

    @torch.no_grad()
    def see(self, picture: Image, ways: Sequence[Way]) -> Iterator[tuple[Way, Seen]]:
        """A picture in several ways; what these have in common is computed once."""
        grid = cache(lambda start: self.embed(self.images(picture, size=size_for(self.images, start, *picture.size))))
        passed = cache(lambda start: self.passed(grid(start)))
        for way in ways:
            if way.method in TREES:
                leaves = self.embed(self.images(picture, criterion=TREES[way.method], max_tokens=way.tokens))
                states, counts = self.run(leaves, self.layers)[1:], self.constant(leaves)
            elif way.method == "uniform":
                states, counts = self.run(grid(way.start), self.layers)[1:], self.constant(grid(way.start))
            elif way.method == "tome":
                start = len(grid(way.start)) - 1
                after = falling(start, min(way.tokens, start), len(self.layers))
                states, counts = peer_tome.encode(self.layers, grid(way.start), after), pairs(start, after)
            else:
                states = peer_visionzip.choose(*passed(way.start), *peer_visionzip.shares(way.tokens))
                counts = self.constant(grid(way.start))
            yield way, Seen(self.project(states), counts)

    def constant(self, states: Tensor) -> list[tuple[int, int]]:
        """The patches of each layer where none are merged on the way."""
        return [(len(states) - 1,) * 2] * len(self.layers)

    def passed(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The states that are read, and how the layer that makes them looks at patches: what VisionZip chooses by."""
        *early, last = self.layers
        before = self.run(states, early)
        return self.run(before, [last]), *peer_visionzip.look(last, before)

    def run(self, states: Tensor, layers: Sequence[Any]) -> Tensor:
        """Layers on states ``(T, D)``."""
        for layer in layers:
            states = layer(states[None], attention_mask=None)[0]
        return states

    def prompt(self, features: Tensor, question: str) -> Tensor:
        """Embeddings of a question with an image's ``features (N, E)`` in it: ``(1, L, H)``."""
        ids = torch.tensor(self.arm.processor.tokenizer(self.arm.prompt(question, "llava"))["input_ids"])
        image = ids == self.model.config.image_token_id
        ids = ids.repeat_interleave(torch.where(image, len(features), 1))
        embeds = self.model.get_input_embeddings()(ids)
        embeds[ids == self.model.config.image_token_id] = features
        return embeds[None]

    @torch.no_grad()
    def answer(self, features: Tensor, question: str, longest: int) -> str:
        """The greedy answer."""
        embeds = self.prompt(features, question)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        said = self.model.generate(
            inputs_embeds=embeds, attention_mask=mask, max_new_tokens=longest, do_sample=False, num_beams=1
        )
        return self.arm.decode(said)[0]


def ask(reader: Reader, name: str, folder: Path, limit: int) -> dict[Way, list[Answer]]:
    """Answers to the first questions of a benchmark in every way; what is in the journals is not asked again."""
    benchmark = get_benchmark(name)
    source = benchmark.load(None)
    questions = benchmark.questions(source, "llava")[:limit]
    journals = {way: Journal(folder / name / way.file, Answer) for way in reader.ways()}
    done = {way: {line["id"]: line for line in journal.recover()} for way, journal in journals.items()}

    def picture_of(question: Question) -> str:
        return question.unit or question.id

    for _, group in groupby(sorted(questions, key=picture_of), key=picture_of):
        asked = list(group)
        open_ways = [way for way in journals if any(question.id not in done[way] for question in asked)]
        if not open_ways:
            continue
        picture = to_rgb(source.image(asked[0].row))
        for way, seen in reader.see(picture, open_ways):
            lines = [record(reader, benchmark, question, seen) for question in asked if question.id not in done[way]]
            journals[way].append(lines)
            done[way] |= {line["id"]: line for line in lines}
    return {way: [done[way][question.id] for question in questions] for way in journals}


def record(reader: Reader, benchmark: Benchmark, question: Question, seen: Seen) -> Answer:
    """Ask a question about a picture."""
    parsed = benchmark.parse(
        reader.answer(seen.features, question.prompt, benchmark.max_new_tokens), question.options, "llava"
    )
    return {
        "id": question.id,
        "prompt": question.prompt,
        "parsed": parsed,
        "answer": question.answer,
        "correct": benchmark.correct(parsed, question.answer),
        "group": question.group,
        "unit": question.unit or question.id,
        "tokens": len(seen.features),
        "started": seen.counts[0][0],
        "flops": flops(reader.geometry, seen.counts),
    }


def interval(value: Estimate, sign: str = "") -> str:
    """A number and its 95 % interval."""
    return f"{value.value:{sign}.1f} [{value.low:{sign}.1f}, {value.high:{sign}.1f}]"


def row(way: Way, first: Way, answers: Mapping[str, Mapping[Way, list[Answer]]], names: Sequence[str]) -> list[str]:
    """A line of a table: what a way costs, its score in each benchmark, and by how much the first way's is higher."""
    means = {
        column: np.mean([line[column] for name in names for line in answers[name][way]])
        for column in ("started", "tokens", "flops")
    }
    cells = [NAMES[way.method], f"{means['started']:,.0f}", f"{means['tokens']:.0f}", f"{means['flops'] / 1e9:.2f}"]
    for name in names:
        benchmark = get_benchmark(name)
        lines = answers[name][way]
        cells.append(interval(score(benchmark, lines)[benchmark.primary]))
        ahead = compare(benchmark, answers[name][first], lines)[benchmark.primary]
        cells.append("" if way == first else interval(ahead, "+"))
    return cells


def tables(reader: Reader, answers: Mapping[str, Mapping[Way, list[Answer]]]) -> str:
    """Every comparison, over drawn backgrounds and over photographs."""
    text = []
    for title, groups in reader.comparisons().items():
        for kind, names in (("drawn backgrounds", BENCHMARKS[:2]), ("photographs", BENCHMARKS[2:])):
            header = ["", "starts from, patches", "tokens", "encoder, GFLOPs"]
            header += [column for name in names for column in (name, f"{NAMES[groups[0][0].method]} ahead by")]
            rows = [row(way, group[0], answers, names) for group in groups for way in group]
            text.append(f"**{title}**, {kind}\n\n{_report.table(header, rows)}")
    return "\n\n".join(text)


def main() -> None:
    """Ask and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pocket-llava")
    parser.add_argument("--questions", type=int, default=500, help="of each benchmark, from the first")
    options = parser.parse_args()
    weights = hashlib.sha256((Path(shipped(options.model)) / "model.safetensors").read_bytes()).hexdigest()
    reader = Reader(options.model)
    folder = ROOT / "results/peers" / weights[:12]
    answers = {name: ask(reader, name, folder, options.questions) for name in BENCHMARKS}
    about = f"The first {options.questions} questions of each benchmark; V* in percent, POPE as F1; 95 % intervals, differences paired."
    _report.write_section("peers", f"{about}\n\n{tables(reader, answers)}", ROOT / "docs/evidence.md")


if __name__ == "__main__":
    main()
