"""From what pictures lose to one recommended setting: gains over plain downscaling with intervals, a table, a plot, the words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.table import Table

from qlip.evaluation.statistics import Estimate, draw_counts, estimate
from qlip.images.names import Fit
from qlip.images.processor import QlipImageProcessor
from qlip.tools.geometry import Geometry
from qlip.tools.measure import MEASURES, PLAIN

FEWEST = 3  # pictures for which a measure must be known if it is to count, unless there are fewer
DEAR = 1.05  # times the budget: a threshold that takes more on average is not recommended
TITLES = {"ssim": "SSIM", "edges": "fine edges kept", "words": "words read"}
RULE = (
    "The gain is the mean over the measures of the mean difference from plain downscaling to the budget, picture by picture, with "
    "its 95 % interval. Recommended is the setting with the largest gain whose interval is above 0 and whose mean price is "
    "within 5 % of the budget; if there is none, plain downscaling."
)

Record = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Options of the preprocessing that are compared.

    Attributes:
        size: Shortest edge in pixels, None for pictures' own.
        criterion: The quadtree's.
        fit: How a picture keeps to the budget.
        alpha: The threshold where it counts, else None.
        max_tokens: The budget; None where the threshold alone decides.
    """

    size: int | None
    criterion: str
    fit: Fit
    alpha: float | None
    max_tokens: int | None

    @property
    def name(self) -> str:
        """What the setting is called in the table and in the journal."""
        how = "alpha" if self.max_tokens is None else self.fit
        return f"{how} {self.size or 'own'} {self.criterion}{'' if self.alpha is None else f' {self.alpha:g}'}"

    @property
    def options(self) -> dict[str, Any]:
        """The options that differ from nothing said, as `qlip.convert` takes them."""
        options = {"size": self.size, "criterion": self.criterion, "alpha": self.alpha, "max_tokens": self.max_tokens}
        given = {name: value for name, value in options.items() if value is not None or name == "size"}
        return given | ({"fit": self.fit} if self.fit == "scale" else {})

    def processor(self, geometry: Geometry) -> QlipImageProcessor:
        """The preprocessing."""
        return geometry.processor(**self.options)


@dataclass(frozen=True)
class Gain:
    """What a setting gains over plain downscaling.

    Attributes:
        setting: The setting.
        tokens: What each picture takes, ``(U,)``.
        values: Mean of each measure that is known.
        differences: Mean difference from plain downscaling of each measure that counts.
        total: The mean of those differences.
    """

    setting: Setting
    tokens: np.ndarray[Any, Any]
    values: Mapping[str, float]
    differences: Mapping[str, Estimate]
    total: Estimate


def gains(records: Sequence[Record], settings: Sequence[Setting]) -> list[Gain]:
    """The gain of every setting, the largest first."""
    found = []
    counted = [name for name in MEASURES if _known(records, name) >= min(FEWEST, len(records))]
    strata = tuple(str(record["arms"][PLAIN]["words"] is not None) for record in records)
    counts = draw_counts(strata)  # every resample has as many pictures with words
    for setting in settings:
        arms = [record["arms"][setting.name] for record in records]
        differences, samples = {}, []
        for measure in counted:
            known = np.array([arm[measure] is not None for arm in arms])
            pairs = [(arm[measure], record["arms"][PLAIN][measure]) for arm, record in zip(arms, records, strict=True)]
            delta = np.array([ours - plain for ours, plain in pairs if ours is not None])
            drawn = counts[:, known]
            samples.append(drawn @ delta / np.maximum(drawn.sum(1), 1))
            differences[measure] = estimate(float(delta.mean()), samples[-1])
        value = float(np.mean([each.value for each in differences.values()]))
        values = means(records, setting.name)
        tokens = np.array([arm["tokens"] for arm in arms])
        found.append(Gain(setting, tokens, values, differences, estimate(value, np.mean(samples, axis=0))))
    return sorted(found, key=lambda gain: -gain.total.value)


def means(records: Sequence[Record], name: str) -> dict[str, float]:
    """Mean of each measure of an arm over the pictures for which it is known."""
    found = {}
    for measure in MEASURES:
        values = [record["arms"][name][measure] for record in records]
        known = [value for value in values if value is not None]
        if known:
            found[measure] = float(np.mean(known))
    return found


