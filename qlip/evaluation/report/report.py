"""One page with every table and figure that the finished runs allow, and the paper's numbers beside them."""

import base64
import html
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qlip._version import __version__
from qlip.evaluation.benchmarks.base import Array
from qlip.evaluation.bias_points import BIAS, BiasPoint, read_points
from qlip.evaluation.config import ReportConfig
from qlip.evaluation.report import claims, figures, opening, tables
from qlip.evaluation.report.page import METHOD, STYLE
from qlip.evaluation.report.paper import read_sweeps
from qlip.evaluation.results import Group, Result, find_results, group_results, missing_cells
from qlip.files import replacing_folder, write_bytes, write_text

log = logging.getLogger(__name__)

UNCUT = "uniform"
PARTS = ("index.html", "report.md", "tables", "figures")  # whatever else lies in the folder is the user's
Exhibit = tuple[str, "tables.Table | Figure"]  # with its name
Bias = tuple[str, list[BiasPoint]]  # the points of a figure 4, with the name of its folder


@dataclass(frozen=True)
class Section:
    """What stands under one heading of the page.

    Attributes:
        title: The heading.
        text: What to know about it, as HTML.
        exhibits: Tables and figures with their names.
        first: Whether it opens the page: its figures stand side by side, and shrink with the screen.
    """

    title: str
    text: str
    exhibits: list[Exhibit]
    first: bool = False


def write_report(config: ReportConfig) -> Path:
    """Write ``index.html``, ``report.md``, ``tables/*.csv`` and ``figures/*.png``, whole or not at all; returns the page.

    Raises:
        ValueError: if there is no finished run.
    """
    groups = group_results(find_results(config.dir))
    out = config.out or config.dir / "report"
    biases = read_biases(config.dir)
    sections = [opening_section(groups, config.dir), *claim_sections(groups, biases)]
    sections += [*our_sections(groups, config.paper), *bias_sections(biases)]
    if config.paper.is_dir():
        sections.append(paper_section(config.paper))
    with replacing_folder(out, PARTS) as new:
        _write_sections(sections, new)
    return out / "index.html"


def _write_sections(sections: Sequence[Section], out: Path) -> None:
    pages, lines = [], ["# QLIP: evaluation", ""]
    for section in sections:
        body, markdown = [], []
        for name, exhibit in section.exhibits:
            shown = _show(name, exhibit, out)
            body.append(shown[0])
            markdown.append(shown[1])
        inner = f"<div class='short'>{''.join(body)}</div>" if section.first else "".join(body)
        kind = " class='first'" if section.first else ""
        head = f"<h2>{html.escape(section.title)}</h2><div class='text'>{section.text}</div>"
        pages.append(f"<section{kind}>{head}{inner}</section>")
        lines += [f"## {section.title}", "", section.text, "", *markdown]
    write_text(out / "report.md", "\n".join(lines) + "\n")
    write_text(out / "index.html", _page("".join(pages)))


def opening_section(groups: Sequence[Group], root: Path) -> Section:
    """What a reader should know first, and which cells are missing."""
    text = "".join(f"<p>{opening.sentence(group)}</p>" for group in groups)
    missing, planned = missing_cells(root)
    if missing:
        names = ", ".join(html.escape(name) for name in missing)
        text += (
            f"<p><b>{len(missing)} of {planned} cells of the sweep are missing</b>; the same <code>sweep</code> command "
            f"measures them. <details><summary>Their names</summary><p>{names}</p></details></p>"
        )
    exhibits: list[Exhibit] = []
    for index, group in enumerate(groups):
        score = opening.picture(group)
        exhibits += [(f"g{index}-score", score)] if score else []
        exhibits += [(f"g{index}-example{i}", figure) for i, figure in enumerate(opening.examples(group))]
    return Section("In short", text, exhibits, first=True)


def our_sections(groups: list[Group], paper: Path) -> Iterator[Section]:
    """What the runs themselves say; drawn questions and the paper's never share a table."""
    drawn = [group for group in groups if group.is_drawn]
    real = [group for group in groups if not group.is_drawn]
    if real:
        first = [tables.benchmark_table(real, paper), tables.fine_grained_table(real, paper)]
        yield Section("Benchmarks (tables 1 and 2)", METHOD, [(table.name, table) for table in first])
    if drawn:
        first = [tables.benchmark_table(drawn, None), tables.fine_grained_table(drawn, None)]
        text = f"<p>Drawn scenes: not to be compared with anything measured on photographs.</p>{METHOD}"
        yield Section("Pocket benchmarks (as tables 1 and 2)", text, [(table.name, table) for table in first])
    for index, group in enumerate(groups):
        exhibits = [*group_exhibits(group, f"g{index}-{group.benchmark.name}")]
        if exhibits:
            yield Section(f"Sweep: {group.name}", _spread(group), exhibits)
    cells = tables.cell_table(groups)
    yield Section("Every run", "Differences are paired: the same questions, the same resamples.", [(cells.name, cells)])


