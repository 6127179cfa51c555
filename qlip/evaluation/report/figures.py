"""The paper's figures with matplotlib, each a function from numbers to a figure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullFormatter

from qlip.evaluation.benchmarks.base import Array
from qlip.evaluation.bias_points import BiasPoint
from qlip.evaluation.report.paper import PaperSweep
from qlip.evaluation.report.tables import ScoreGrid
from qlip.evaluation.results import Group, Result

GAIN, BASELINE, RANDOM, QLIP = "#2e9e5b", "#c0392b", "#3b7dd8", "#222222"
POSITIONS = {
    "": QLIP, "mlp": QLIP, "solve": QLIP,
    "bicubic": "#c0392b", "bilinear": "#e08a1e", "nearest": "#7d5ba6", "zero": "#888888",
}  # fmt: skip
CRITERIA = {
    "derivative": QLIP, "gradient": "#2e9e5b", "variance": "#e08a1e", "entropy": "#7d5ba6", "reconstruction": "#17a2a2",
    "random": RANDOM,
}  # fmt: skip
WEIGHTINGS = {"once": "once", "area": "by area"}
TREES = {"whole grid": "-", "quadtree, leaves count once": "--", "quadtree, leaves count by area": "-."}


@dataclass(frozen=True)
class Curve:
    """One line: scores over tokens or alphas.

    Attributes:
        size: Shortest edge in pixels, or "native".
        x: Tokens in percent of the stock model's, or alphas, ``(A,)``.
        y: Scores, ``(R, A)``, a row for each repetition.
    """

    size: int | str
    x: Array
    y: Array


def heat_map(grid: ScoreGrid) -> Figure:
    """Tables 3 to 6: score over size and alpha, green above the stock model, red below; the best cell is framed."""
    rows, columns = grid.score.shape
    figure = Figure(figsize=(max(2.2 + 0.46 * columns, 7.2), 1.5 + 0.3 * rows), layout="constrained")
    axes = figure.subplots()
    low, high = float(np.nanmin(grid.score)), float(np.nanmax(grid.score))
    middle = grid.baseline if grid.baseline is not None else (low + high) / 2
    norm = TwoSlopeNorm(middle, min(low, middle - 1e-6), max(high, middle + 1e-6))
    axes.imshow(grid.score, cmap=_red_white_green(), norm=norm, aspect="auto")
    for (i, j), value in np.ndenumerate(grid.score):
        if not np.isnan(value):
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", fontsize=7, color="#111111")
    i, j = np.unravel_index(np.nanargmax(grid.score), grid.score.shape)
    axes.add_patch(_frame(float(j), float(i)))
    axes.set_xticks(range(columns), [f"{alpha:g}" for alpha in grid.alphas], fontsize=8)
    axes.set_yticks(range(rows), [str(size) for size in grid.sizes], fontsize=8)
    axes.set_xlabel("alpha")
    axes.set_ylabel("shortest edge, px")
    stock = "" if grid.baseline is None else f" (white: stock model, {grid.baseline:.1f})"
    missing = f"; grey: {int(np.isnan(grid.score).sum())} not measured" if np.isnan(grid.score).any() else ""
    axes.set_title(grid.title + stock + missing, fontsize=9, loc="left")
    return figure


def accuracy_over_tokens(title: str, metric: str, curves: Sequence[Curve], baselines: Mapping[str, float]) -> Figure:
    """Figures 6 and 10 to 17: one line a size; the region "better with fewer tokens" is shaded."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    colour = _size_colours([curve.size for curve in curves])
    for curve in curves:
        axes.plot(curve.x, curve.y.mean(0), "o-", ms=3.5, lw=1.2, color=colour[curve.size], label=f"{curve.size}")
    values = [value for curve in curves for value in curve.y.mean(0)] + list(baselines.values())
    pad = 0.06 * max(max(values) - min(values), 1)
    axes.set_ylim(min(values) - pad, max(values) + pad)
    _tokens_axis(axes, [x for curve in curves for x in curve.x])
    styles = ("--", ":")
    for (name, value), style in zip(baselines.items(), styles, strict=False):
        axes.axhline(value, color=BASELINE, lw=1, ls=style, label=f"stock, {name}")
    if baselines:
        left = axes.get_xlim()[0]
        stock = max(baselines.values())
        axes.fill_between([left, 100], stock, max(values) + pad, color=GAIN, alpha=0.12, lw=0)
        axes.text(left * 1.04, max(values) + 0.5 * pad, "better with fewer tokens", color=GAIN, fontsize=8, va="center")
    axes.set_ylabel(metric)
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(title="shortest edge, px", fontsize=7, title_fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def selection(title: str, metric: str, lines: Mapping[str, Sequence[Curve]], baseline: float | None, x: str) -> Figure:
    """Figures 7, 18 and 19: a criterion against random selection, a panel a size; random as a band over its seeds.

    Args:
        title: Title of the figure.
        metric: Name of the score.
        lines: Curves by criterion; those of ``random`` light from least to most, dark one standard deviation about
            the mean.
        baseline: The stock model's score.
        x: What the axis shows, ``tokens`` or ``alpha``.
    """
    named = [(name, curve) for name, curves in lines.items() for curve in curves]
    sizes = sorted({curve.size for _, curve in named}, key=lambda size: (isinstance(size, str), size))
    columns = min(6, len(sizes))
    rows = -(-len(sizes) // columns)
    figure = Figure(figsize=(max(2.1 * columns + 2, 7.2), max(1.75 * rows + 0.8, 3.4)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, sharey=True, squeeze=False)).flatten()
    for panel, size in zip(panels, sizes, strict=False):
        here = [(name, curve) for name, curve in named if curve.size == size]
        for name, curve in here:
            if name == "random":
                _band(panel, curve)
            else:
                panel.plot(curve.x, curve.y.mean(0), "-", color=QLIP, lw=1.3, label=name)
        if baseline is not None:
            panel.axhline(baseline, color=BASELINE, lw=0.8, ls="--", label="stock model")
        if x == "tokens":
            _tokens_axis(panel, [value for _, curve in named for value in curve.x], label=False)
        panel.set_title(f"{size} px" if isinstance(size, int) else size, fontsize=8)
        panel.tick_params(labelsize=7)
    for panel in panels[len(sizes) :]:
        panel.set_visible(False)
    tokens = "image tokens, % of the stock model's (logarithmic)"
    figure.supxlabel(tokens if x == "tokens" else "alpha (random: probability of merging)", fontsize=9)
    figure.supylabel(metric, fontsize=9)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    shown = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(shown.values(), shown.keys(), loc="outside right center", fontsize=8, frameon=False)
    return figure


def criteria(title: str, metric: str, lines: Mapping[str, Curve], baseline: float | None) -> Figure:
    """Criteria against each other at equal budgets (the paper's open question 2), a line a criterion."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, curve in lines.items():
        axes.plot(curve.x, curve.y.mean(0), "o-", ms=3.5, lw=1.3, color=CRITERIA.get(name), label=name)
    if baseline is not None:
        axes.axhline(baseline, color=BASELINE, lw=1, ls="--", label="stock model")
    _tokens_axis(axes, [x for curve in lines.values() for x in curve.x])
    axes.set_ylabel(metric)
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def accuracy_over_size(
    title: str, metric: str, lines: Mapping[str, tuple[Array, Array]], baseline: float | None
) -> Figure:
    """Figure 5: score over image size without a quadtree, a line a position ``(sizes, scores)``."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, (sizes, scores) in lines.items():
        axes.plot(sizes, scores, "o-", ms=3.5, lw=1.4, color=POSITIONS.get(name, RANDOM), label=name or "qlip")
    if baseline is not None:
        axes.axhline(baseline, color=BASELINE, lw=1, ls="--", label="stock model")
    axes.set_xlabel("shortest edge, px")
    axes.set_ylabel(metric)
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.25)
    return figure


def biases(points: Sequence[BiasPoint]) -> Figure:
    """Figure 4: mesoscopic measure, interpolation bias and cos [CLS] over size; broken lines are with quadtree."""
    figure = Figure(figsize=(12.6, 3.8), layout="constrained")
    mesoscopic, interpolation, cosine = panels = figure.subplots(1, 3)
    titles = ("cos [CLS], positions zero (mesoscopic)", "interpolation bias (eq. 1)", "cos [CLS]")
    lines: dict[tuple[str, str], list[BiasPoint]] = {}
    for point in points:
        tree = f"quadtree, leaves count {WEIGHTINGS[point.weighting]}" if point.quadtree else "whole grid"
        lines.setdefault((point.position, tree), []).append(point)
    for (position, tree), mine in lines.items():
        sizes = [point.size for point in mine]
        line = partial(Axes.plot, color=POSITIONS[position], ls=TREES[tree], lw=1.4)
        line(mesoscopic if position == "zero" else cosine, sizes, [point.cosine for point in mine])
        if position != "zero":
            values = [point.interpolation_bias for point in mine if point.interpolation_bias is not None]
            line(interpolation, sizes, values)
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=10, loc="left")
        panel.set_xlabel("side of the image, px")
        panel.grid(alpha=0.25)
    colours = [
        Line2D([], [], marker="s", ls="", color=POSITIONS[name], label=name)
        for name in dict.fromkeys(name for name, _ in lines)
    ]
    kinds = [
        Line2D([], [], color="#888888", ls=TREES[tree], label=tree) for tree in dict.fromkeys(tree for _, tree in lines)
    ]
    figure.legend(handles=colours + kinds, loc="outside lower center", ncols=7, fontsize=8, frameon=False)
    return figure


