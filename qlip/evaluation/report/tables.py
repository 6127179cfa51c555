"""The paper's tables from finished runs: rows of plain text, to be written as CSV, markdown and HTML."""

import csv
import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qlip.evaluation.benchmarks.base import Array
from qlip.evaluation.config import PAPER_RESULTS
from qlip.evaluation.report.paper import read_table, reported
from qlip.evaluation.results import Group, Result
from qlip.evaluation.statistics import Estimate, compare, held_out
from qlip.files import replacing_file


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Name of its file, without the ending.
        title: What it shows.
        header: Names of the columns.
        rows: The text of every field, row by row.
        folded: Whether the page shows it on demand alone.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False

    def write_csv(self, folder: Path) -> Path:
        """Write ``NAME.csv``."""
        path = folder / f"{self.name}.csv"
        with replacing_file(path) as new, new.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([[_harmless(cell) for cell in row] for row in (self.header, *self.rows)])
        return path

    def markdown(self) -> str:
        """As markdown, numbers to the right."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        return "\n".join(
            "| " + " | ".join(" ".join(cell.replace("|", r"\|").split()) for cell in row) + " |"
            for row in (self.header, rule, *self.rows)
        )

    def html(self) -> str:
        """As HTML; gains and losses whose interval leaves zero out are marked."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _harmless(text: str) -> str:
    """A field that no spreadsheet takes for a formula: questions, answers and names come from anywhere."""
    return f"'{text}" if re.match(r"[=@\t\r]|[+-][^\d.]", str(text)) else text


def _cell(text: str) -> str:
    mark = {"+": ' class="gain"', "-": ' class="loss"'}.get(text[:1], "") if text.endswith("*") else ""
    return f"<td{mark}>{html.escape(text)}</td>"


def number(estimate: Estimate) -> str:
    """``54.5 ± 3.6``: the value and its standard error."""
    return f"{estimate.value:.1f} ± {estimate.se:.1f}"


def delta(estimate: Estimate) -> str:
    """``+11.0 [+4.2, +17.8]*``: difference and 95 % interval, a star where the interval leaves zero out."""
    star = "*" if estimate.low > 0 or estimate.high < 0 else ""
    return f"{estimate.value:+.1f} [{estimate.low:+.1f}, {estimate.high:+.1f}]{star}"


def cross_fit(group: Group, baseline: Result) -> Estimate | None:
    """The delta of a choice that saw none of the questions it is scored on, each half serving the other in turn."""
    cells = {str(index): cell.records for index, cell in enumerate(group.contenders)}
    halves = [held_out(group.benchmark, cells, baseline.records, side) for side in (0, 1)]
    deltas = [half.delta for half in halves if half is not None]
    if len(deltas) < 2:
        return None
    value = sum(d.value for d in deltas) / 2
    se = math.hypot(*(d.se for d in deltas)) / 2  # the halves share no question
    return Estimate(value, se, value - 1.96 * se, value + 1.96 * se)


def benchmark_table(groups: Sequence[Group], paper: Path | None = PAPER_RESULTS) -> Table:
    """Table 1: stock model, best cell, their difference, and what is left of it on questions not chosen by.

    Args:
        groups: The runs.
        paper: The paper's numbers, which get a column; None leaves it out, for benchmarks that the paper does not have.
    """
    header = [
        "benchmark, model", "stock", "score", "QLIP, best of sweep", "of", "tokens %", "delta, same questions",
        "delta, held out", "best cell",
    ]  # fmt: skip
    if paper is not None:
        header.append("paper: stock, QLIP, delta")
    rows = []
    for group in groups:
        best = group.best
        theirs = reported(group.model, group.benchmark.name, paper) if paper and paper.is_dir() else None
        quoted = f"{theirs[0]:g}, {theirs[1]:g}, {theirs[1] - theirs[0]:+.1f}" if theirs else ""
        for preprocessing, baseline in group.baselines.items() or [("", None)]:
            stock = number(baseline.score) if baseline else ""
            ours = ["", "", "", "", "", ""]
            if best is not None:
                ours[:3] = [number(best.score), f"{len(group.contenders)}", f"{best.percent:.0f}"]
                ours[5] = best.label
            if best is not None and baseline is not None:
                ours[3] = delta(compare(group.benchmark, best.records, baseline.records)[group.benchmark.primary])
                fair = cross_fit(group, baseline)
                ours[4] = delta(fair) if fair else "too few questions"
            rows.append([group.name, preprocessing, stock, *ours, *([quoted] if paper is not None else [])])
    return Table("table1" if paper is not None else "pocket1", "Benchmarks, stock model and QLIP", header, rows)


