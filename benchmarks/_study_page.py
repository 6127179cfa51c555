"""Table and figures of docs/training-study.md, from what training_study.py has measured."""

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import _report
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qlip.evaluation.statistics import Estimate, draw_counts, estimate

ROOT = Path(__file__).parents[1]
PAGE, IMAGES = ROOT / "docs/training-study.md", ROOT / "docs/images"
WANTED = 5e-7  # R that the paper asks for
LOOKS = (  # colour, mark, and what it means
    ("#222222", "D", "not trained"),
    ("#2e9e5b", "o", "trained, R below 5e-7"),
    ("#c0392b", "s", "trained, R above it"),
)
CURVES = {
    "project-1": "solved, projected every step",
    "base": "solved, projected every 10 steps",
    "project-50": "solved, projected every 50 steps",
    "project-0": "solved, never projected",
    "random": "random, projected every 10 steps",
    "paper": "random, never projected (the paper)",
}
FIGURES = """![Right answers of every variant less those of the solved start](images/training-study-answers.png)

![R and off-grid error over the steps](images/training-study-curves.png)

![Right answers over cos [CLS] at four sizes](images/training-study-cls.png)"""
Values = np.ndarray


class Study:
    """The variants with their answers, compared question by question.

    Args:
        found: What was measured of each variant, by its name.
    """

    def __init__(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        self.found = found
        self.trained = [name for name in found if found[name]["variant"]["steps"]]
        self.place = np.array(found["solved"]["place"])

    def right(self, name: str) -> Values:
        """Percent of the views and benchmarks in which a variant answers each question right, ``(questions,)``."""
        return 100 * np.mean(list(self.found[name]["answers"].values()), axis=0)

    def mean(self, name: str) -> Estimate:
        """Percent of right answers."""
        return _mean(self.right(name))

    def gap(self, name: str, other: str, of: Values | None = None) -> Estimate:
        """Percent of right answers less that of another variant; ``of`` picks questions."""
        difference = self.right(name) - self.right(other)
        return _mean(difference if of is None else difference[of])

    def stands(self, gap: Estimate) -> bool:
        """Whether a difference is one also when all trained variants are counted (Bonferroni)."""
        limit = NormalDist().inv_cdf(1 - 0.025 / len(self.trained))
        return gap.se > 0 and abs(gap.value) > limit * gap.se

    def exact(self, name: str) -> bool:
        """Whether R is what the paper asks for."""
        return self.found[name].get("R", 0.0) < WANTED

    def held_out(self, half: int) -> tuple[str, Estimate]:
        """The trained variant with R as wanted that is best on one half of the questions, and its gap to the solved start on the other."""
        even = np.arange(len(self.place)) % 2 == half
        best = max(filter(self.exact, self.trained), key=lambda name: self.right(name)[even].mean())
        return best, self.gap(best, "solved", ~even)


def _mean(values: Values) -> Estimate:
    return estimate(values.mean(), draw_counts(("",) * len(values)) @ values / len(values))


def _interval(value: Estimate, star: bool = False) -> str:
    return f"{value.value:+.1f} [{value.low:+.1f}, {value.high:+.1f}]{'*' if star else ''}"


def write(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw the figures, and put the table into its section of the page."""
    study = Study(found)
    for name, figure in {"answers": answers(study), "curves": curves(study), "cls": cls(study)}.items():
        figure.savefig(IMAGES / f"training-study-{name}.png", dpi=110)
    sizes = list(found["solved"]["cos"])
    head = ["position", "R", "off-grid", "bias, 224 px", *(f"cos, {size} px" for size in sizes), "answers, %"]
    head += ["less bicubic", "less solved", "less solved, side and height"]
    chosen = [study.held_out(half) for half in (0, 1)]
    halves = "; ".join(
        f"{found[name]['variant']['factor']}, {_interval(gap)} on the other half" for name, gap in chosen
    )
    text = (
        f"{_verdict(study)} The best with R below 5e-7 on one half of the questions, less the solved start: {halves}.\n\n"
        f"{FIGURES}\n\n{_report.table(head, [_row(study, name, sizes) for name in found])}"
    )
    _report.write_section("study", text, PAGE)


def _verdict(study: Study) -> str:
    """How many variants there are, and which of them answer differently from the solved start."""
    gaps = {name: study.gap(name, "solved") for name in study.trained}
    stand = [name for name in study.trained if study.stands(gaps[name])]
    better, worse = ([study.found[n]["variant"]["factor"] for n in stand if s * gaps[n].value > 0] for s in (1, -1))
    exact = sum(map(study.exact, study.trained))
    return (
        f"{len(study.trained)} trained variants, {exact} of them with R below 5e-7. Counting all of them, better than the solved start: "
        f"{'; '.join(better) or 'none'}. Worse: {'; '.join(worse) or 'none'}."
    )


def _row(study: Study, name: str, sizes: list[str]) -> list[str]:
    of = study.found[name]
    known = [f"{of['R']:.1g}", f"{of['offgrid']:.2g}"] if "R" in of else ["", ""]
    row = [of["variant"]["factor"], *known, f"{of['bias']['224']:.3f}", *(f"{of['cos'][size]:.3f}" for size in sizes)]
    gaps = [("bicubic", None), ("solved", None), ("solved", study.place)]
    row.append(f"{study.mean(name).value:.1f}")
    for other, questions in gaps:
        gap = study.gap(name, other, questions)
        row.append("" if name == other else _interval(gap, study.stands(gap)))
    return row


def _look(study: Study, name: str) -> tuple[str, str]:
    """Colour and mark of a variant."""
    return LOOKS[0 if name not in study.trained else 1 if study.exact(name) else 2][:2]


def answers(study: Study) -> Figure:
    """Right answers of every variant less those of the solved start."""
    figure = Figure(figsize=(9, 0.24 * len(study.found) + 1.3), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = [name for name in study.found if name != "solved"]
    titles = ("all questions", "side and height")
    for panel, title, questions in zip(panels, titles, (None, study.place), strict=True):
        for row, name in enumerate(names):
            gap = study.gap(name, "solved", questions)
            ends = [[gap.value - gap.low], [gap.high - gap.value]]
            colour, mark = _look(study, name)
            panel.errorbar(gap.value, row, xerr=ends, fmt=mark, ms=4, lw=1.4, color=colour)
        panel.axvline(0, color="grey", lw=1, ls="--")
        panel.set_title(title, fontsize=10, loc="left")
        panel.set_xlabel("right answers less the solved start's, points")
        panel.grid(axis="x", alpha=0.25)
    panels[0].set_yticks(range(len(names)), [study.found[name]["variant"]["factor"] for name in names], fontsize=8)
    panels[0].invert_yaxis()
    _key(figure, panels[0])
    return figure


def _key(figure: Figure, panel: Axes) -> None:
    """What the colours mean, below."""
    for colour, mark, label in LOOKS:
        panel.plot([], [], mark, ms=5, color=colour, label=label)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)


def curves(study: Study) -> Figure:
    """R and off-grid error over the steps, for starts and projections."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, column, title in zip(panels, (1, 2), ("R", "off-grid error"), strict=True):
        for number, (name, label) in enumerate(CURVES.items()):
            points = np.array(study.found[name]["curve"])
            panel.plot(points[:, 0], points[:, column], color=f"C{number}", lw=1.4, label=label)
        panel.set_yscale("log")
        panel.set_title(title, fontsize=10, loc="left")
        panel.set_xlabel("step")
        panel.grid(alpha=0.25)
    panels[0].axhline(WANTED, color="grey", ls=":", lw=1.2, label="what the paper asks for")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )
    return figure


def cls(study: Study) -> Figure:
    """Right answers over cos [CLS], a panel a size, a point a variant."""
    sizes = list(study.found["solved"]["cos"])
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).flat
    for panel, size in zip(panels, sizes, strict=True):
        for name in sorted(study.found, key=study.trained.__contains__, reverse=True):
            x, y = study.found[name]["cos"][size], study.mean(name).value
            colour, mark = _look(study, name)
            panel.plot(x, y, mark, ms=5, alpha=0.8, color=colour)
        panel.set_title(f"{size} px", fontsize=10, loc="left")
        panel.set_xlabel("cos [CLS]")
        panel.grid(alpha=0.25)
    for panel in (panels[0], panels[2]):
        panel.set_ylabel("right answers, %")
    _key(figure, panels[0])
    return figure
