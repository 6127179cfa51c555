"""Does a leaf count once or by its area? What each does to embeddings, to retrieval and to answers, on the pocket models.

python benchmarks/weighting.py      writes a section of docs/pocket.md and two figures; half an hour on one core, can be stopped

Budgets are a tenth, a quarter and half of the whole grid's tokens, where the sweep asks for them. Everything is paired: both ways
see the same trees.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import _report
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

import qlip
from qlip.data.language import caption, things
from qlip.data.pictures import small_objects
from qlip.data.scenes import draw_scenes
from qlip.evaluation.config import SweepConfig
from qlip.evaluation.results import Result, find_results, group_results
from qlip.evaluation.run.sweep import run_sweep
from qlip.evaluation.statistics import Estimate, compare, draw_counts, estimate
from qlip.images.read import to_rgb
from qlip.shipped import shipped

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "qlip/configs/sweeps/pocket-weighting.yaml"
RESULTS, IMAGES = ROOT / "results/pocket-weighting", ROOT / "docs/images"
SHARES = (0.1, 0.25, 0.5)
WAYS = ("once", "area")
DRIFTING, RETRIEVED, CANDIDATES = 100, 200, 100  # scenes
COLOURS = {"once": "#222222", "area": "#2e9e5b", "whole": "#c0392b"}
Values = np.ndarray  # one number a scene
Score = Callable[..., tuple[dict[str, Values], float]]


@dataclass(frozen=True)
class Measured:
    """One measure: how an arm does, and how two differ on the same scenes or questions.

    Attributes:
        name: What is measured, and at which size.
        digits: How many are shown.
        tokens: Mean tokens of a picture for each share of the grid, and of the whole grid.
        arms: Estimates by share and weighting; ``whole`` by itself, if it was measured.
        gaps: The same, area less once, and area less the whole grid.
    """

    name: str
    digits: int
    tokens: dict[float, float]
    arms: dict[tuple[float, str], Estimate]
    gaps: dict[tuple[float, str], Estimate]

    @property
    def shares(self) -> list[float]:
        """The budgets that were tried."""
        return sorted({share for share, other in self.gaps if other == "once"})


def mean(values: Values) -> Estimate:
    """A mean with its interval, from a bootstrap over scenes."""
    return estimate(values.mean(), draw_counts(("",) * len(values)) @ values / len(values))


def measured(name: str, digits: int, score: Score, grid: int) -> Measured:
    """Every share and weighting of one measure.

    Args:
        name: See `Measured`.
        digits: See `Measured`.
        score: For options of the processor, the scores of the scenes by weighting, and the mean tokens.
        grid: Tokens of the whole grid.
    """
    both, _ = score(alpha=0)  # nothing merges
    whole = both["once"]
    arms, gaps, tokens = {(1.0, "whole"): mean(whole)}, {}, {1.0: float(grid)}
    for share in SHARES:
        found, tokens[share] = score(max_tokens=int(share * grid))
        arms |= {(share, way): mean(found[way]) for way in WAYS}
        gaps[share, "once"] = mean(found["area"] - found["once"])
        gaps[share, "whole"] = mean(found["area"] - whole)
    return Measured(name, digits, tokens, arms, gaps)


def drift(clip: CLIPModel, processor: CLIPProcessor, size: int = 336) -> Measured:
    """Cos of [CLS] and that of the same scene as CLIP itself sees it, at 112 px."""
    pictures = [picture for picture, _ in small_objects(DRIFTING, 41_000)]
    tower, images = qlip.convert(clip.vision_model, processor.image_processor, cover="full", crop="square")
    towers = {way: qlip.QlipVisionModel(tower.vision_model, tower.position, weighting=way) for way in WAYS}

    def encode(**options: object) -> tuple[dict[str, Tensor], float]:
        batches = [images(pictures[i : i + 20], **options) for i in range(0, len(pictures), 20)]
        tokens = torch.cat([batch.num_tokens for batch in batches]).float().mean().item()
        return {way: torch.cat([see(batch).pooler_output for batch in batches]) for way, see in towers.items()}, tokens

    own = encode(size=112, alpha=0)[0]["once"]

    def score(**options: object) -> tuple[dict[str, Values], float]:
        seen, tokens = encode(size=size, **options)
        return {way: torch.cosine_similarity(states, own).numpy() for way, states in seen.items()}, tokens

    return measured(f"cos [CLS] with the view at 112 px, {size} px", 3, score, (size // 14) ** 2)


def retrieval(clip: CLIPModel, processor: CLIPProcessor, size: int = 224) -> Measured:
    """Share of scenes whose own caption is the nearest of a hundred, in percent."""
    batches = []
    for number in range(RETRIEVED // CANDIDATES):
        scenes = draw_scenes(CANDIDATES, 112, 112, torch.Generator().manual_seed(31_000 + number))
        texts = [caption(things(scenes, i), Random(number)) for i in range(CANDIDATES)]
        batches.append(([to_rgb(image) for image in scenes.images], texts))
    model, images = qlip.convert(clip, processor, cover="full", crop="square", size=size)

    def score(**options: object) -> tuple[dict[str, Values], float]:
        hits: dict[str, list[Tensor]] = {way: [] for way in WAYS}
        tokens = 0
        for pictures, texts in batches:
            inputs = images(images=pictures, text=texts, return_tensors="pt", padding=True, **options)
            inputs.pop("token_type_ids", None)
            tokens += sum(len(leaves) for _, leaves in inputs["pixel_values"])
            for way in WAYS:
                model.qlip.weighting = way
                hits[way].append(model(**inputs).logits_per_image.argmax(1) == torch.arange(len(texts)))
        return {way: 100 * torch.cat(found).float().numpy() for way, found in hits.items()}, tokens / RETRIEVED

    return measured(f"caption found among {CANDIDATES}, {size} px", 1, score, (size // 14) ** 2)


def answers(size: int) -> Measured:
    """Accuracy in vstar-pocket, from the runs of the sweep."""
    groups = group_results(find_results(RESULTS))  # the sizes differ in their number of questions
    group = next(group for group in groups if group.cells[0].size == size)
    runs = {(run.cell.max_tokens, run.cell.weighting): run for run in group.cells}
    whole = runs.get((None, None))
    source, images = group.benchmark.load(None), qlip.QlipImageProcessor(size)
    shapes = [to_rgb(source.image(question.row)).size for question in group.benchmark.questions(source, "llava")]
    grid = float(np.mean([np.prod(images.grid(height, width)) for width, height in shapes]))

    def gap(run: Result, other: Result) -> Estimate:
        return compare(group.benchmark, run.records, other.records)[run.primary]

    arms, gaps, tokens = {}, {}, {1.0: grid}
    for budget in sorted(budget for budget, way in runs if way == "once"):
        once, area = (runs[budget, way] for way in WAYS)
        share = round(budget / grid, 2)
        tokens[share] = float(np.mean([record["tokens"] for record in once.records]))
        arms |= {(share, "once"): once.score, (share, "area"): area.score}
        gaps[share, "once"] = gap(area, once)
        if whole:
            arms[1.0, "whole"], gaps[share, "whole"] = whole.score, gap(area, whole)
    questions = next(iter(runs.values())).data["questions"]
    return Measured(f"vstar-pocket, {questions} questions, {size} px", 1, tokens, arms, gaps)


def interval(value: Estimate | None, digits: int, sign: str = "") -> str:
    """A number and its 95 % interval; nothing for what was not measured."""
    if value is None:
        return ""
    low, high = (f"{end:{sign}.{digits}f}" for end in (value.low, value.high))
    return f"{value.value:{sign}.{digits}f} [{low}, {high}]"


def rows(measure: Measured) -> list[list[str]]:
    """Lines of the table, one for each budget."""
    made = []
    for share in measure.shares:
        arms = [measure.arms.get(key) for key in ((share, "once"), (share, "area"), (1.0, "whole"))]
        gaps = [measure.gaps.get((share, other)) for other in ("once", "whole")]
        budget = f"{share:.0%}, {measure.tokens[share]:.0f} of {measure.tokens[1.0]:,.0f}"
        numbers = [interval(arm, measure.digits) for arm in arms] + [interval(gap, measure.digits, "+") for gap in gaps]
        made.append([measure.name, budget, *numbers])
    return made


def draw(measures: Sequence[Measured]) -> Figure:
    """A panel a measure: both weightings over the budget, the whole grid as a band."""
    figure = Figure(figsize=(4.1 * len(measures), 3.8), layout="constrained")
    for panel, measure in zip(figure.subplots(1, len(measures)), measures, strict=True):
        whole = measure.arms.get((1.0, "whole"))
        if whole:
            panel.axhspan(whole.low, whole.high, color=COLOURS["whole"], alpha=0.12, lw=0)
            panel.axhline(whole.value, color=COLOURS["whole"], lw=1, ls="--", label="whole grid")
        for way in WAYS:
            found = [measure.arms[share, way] for share in measure.shares]
            values = np.array([each.value for each in found])
            ends = np.abs(np.array([(each.low, each.high) for each in found]).T - values)
            label = "a leaf counts once" if way == "once" else "a leaf counts by its area"
            x = 100 * np.array(measure.shares) + (0.4 if way == "area" else -0.4)  # side by side, where intervals meet
            panel.errorbar(x, values, ends, fmt="o-", ms=4, lw=1.4, capsize=3, color=COLOURS[way], label=label)
        panel.set_title(measure.name, fontsize=9, loc="left")
        panel.set_xlim(5, 55)
        panel.set_xticks([100 * share for share in SHARES])
        panel.set_xlabel("tokens, % of the whole grid's")
        panel.grid(alpha=0.25)
    lines = figure.axes[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


@torch.no_grad()
def embeddings() -> list[Measured]:
    """What the pocket CLIP does."""
    folder = shipped("pocket-clip")
    clip, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    return [drift(clip, processor), retrieval(clip, processor)]


def main() -> None:
    """Measure and write."""
    measures = embeddings()
    run_sweep(SweepConfig(sweep=SWEEP))
    measures += [answers(size) for size in (224, 448)]
    draw(measures).savefig(IMAGES / "pocket-weighting.png", dpi=110)
    shutil.copy(RESULTS / "bias/bias.png", IMAGES / "pocket-bias.png")
    head = ["measure", "tokens", "once", "by area", "whole grid", "area less once", "area less whole grid"]
    table = _report.table(head, [row for measure in measures for row in rows(measure)])
    _report.write_section("weighting", f"{TEXT}\n\n{table}", ROOT / "docs/pocket.md")


TEXT = """![Once and by area over the budget](images/pocket-weighting.png)

![Figure 4 with both weightings](images/pocket-bias.png)"""


if __name__ == "__main__":
    main()