def fine_grained_table(groups: Sequence[Group], paper: Path | None = PAPER_RESULTS) -> Table:
    """Table 2: V* by category, and POPE's F1; the paper's rows below ours, None for the pocket benchmarks, which have none."""
    vstar, pope = ("V*", "POPE") if paper is not None else ("vstar-pocket", "pope-pocket")
    header = ["model", f"{vstar} attributes", f"{vstar} relations", f"{vstar} overall", f"{pope} F1"]
    columns = ("direct_attributes", "relative_position", "accuracy")
    by_model: dict[str, list[str]] = {}
    for group in groups:
        benchmark = group.benchmark.name.removesuffix("-pocket")
        if benchmark not in ("vstar", "pope"):
            continue
        arms = [(f"{group.model}, stock, {baseline}", run) for baseline, run in group.baselines.items()]
        arms += [(f"{group.model} + QLIP, best of {len(group.contenders)}", group.best)] if group.best else []
        for name, run in arms:
            row = by_model.setdefault(name, ["", "", "", ""])
            if benchmark == "pope":
                row[3] = number(run.scores["f1"])
            else:
                row[:3] = [number(run.scores[column]) if column in run.scores else "" for column in columns]
    rows = [[name, *row] for name, row in by_model.items()]
    if paper is not None and paper.is_dir():
        for line in read_table("table2-fine-grained.csv", paper):
            cells = [line[k] for k in ("vstar_attributes", "vstar_relation", "vstar_overall", "pope_f1")]
            rows.append([f"paper: {line['model']}", *cells])
    return Table("table2" if paper is not None else "pocket2", "Fine detail and hallucination", header, rows)


def cell_table(groups: Sequence[Group]) -> Table:
    """Every run, with its difference from the stock model on the same questions."""
    header = ["group", "cell", "score", "delta to stock", "tokens %", "not understood %", "questions", "folder"]
    rows = []
    for group in groups:
        for run in [*group.baselines.values(), *group.cells]:
            against = ""
            rival = group.rival(run)
            if rival is not None and run is not rival:
                against = delta(compare(group.benchmark, run.records, rival.records)[group.benchmark.primary])
            tokens, unparsed = f"{run.percent:.1f}", f"{100 * run.unparsed:.1f}"
            asked = str(run.data["questions"])
            rows.append([group.name, run.label, number(run.score), against, tokens, unparsed, asked, run.folder.name])
    return Table("cells", "Every run", header, rows, folded=True)


def budget_table(group: Group, name: str, size: int | str) -> Table:
    """Criteria at one size and equal token budgets, with paired differences from the paper's criterion and from chance.

    Args:
        group: The runs; cells with a position of their own or a square crop are left out, and of several seeds the first
            counts.
        name: Name of the table.
        size: Shortest edge in pixels, or "native".
    """
    references = ("derivative", "random")
    primary = group.benchmark.primary
    runs: dict[tuple[int, str], Result] = {}
    for run in sorted(group.cells, key=lambda run: run.cell.seed):
        cell = run.cell
        plain = cell.crop != "square" and not cell.position and run.size == size
        if plain and cell.max_tokens is not None:
            runs.setdefault((cell.max_tokens, cell.criterion), run)
    rows = []
    for (budget, criterion), run in sorted(runs.items()):
        row = [f"{budget} tokens, {criterion}", number(run.score)]
        for reference in references:
            other = runs.get((budget, reference))
            if other is None or other is run:
                row.append("")
            else:
                row.append(delta(compare(group.benchmark, run.records, other.records)[primary]))
        rows.append(row)
    header = ["budget, criterion", "score", *(f"less {reference}" for reference in references)]
    return Table(name, f"{group.name}: criteria at equal budgets", header, rows)


@dataclass(frozen=True)
class ScoreGrid:
    """Scores over size and alpha, one of tables 3 to 6; NaN where there is no run.

    Attributes:
        title: What it shows.
        sizes: Shortest edges in pixels, ``S`` of them, or "native".
        alphas: Split thresholds, ``A`` of them.
        score: Mean score over seeds, ``(S, A)``.
        baseline: The stock model's score, if there is one.
    """

    title: str
    sizes: Sequence[int | str]
    alphas: Sequence[float]
    score: Array
    baseline: float | None

    def table(self, name: str) -> Table:
        """As a table."""
        header = ["shortest edge", *(f"{alpha:g}" for alpha in self.alphas)]
        rows = [
            [str(size), *("" if np.isnan(value) else f"{value:.2f}" for value in row)]
            for size, row in zip(self.sizes, self.score, strict=True)
        ]
        return Table(name, self.title, header, rows, folded=True)


def score_grids(group: Group) -> list[ScoreGrid]:
    """The sweep of a group over size and alpha, one grid of scores for each criterion, crop and position."""
    kinds: dict[tuple[str, str, str], dict[tuple[int | str, float], list[float]]] = {}
    for run in group.cells:
        cell = run.cell
        if cell.max_tokens is None and cell.criterion != "uniform":  # alpha has no part in the others
            kind = (cell.criterion, cell.crop, cell.position or "")
            kinds.setdefault(kind, {}).setdefault((run.size, cell.alpha), []).append(run.score.value)
    made = []
    for (criterion, crop, position), places in sorted(kinds.items()):
        sizes = sorted({size for size, _ in places}, key=lambda size: (isinstance(size, str), size))
        alphas = sorted({alpha for _, alpha in places})
        values = np.full((len(sizes), len(alphas)), np.nan)
        for (size, alpha), scores in places.items():
            values[sizes.index(size), alphas.index(alpha)] = sum(scores) / len(scores)
        words = [group.name, criterion, *(["square crop"] if crop == "square" else []), *filter(None, [position])]
        baseline = group.baseline.score.value if group.baseline else None
        made.append(ScoreGrid(", ".join(words), sizes, alphas, values, baseline))
    return made