def claim_sections(groups: Sequence[Group], biases: Sequence[Bias]) -> Iterator[Section]:
    """What the runs say of claims, a section a model; none where they test none. Of several figures 4 none is theirs."""
    drift = biases[0][1] if len(biases) == 1 else []
    for index, model in enumerate(sorted({group.model for group in groups})):
        ours = [group for group in groups if group.model == model]
        answers = claims.claim_table(ours, f"claims{index}")
        encoder = claims.bias_claim_table(drift, f"bias_claims{index}")
        if answers.rows:  # points of figure 4 by themselves are figure 4
            tables = [table for table in (answers, encoder) if table.rows]
            yield Section(f"Claims: {model}", claims.METHOD, [(table.name, table) for table in tables])


def read_biases(root: Path) -> list[Bias]:
    """Every finished ``evaluate.py bias`` under a folder; the log names those that are damaged."""
    found = []
    for path in sorted(root.rglob(BIAS)):
        try:
            found.append((path.parent.name, read_points(path)))
        except (OSError, ValueError) as error:
            log.warning("left out: %s", error)
    return found


def bias_sections(biases: Sequence[Bias]) -> Iterator[Section]:
    """Figure 4, for every finished ``evaluate.py bias``."""
    for index, (name, points) in enumerate(biases):
        text = (
            f"From {html.escape(name)}/bias.json. Broken lines are with quadtree, dashes and dots with leaves counted "
            f"by their area; 1 is no mesoscopic bias."
        )
        yield Section("Biases of the encoder (figure 4)", text, [(f"bias{index}", figures.biases(points))])


def group_exhibits(group: Group, stem: str) -> Iterator[Exhibit]:
    """The figures and tables that a group has the runs for."""
    metric = f"{group.benchmark.name}, {group.benchmark.primary}"
    stock = group.baseline.score.value if group.baseline else None
    baselines = {name: run.score.value for name, run in group.baselines.items()}
    kinds = figures.sweep_kinds(group)
    uncut = _uncut_lines(kinds)
    if uncut:
        title = f"{group.name}: image size without a quadtree (as figure 5)"
        yield f"{stem}-size", figures.accuracy_over_size(title, metric, uncut, stock)
    for (criterion, crop, position), cells in sorted(kinds.items()):
        if criterion in (UNCUT, "random") or len(cells) < 2:
            continue
        name = "-".join(filter(None, (stem, criterion, crop, position)))
        title = f"{group.name}, {criterion}{', square crop' if crop == 'square' else ''} (as figures 6, 10 to 17)"
        ours = figures.curves(cells)
        yield f"{name}-tokens", figures.accuracy_over_tokens(title, metric, ours, baselines)
        chance = kinds.get(("random", crop, position), [])
        if chance:
            title = f"{group.name}: {criterion} and random selection (as figures 7, 18, 19)"
            pair = {criterion: ours, "random": figures.curves(chance)}
            yield f"{name}-random", figures.selection(title, metric, pair, stock, "tokens")
    for size, lines in _budget_lines(kinds).items():
        title = f"{group.name}: criteria at equal token budgets, {size}{' px' if size != 'native' else ''}"
        name = f"{stem}-criteria-{size}"
        yield name, figures.criteria(title, metric, lines, stock)
        yield name, tables.budget_table(group, name, size)
    for index, grid in enumerate(tables.score_grids(group)):
        if grid.score.size > 1:
            table = grid.table(f"{stem}-grid{index}")
            yield table.name, figures.heat_map(grid)
            yield table.name, table