def paper_grid(sweep: PaperSweep) -> ScoreGrid:
    """One of the paper's tables 3 to 6."""
    title = f"paper, table {sweep.number}: V*, LLaVA-QLIP-{sweep.model.upper()}, {sweep.criterion} selection"
    return ScoreGrid(title, sweep.sizes, sweep.alphas, sweep.accuracy, sweep.baseline)


def paper_curves(sweep: PaperSweep) -> list[Curve]:
    """A paper's sweep as curves over alpha."""
    x = np.array(sweep.alphas)
    return [Curve(size, x, row[None]) for size, row in zip(sweep.sizes, sweep.accuracy, strict=True)]


def curves(cells: Iterable[Result]) -> list[Curve]:
    """Cells as curves over tokens, a curve a size; cells that differ in their seed alone are repetitions."""
    by_size: dict[int | str, dict[tuple[float, int | None], list[Result]]] = {}
    for run in cells:
        place = (run.cell.alpha, run.cell.max_tokens)
        by_size.setdefault(run.size, {}).setdefault(place, []).append(run)
    made = []
    for size, places in by_size.items():
        runs = sorted(places.values(), key=lambda cells: sum(cell.percent for cell in cells) / len(cells))
        repeats = min(len(cells) for cells in runs)
        x = np.array([sum(cell.percent for cell in cells) / len(cells) for cells in runs])
        made.append(Curve(size, x, np.array([[cells[i].score.value for cells in runs] for i in range(repeats)])))
    return sorted(made, key=lambda curve: (isinstance(curve.size, str), curve.size))


