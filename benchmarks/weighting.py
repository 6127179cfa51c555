"""Does a leaf count once or by its area? What each does to embeddings, to retrieval and to answers, on the pocket models.

python benchmarks/weighting.py      writes a section of docs/pocket.md and two figures; half an hour on one core, can be stopped

Budgets are a tenth, a quarter and half of the whole grid's tokens. Everything is paired: both ways see the same trees.
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
SCENES, CANDIDATES = 200, 100
COLOURS = {"once": "#222222", "area": "#2e9e5b", "whole": "#c0392b"}
Values = np.ndarray  # one number a scene


@dataclass(frozen=True)
class Measured:
    """One measure: how an arm does, and how two differ on the same scenes or questions.

    Attributes:
        name: What is measured, and at which size.
        digits: How many are shown.
        tokens: Mean tokens of a picture for each share of the grid, and of the whole grid.
        arms: Estimates by share and weighting; ``whole`` by itself.
        gaps: The same, area less once, and area less the whole grid.
    """

    name: str
    digits: int
    tokens: dict[float, float]
    arms: dict[tuple[float, str], Estimate]
    gaps: dict[tuple[float, str], Estimate]


def mean(values: Values) -> Estimate:
    """A mean with its interval, from a bootstrap over scenes."""
    return estimate(values.mean(), draw_counts(("",) * len(values)) @ values / len(values))


def measured(
    name: str, digits: int, size: int, score: Callable[..., Values], counts: Callable[..., list[int]]
) -> Measured:
    """Every share and weighting of one measure.

    Args:
        name: See `Measured`.
        digits: See `Measured`.
        size: Side of the pictures in pixels.
        score: Scores of the scenes for a weighting and options of the processor.
        counts: Tokens of the scenes for the same options.
    """
    options = {share: {"max_tokens": int(share * (size // 14) ** 2)} for share in SHARES}
    whole = score("once", alpha=0)
    found = {(share, way): score(way, **options[share]) for share in SHARES for way in ("once", "area")}
    arms = {key: mean(values) for key, values in found.items()} | {(1.0, "whole"): mean(whole)}
    gaps = {}
    for share in SHARES:
        gaps[share, "once"] = mean(found[share, "area"] - found[share, "once"])
        gaps[share, "whole"] = mean(found[share, "area"] - whole)
    tokens = {share: float(np.mean(counts(**options[share]))) for share in SHARES} | {1.0: (size // 14) ** 2}
    return Measured(name, digits, tokens, arms, gaps)


def drift(clip: CLIPModel, processor: CLIPProcessor, size: int = 336) -> Measured:
    """Cos of [CLS] and that of the same scene as CLIP itself sees it, at 112 px."""
    pictures = [picture for picture, _ in small_objects(SCENES, 41_000)]
    position = qlip.convert(clip.vision_model).position
    settings = {"position": position, "crop": "square", "cover": "full"}
    towers = {
        way: qlip.convert(clip.vision_model, processor.image_processor, weighting=way, **settings)
        for way in ("once", "area")
    }
    _, images = towers["once"]

    def encode(way: str, **options: object) -> Tensor:
        return torch.cat([towers[way][0](images(picture, **options)).pooler_output for picture in pictures])

    own = encode("once", size=112, alpha=0)

    def score(way: str, **options: object) -> Values:
        return torch.cosine_similarity(encode(way, size=size, **options), own).numpy()

    def counts(**options: object) -> list[int]:
        return images.count_tokens(pictures, size=size, **options)

    return measured(f"cos [CLS] with the view at 112 px, {size} px", 3, size, score, counts)


def retrieval(clip: CLIPModel, processor: CLIPProcessor, size: int = 224) -> Measured:
    """Share of scenes whose own caption is the nearest of a hundred, in percent."""
    batches = []
    for number in range(SCENES // CANDIDATES):
        scenes = draw_scenes(CANDIDATES, 112, 112, torch.Generator().manual_seed(31_000 + number))
        texts = [caption(things(scenes, i), Random(number)) for i in range(CANDIDATES)]
        batches.append(([to_rgb((255 * x).round().byte()) for x in scenes.images], texts))
    position = qlip.convert(clip.vision_model).position
    model, images = qlip.convert(clip, processor, position=position, cover="full", crop="square", size=size)

    def score(way: str, **options: object) -> Values:
        model.qlip.weighting, hits = way, []
        for pictures, texts in batches:
            inputs = images(images=pictures, text=texts, return_tensors="pt", padding=True, **options)
            inputs.pop("token_type_ids", None)
            hits.append(model(**inputs).logits_per_image.argmax(1) == torch.arange(len(texts)))
        return 100 * torch.cat(hits).float().numpy()

    def counts(**options: object) -> list[int]:
        return [count for pictures, _ in batches for count in images.count_tokens(pictures, **options)]

    return measured(f"caption found among {CANDIDATES}, {size} px", 1, size, score, counts)


def answers(size: int) -> Measured:
    """Accuracy in vstar-pocket, from the runs of the sweep."""
    (group,) = group_results(find_results(RESULTS))
    runs = [run for run in group.cells if run.size == size]
    (whole,) = (run for run in runs if run.cell.criterion == "uniform")
    budgets = sorted({run.cell.max_tokens for run in runs if run.cell.max_tokens})
    by_key = {
        (share, way): next(run for run in runs if (run.cell.max_tokens, run.cell.weighting) == (budget, way))
        for share, budget in zip(SHARES, budgets, strict=True)
        for way in ("once", "area")
    }

    def gap(run: Result, other: Result) -> Estimate:
        return compare(group.benchmark, run.records, other.records)[run.primary]

    gaps = {}
    for share in SHARES:
        gaps[share, "once"] = gap(by_key[share, "area"], by_key[share, "once"])
        gaps[share, "whole"] = gap(by_key[share, "area"], whole)
    grid = 64  # tokens of the stock model, of which `percent` is
    tokens = {share: grid * by_key[share, "once"].percent / 100 for share in SHARES} | {1.0: grid * whole.percent / 100}
    arms = {key: run.score for key, run in by_key.items()} | {(1.0, "whole"): whole.score}
    return Measured(f"vstar-pocket, {whole.data['questions']} questions, {size} px", 1, tokens, arms, gaps)


def interval(value: Estimate, digits: int, sign: str = "") -> str:
    """A number and its 95 % interval."""
    low, high = (f"{end:{sign}.{digits}f}" for end in (value.low, value.high))
    return f"{value.value:{sign}.{digits}f} [{low}, {high}]"


def rows(measure: Measured) -> list[list[str]]:
    """Lines of the table, one for each budget."""
    made = []
    for share in SHARES:
        once, area = (interval(measure.arms[share, way], measure.digits) for way in ("once", "area"))
        gaps = [interval(measure.gaps[share, other], measure.digits, "+") for other in ("once", "whole")]
        whole = interval(measure.arms[1.0, "whole"], measure.digits)
        made.append(
            [
                measure.name,
                f"{share:.0%}: {measure.tokens[share]:.0f} of {measure.tokens[1.0]:.0f}",
                once,
                area,
                whole,
                *gaps,
            ]
        )
    return made


def draw(measures: Sequence[Measured]) -> Figure:
    """A panel a measure: both weightings over the budget, the whole grid as a band."""
    figure = Figure(figsize=(4.1 * len(measures), 3.8), layout="constrained")
    for panel, measure in zip(figure.subplots(1, len(measures)), measures, strict=True):
        whole = measure.arms[1.0, "whole"]
        panel.axhspan(whole.low, whole.high, color=COLOURS["whole"], alpha=0.12, lw=0)
        panel.axhline(whole.value, color=COLOURS["whole"], lw=1, ls="--", label="whole grid")
        for way in ("once", "area"):
            found = [measure.arms[share, way] for share in SHARES]
            values = np.array([each.value for each in found])
            ends = np.abs(np.array([(each.low, each.high) for each in found]).T - values)
            label = "a leaf counts once" if way == "once" else "a leaf counts by its area"
            x = 100 * np.array(SHARES) + (0.4 if way == "area" else -0.4)  # side by side, where intervals meet
            panel.errorbar(x, values, ends, fmt="o-", ms=4, lw=1.4, capsize=3, color=COLOURS[way], label=label)
        panel.set_title(measure.name, fontsize=10, loc="left")
        panel.set_xticks([100 * share for share in SHARES])
        panel.set_xlabel("tokens, % of the whole grid's")
        panel.grid(alpha=0.25)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
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