def _known(records: Sequence[Record], measure: str) -> int:
    return sum(record["arms"][PLAIN][measure] is not None for record in records)


def best(found: Sequence[Gain], budget: int) -> Gain | None:
    """The setting that is recommended, see `RULE`; None for plain downscaling."""
    return next((gain for gain in found if gain.total.low > 0 and gain.tokens.mean() <= DEAR * budget), None)


def tabulate(found: Sequence[Gain], records: Sequence[Record]) -> Table:
    """A row for each setting, the largest gain first, and plain downscaling."""
    measures = list(means(records, PLAIN))
    title = f"{len(records)} pictures"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", padding=0)
    table.add_column("setting", no_wrap=True)
    table.add_column("tokens at\n10/50/90 %", justify="right", no_wrap=True)
    for measure in measures:
        table.add_column(TITLES[measure].replace(" ", "\n"), justify="right")
    table.add_column("gain\n(95 %)", justify="right", no_wrap=True)
    rows = [
        (gain.total.value, gain.setting.name, "/".join(f"{q:.0f}" for q in np.percentile(gain.tokens, (10, 50, 90))),
         gain.values, f"{gain.total.value:+.3f} ±{(gain.total.high - gain.total.low) / 2:.3f}")
        for gain in found
    ]  # fmt: skip
    rows.append((0.0, PLAIN, "the budget", means(records, PLAIN), "0"))
    for _, name, tokens, values, gain in sorted(rows, key=lambda row: -row[0]):
        style = "bold" if name == PLAIN else None
        table.add_row(name, tokens, *(f"{values[measure]:.3f}" for measure in measures), gain, style=style)
    return table


def advice(found: Sequence[Gain], records: Sequence[Record], geometry: Geometry, budget: int, skipped: int) -> str:
    """The setting that is recommended by `RULE`, and the lines to paste."""
    chosen = best(found, budget)
    setting = chosen.setting if chosen else Setting(None, "uniform", "prune", None, budget)
    options = {name: value for name, value in setting.options.items() if (name, value) != ("criterion", "derivative")}
    python = ", ".join(f"{name}={value!r}" for name, value in options.items())
    words = " ".join(
        f"--{name.replace('_', '-')} {'null' if value is None else value}" for name, value in options.items()
    )
    with_words = _known(records, "words")
    counted = "" if with_words >= min(FEWEST, len(records)) else ", so words do not count"
    lines = [
        f"Budget {budget} tokens; stock model {geometry.name}: {geometry.tokens or 'as many as a picture has'}.",
        f"Pictures with words: {with_words}{counted}.",
        *([f"Left out, because they cannot be read or cut: {skipped}; the log names them."] if skipped else []),
        f"Recommended: {setting.name if chosen else PLAIN}",
        "",
        f"    model, processor = qlip.convert(model, processor, {python})",
        f"    qlip show PICTURE {words}",
    ]
    return "\n".join(lines)


def draw_chart(found: Sequence[Gain], budget: int) -> Figure:
    """Differences from plain downscaling with their intervals: a panel for each measure and one for the gain."""
    panels = [*(found[0].differences if found else ()), "gain"]
    figure = Figure(figsize=(3.2 + 2.6 * len(panels), 1.6 + 0.3 * len(found)), layout="constrained")
    rows = np.arange(len(found))[::-1]
    chosen = best(found, budget)
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for row, gain in zip(rows, found, strict=True):
            value = gain.total if panel == "gain" else gain.differences[panel]
            colour = "#2e9e5b" if value.low > 0 else "#c0392b" if value.high < 0 else "#666666"
            axes.plot([value.low, value.high], [row, row], color=colour, lw=2)
            axes.plot(value.value, row, "o", color=colour, ms=6)
        axes.axvline(0, color="#111111", lw=1)
        axes.grid(axis="x", alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(TITLES.get(panel, "gain: the mean of these"), fontsize=10, loc="left")
        axes.set_yticks(rows, [f"{'> ' if gain is chosen else ''}{gain.setting.name}" for gain in found], fontsize=9)
    figure.suptitle(
        f"Difference from plain downscaling to {budget} tokens (right is better)", fontsize=11, x=0.01, ha="left"
    )
    return figure