def sweep_kinds(group: Group) -> dict[tuple[str, str, str], list[Result]]:
    """The cells of a group by criterion, crop and position: what may share a figure."""
    kinds: dict[tuple[str, str, str], list[Result]] = {}
    for run in group.cells:
        kinds.setdefault((run.cell.criterion, run.cell.crop, run.cell.position or ""), []).append(run)
    return kinds


def _band(panel: Axes, curve: Curve) -> None:
    mean, spread = curve.y.mean(0), curve.y.std(0)
    if len(curve.y) > 1:
        panel.fill_between(curve.x, curve.y.min(0), curve.y.max(0), color=RANDOM, alpha=0.15, lw=0)
        panel.fill_between(curve.x, mean - spread, mean + spread, color=RANDOM, alpha=0.3, lw=0)
    panel.plot(curve.x, mean, "-", color=RANDOM, lw=1.1, label=f"random, {len(curve.y)} seed{'s' * (len(curve.y) > 1)}")


def _tokens_axis(axes: Axes, values: Sequence[float], label: bool = True) -> None:
    """A logarithmic axis in percent of the stock model's tokens, 100 % marked."""
    axes.set_xscale("log")
    low, high = min([*values, 90.0]), max([*values, 110.0])
    axes.set_xlim(low / 1.12, high * 1.12)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low / 1.12 <= tick <= high * 1.12]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(100, color="#8899bb", lw=0.8, ls="--")
    if label:
        axes.set_xlabel("image tokens, % of the stock model's (logarithmic)")


def _size_colours(sizes: Sequence[int | str]) -> dict[int | str, tuple[float, ...]]:
    scale = Normalize(0, max(len(sizes) - 1, 1))
    return {size: colormaps["viridis"](0.9 * scale(i)) for i, size in enumerate(sizes)}


def _red_white_green() -> Colormap:
    return LinearSegmentedColormap.from_list("stock", ["#f28b82", "#ffffff", "#6fcf8f"]).with_extremes(bad="#eeeeee")


def _frame(column: float, row: float) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#111111", lw=1.6)
