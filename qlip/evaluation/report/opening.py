"""What the report opens with: for every benchmark a sentence, a figure, and pictures with their leaves where these are at hand."""

import html
from collections.abc import Iterator

from matplotlib.figure import Figure

from qlip.evaluation.benchmarks.base import Record
from qlip.evaluation.report import tables
from qlip.evaluation.report.figures import BASELINE, QLIP
from qlip.evaluation.results import Group, Result
from qlip.evaluation.run.arm import load_arm
from qlip.shipped import is_shipped
from qlip.viz import draw_leaves

EXAMPLES = 2


def sentence(group: Group) -> str:
    """What converting buys on one benchmark, as HTML: the best setting of all, and the best that costs no more than stock."""
    name = f"<b>{html.escape(group.name)}</b>"
    stock, best = group.baseline, group.best
    if best is None:
        return (
            f"{name}: the stock model alone was asked, {tables.number(stock.score) if stock else 'and nothing else'}."
        )
    if stock is None:
        return f"{name}: {_said(best)}, the best of {len(group.contenders)} settings. The stock model was not asked."
    cheap = max((run for run in group.contenders if run.percent <= stock.percent), key=_score, default=None)
    said = f"{name}: the stock model scores {tables.number(stock.score)}. "
    if cheap is None:
        said += "No setting was measured at its price or below it. "
    elif cheap is not best:
        said += f"For no more tokens QLIP scores {_said(cheap)}. "
    said += f"The best of {len(group.contenders)} settings scores {_said(best)}."
    return f"{said} Settings are chosen on the questions that they are scored on."


def picture(group: Group) -> Figure | None:
    """Score over tokens of every setting, the stock model marked; None without a setting."""
    if not group.contenders:
        return None
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for run in group.contenders:
        axes.errorbar(
            run.percent, run.score.value, run.score.se, fmt="o", ms=6, color=QLIP, ecolor="#bbbbbb", capsize=2
        )
    if group.best is not None:
        axes.plot(group.best.percent, group.best.score.value, "o", ms=11, mfc="none", color="#2e9e5b", label="best")
    axes.plot([], [], "o", color=QLIP, label="QLIP, a dot a setting")
    if group.baseline is not None:
        stock = group.baseline
        axes.axhline(stock.score.value, color=BASELINE, lw=1, ls="--")
        axes.plot(stock.percent, stock.score.value, "D", ms=9, color=BASELINE, label="stock model")
    axes.set_xscale("log")
    ticks = [tick for tick in (5, 10, 25, 50, 100, 200, 400, 800, 1600) if _inside(tick, axes.get_xlim())]
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("image tokens, % of the stock model's", fontsize=11)
    axes.set_ylabel(f"{group.benchmark.primary}, {group.benchmark.name}", fontsize=11)
    axes.tick_params(labelsize=11)
    axes.legend(fontsize=10, frameon=False)
    axes.grid(alpha=0.25)
    return figure


def examples(group: Group) -> Iterator[Figure]:
    """Questions that the best setting answers and the stock model does not, with its leaves over their pictures.

    None unless the model comes with the package: for another one, weights and pictures would have to be loaded.
    """
    if group.best is None or group.baseline is None or not is_shipped(group.best.cell.model):
        return
    cell = group.best.cell
    won = _won(group.best, group.baseline)[:EXAMPLES]
    if not won:
        return
    source = group.benchmark.load(None)
    rows = {question.id: question.row for question in group.benchmark.questions(source, cell.prompt_style)}
    settings = load_arm(cell.model, cell.vision).processor.image_processor.settings
    for ours, theirs in won:
        view, leaves = settings.view_and_leaves(source.image(rows[ours["id"]]))
        asked = ours["prompt"].splitlines()[0]
        answers = [
            f"stock, {theirs['tokens']} tokens: {theirs['raw']}",
            f"QLIP, {ours['tokens']} tokens: {ours['raw']}",
        ]
        figure = Figure(figsize=(4.2, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.imshow(draw_leaves(view, leaves))
        axes.set_axis_off()
        axes.set_title("\n".join([asked, *answers]), fontsize=11, loc="left")
        yield figure


def _won(best: Result, stock: Result) -> list[tuple[Record, Record]]:
    """Answers of both to the questions that only the first answers."""
    theirs = {record["id"]: record for record in stock.records}
    pairs = [(record, theirs[record["id"]]) for record in best.records if record["id"] in theirs]
    return [(ours, other) for ours, other in pairs if ours["correct"] and not other["correct"]]


def _said(run: Result) -> str:
    return f"{tables.number(run.score)} with {run.percent:.0f} % of the tokens ({html.escape(run.label)})"


def _score(run: Result) -> float:
    return run.score.value


def _inside(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]
