"""What holds: claims with verdicts, criteria at equal budgets, and what other kinds of pictures lose.

python benchmarks/evidence.py      writes sections of docs/evidence.md; half an hour on two cores, goes on where it stopped

The answers are those of `qlip sweep evidence`, and the claims those of `qlip report results/evidence`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import _report
import numpy as np
import skimage
from matplotlib.figure import Figure

from qlip.configs import FOLDER
from qlip.core.criteria import CRITERIA
from qlip.data.backgrounds import TEST
from qlip.evaluation.bias_points import BIAS, read_points
from qlip.evaluation.config import SweepConfig
from qlip.evaluation.report.claims import TREE, bias_claim_table, claim_table, find_run
from qlip.evaluation.report.tables import delta, number
from qlip.evaluation.results import Group, Result, find_results, group_results
from qlip.evaluation.run.sweep import run_sweep
from qlip.evaluation.statistics import LEVEL, Estimate, compare, half
from qlip.images.read import read_image
from qlip.tools.geometry import read_geometry
from qlip.tools.measure import PLAIN, bounded, measure

ROOT = Path(__file__).parents[1]
PAGE, FIGURE, RESULTS = ROOT / "docs/evidence.md", ROOT / "docs/images/evidence.png", ROOT / "results/evidence"
REFERENCE = "derivative"
NAMES = [name for name in CRITERIA if name != "uniform"]  # that one merges nothing
CANDIDATES = [name for name in NAMES if name not in (REFERENCE, "random")]
BUDGETS = (100, 250)
SHARE = 0.25  # of a picture's own grid
DRAWN = {
    "derivative": ("#222222", "quadtree"),
    "uniform": ("#c0392b", "grid scaled down"),
}
PANELS = {"vstar-pocket": "drawn backgrounds", "vstar-photo": "photographs behind the same objects"}
DATA = Path(skimage.__file__).parent / "data"
DOMAINS: Mapping[str, Sequence[Path]] = {
    "photographs": TEST,
    "medicine": [DATA / "retina.jpg", DATA / "ihc.png", DATA / "microaneurysms.png"],
    "sky": [DATA / "hubble_deep_field.jpg", DATA / "moon.png"],
    "print": [DATA / "page.png", DATA / "text.png"],
}


def run_of(group: Group, criterion: str, budget: int) -> Result | None:
    """The run of a criterion at a budget, at the pictures' own size; None if it was not asked."""
    return find_run(group, TREE | {"criterion": criterion, "max_tokens": budget})


def less(group: Group, run: Result, reference: Result, level: float = LEVEL, side: int | None = None) -> Estimate:
    """By how much a run does better than another: on all questions, or on one half of them."""
    ours, theirs = ([r for r in each.records if side in (None, half(r["unit"]))] for each in (run, reference))
    return compare(group.benchmark, ours, theirs, level)[group.benchmark.primary]


def criteria_section(groups: Sequence[Group]) -> str:
    """Every criterion at every budget, with its difference from the paper's."""
    level = 1 - (1 - LEVEL) / len(CANDIDATES)
    header = ["criterion"]
    header += [f"{group.benchmark.name}, {budget} tokens (less {REFERENCE})" for group in groups for budget in BUDGETS]
    rows = []
    for name in NAMES:
        row = [f"`{name}`"]
        for group in groups:
            for budget in BUDGETS:
                run, reference = run_of(group, name, budget), run_of(group, REFERENCE, budget)
                gap = "" if run in (None, reference) else f" ({delta(less(group, run, reference, level))})"
                row.append("" if run is None else number(run.score) + gap)
        rows.append(row)
    return (
        f"{groups[0].cells[0].data['questions']} questions, native size, accuracy. Intervals of the differences are at {100 * level:.1f} %, for "
        f"{len(CANDIDATES)} candidates were tried (Bonferroni).\n\n{_report.table(header, rows)}\n\n{choice(groups)}"
    )