def paper_section(folder: Path) -> Section:
    """The paper's own sweeps, drawn as ours are; over alpha, for the paper does not give the tokens."""
    exhibits: list[Exhibit] = []
    sweeps = read_sweeps(folder)
    for model in sorted({sweep.model for sweep in sweeps}, key=len):
        mine = {sweep.criterion: sweep for sweep in sweeps if sweep.model == model}
        derivative, random = mine["derivative"], mine["random"]
        uncut = {"mlp": (np.array(random.sizes), random.accuracy[:, 0])}  # never merging is random with alpha 0
        title = f"paper, figure 5: V*, {model.upper()}, no quadtree"
        exhibits.append(
            (f"paper-{model}-size", figures.accuracy_over_size(title, "accuracy, %", uncut, random.baseline))
        )
        title = f"paper, figures 7, 18, 19: V*, {model.upper()}"
        pair = {"derivative": figures.paper_curves(derivative), "random": figures.paper_curves(random)}
        exhibits.append(
            (f"paper-{model}-random", figures.selection(title, "accuracy, %", pair, derivative.baseline, "alpha"))
        )
        for sweep in (derivative, random):
            exhibits.append((f"paper-table{sweep.number}", figures.heat_map(figures.paper_grid(sweep))))
    best = max(sweeps, key=lambda sweep: sweep.accuracy.max())
    text = (
        f"Tables 3 to 6 and the figures that follow from them, as facts from arXiv 2505.23004v2; nothing here was measured "
        f"by us. The paper quotes the best cell of each sweep, chosen on the test set: for {best.model.upper()} "
        f"{best.accuracy.max():.1f} out of {best.accuracy.size} cells whose median is {np.median(best.accuracy):.1f}. The "
        f"standard error of one cell is 3.6 points, so the best of several hundred is some points above what it would "
        f"score on fresh questions. The paper's tables do not give tokens; alpha takes their place on the axes."
    )
    return Section("The paper's own sweeps (tables 3 to 6, figures 5, 7, 18, 19)", text, exhibits)


def _uncut_lines(kinds: dict[tuple[str, str, str], list[Result]]) -> dict[str, tuple[Array, Array]]:
    """Scores over size of the cells without a quadtree, by position; only where there are two sizes or more."""
    lines = {}
    for (criterion, crop, position), cells in sorted(kinds.items()):
        points = sorted((run.cell.size, run.score.value) for run in cells if isinstance(run.cell.size, int))
        if criterion == UNCUT and len(points) > 1:
            name = f"{position}{', square' if crop == 'square' else ''}"
            lines[name] = (np.array([size for size, _ in points]), np.array([value for _, value in points]))
    return lines


def _budget_lines(kinds: dict[tuple[str, str, str], list[Result]]) -> dict[int | str, dict[str, figures.Curve]]:
    """Curves of the cells with a token budget, by size and criterion; where a size has two criteria or more."""
    sizes: dict[int | str, dict[str, figures.Curve]] = {}
    for (criterion, crop, position), cells in sorted(kinds.items()):
        if crop != "square" and not position:
            for curve in figures.curves(run for run in cells if run.cell.max_tokens is not None):
                sizes.setdefault(curve.size, {})[criterion] = curve
    return {size: lines for size, lines in sizes.items() if len(lines) > 1}


def _spread(group: Group) -> str:
    best = group.best
    if best is None:
        return "No converted run."
    scores = [cell.score.value for cell in group.contenders]
    return (
        f"{len(scores)} cells besides controls (random selection, table interpolation), from {min(scores):.1f} to {max(scores):.1f}, median {np.median(scores):.1f}. "
        f"<b>Best of sweep</b> (chosen on the questions it is scored on): {html.escape(best.label)}."
    )


def _show(name: str, exhibit: "tables.Table | Figure", out: Path) -> tuple[str, str]:
    """A table or figure as HTML and as markdown, its file written."""
    if isinstance(exhibit, tables.Table):
        exhibit.write_csv(out / "tables")
        inner = f"<div class='wide' tabindex='0'>{exhibit.html()}</div>"
        if exhibit.folded:
            inner = (
                f"<details><summary>{html.escape(exhibit.title)}: {len(exhibit.rows)} rows</summary>{inner}</details>"
            )
        return f"{inner}<p class='file'>tables/{exhibit.name}.csv</p>", f"{exhibit.markdown()}\n"
    picture = _png(exhibit)
    write_bytes(out / "figures" / f"{name}.png", picture)
    coded = base64.b64encode(picture).decode()
    title = html.escape(name)
    image = f"<img alt='{title}' src='data:image/png;base64,{coded}'>"
    return f"<div class='figure' tabindex='0'>{image}</div>", f"![{name}](figures/{name}.png)\n"


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _page(body: str) -> str:
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>QLIP: evaluation</title>"
        f"<meta name='viewport' content='width=device-width'><style>{STYLE}</style></head><body>"
        f"<h1>QLIP: evaluation</h1>{body}<footer>qlip {__version__}</footer></body></html>\n"
    )