def choice(groups: Sequence[Group]) -> str:
    """The criterion that gains most on one half of the questions, 100 tokens, and what it gains on the other half."""
    budget = BUDGETS[0]
    pairs = {name: [(g, run_of(g, name, budget), run_of(g, REFERENCE, budget)) for g in groups] for name in CANDIDATES}
    gained = {name: np.mean([less(*pair, side=0).value for pair in pairs[name]]) for name in CANDIDATES}
    best = max(gained, key=lambda name: gained[name])
    said = [f"{group.benchmark.name} {delta(less(group, run, other, side=1))}" for group, run, other in pairs[best]]
    return (
        f"Best of the {len(CANDIDATES)} on one half of the questions, by the mean of both benchmarks at {budget} tokens: `{best}`. On the other half, which "
        f"took no part in the choice, less `{REFERENCE}`: {', '.join(said)}."
    )


def draw(groups: Sequence[Group]) -> Figure:
    """Score over tokens, a panel a benchmark: the quadtree, the grid scaled down, and the stock model."""
    figure = Figure(figsize=(9.2, 3.7), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), sharey=True), groups, strict=True):
        for criterion, (colour, label) in DRAWN.items():
            runs = [run_of(group, criterion, budget) for budget in (60, *BUDGETS)]
            points = [
                (
                    run.cell.max_tokens,
                    run.score.value,
                    run.score.value - run.score.low,
                    run.score.high - run.score.value,
                )
                for run in runs
                if run
            ]
            x, y, below, above = zip(*points, strict=True)
            axes.errorbar(x, y, (below, above), fmt="o-", color=colour, capsize=3, label=label)
        stock = group.baseline
        if stock is not None:
            axes.plot(64, stock.score.value, "D", ms=9, color="#3b7dd8", label="stock model, its own crop")
        axes.set_xscale("log")
        axes.set_xticks([60, 100, 250], ["60", "100", "250"])
        axes.set_xticks([], minor=True)
        axes.set_title(PANELS.get(group.benchmark.name, group.benchmark.name), fontsize=12)
        axes.set_xlabel("image tokens", fontsize=11)
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("right, %", fontsize=11)
    figure.axes[0].legend(fontsize=9, frameon=False)
    return figure


def domain_section() -> str:
    """What is lost of pictures of several kinds when they are rebuilt from a quarter of their tokens."""
    geometry, measures = read_geometry(None), ("ssim", "edges")
    header = ["criterion", *(f"{domain}, {measure}" for domain in DOMAINS for measure in measures)]
    arms = [PLAIN, *(name for name in NAMES if name != "random")]
    held: dict[str, list[str]] = {name: [PLAIN if name == PLAIN else f"`{name}`"] for name in arms}
    for files in DOMAINS.values():
        lost: dict[str, list[dict[str, float | None]]] = {name: [] for name in arms}
        for file in files:
            picture = bounded(read_image(file))
            plain = geometry.processor(size=None)
            rows, columns = plain.grid(picture.height, picture.width)
            budget = max(int(SHARE * rows * columns), 16)
            processors = {name: plain.with_options(max_tokens=budget, criterion=name) for name in arms[1:]}
            for name, values in measure(picture, processors, budget * geometry.side**2, read=False).items():
                lost[name].append(values)
        for name in arms:
            for each in measures:
                seen = [value for value in (values[each] for values in lost[name]) if value is not None]
                held[name].append(f"{np.mean(seen):.2f}" if seen else "")
    counts = ", ".join(f"{len(files)} of {domain}" for domain, files in DOMAINS.items())
    return (
        f"Pictures rebuilt from a quarter of the tokens of their own grid, merged at their own size: SSIM, and the share of strong edges that is kept; 1 is "
        f"the picture itself. Files of scikit-image, {counts}. No model was asked.\n\n"
        + _report.table(header, list(held.values()))
    )


def main() -> None:
    """Measure what is left to measure, and write."""
    run_sweep(SweepConfig(sweep=FOLDER / "sweeps/evidence.yaml", out=RESULTS))
    groups = group_results(find_results(RESULTS))
    points = [point for path in sorted(RESULTS.rglob(BIAS)) for point in read_points(path)]
    claims = f"{claim_table(groups).markdown()}\n\n{bias_claim_table(points).markdown()}"
    _report.write_section("claims", claims, PAGE)
    vstar = [group for group in groups if group.benchmark.name in PANELS][::-1]  # drawn first
    _report.write_section("criteria", criteria_section(vstar), PAGE)
    draw(vstar).savefig(FIGURE, dpi=130)
    _report.write_section("domains", domain_section(), PAGE)


if __name__ == "__main__":
    main()
