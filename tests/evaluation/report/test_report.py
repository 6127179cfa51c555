"""The report, from result files alone."""

import csv
import re

import numpy as np
import pytest

from qlip.cli import main
from qlip.core.criteria import CRITERIA
from qlip.evaluation.report import figures, tables
from qlip.evaluation.report import opening as opening_page
from qlip.evaluation.report.paper import read_sweeps, read_table, reported
from qlip.evaluation.results import find_results, group_results, missing_cells
from qlip.evaluation.statistics import Estimate
from qlip.files import write_json
from qlip.structured import DamagedFileError
from tests.evaluation.fake_answers import make_run, make_sweep


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    make_sweep(root)
    main(["report", str(root)])
    return root


@pytest.fixture(scope="session")
def group(sweep):
    (group,) = group_results(find_results(sweep))
    return group


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_page_holds_everything_it_shows(sweep):
    page = (sweep / "report" / "index.html").read_text()
    assert not re.search(r"(src|href)=['\"](?!data:)", page)
    pictures = sorted((sweep / "report" / "figures").glob("*.png"))
    assert page.count("<img ") == len(pictures) == 14
    text = (sweep / "report" / "report.md").read_text()
    assert all(f"figures/{picture.name}" in text for picture in pictures)
    assert "Best of sweep" in page
    assert "nothing here was measured by us" in page


def test_the_page_opens_with_a_sentence_and_a_figure_and_folds_the_method_away(sweep, group):
    page = (sweep / "report" / "index.html").read_text()
    opening, benchmarks, *_ = page.split("<section")[1:]
    stock = group.baseline.score
    assert f"the stock model scores {tables.number(stock)}. " in opening
    assert f"settings scores {tables.number(group.best.score)}" in opening
    assert "missing" not in opening  # there is no plan of a sweep
    axes = opening_page.picture(group).axes[0]
    marked = [line.get_xydata().tolist() for line in axes.lines if line.get_label() == "stock model"]
    assert marked == [[[100, stock.value]]]
    assert "<details><summary>How scores" in benchmarks
    assert benchmarks.index("<details>") < benchmarks.index("bootstrap") < benchmarks.index("</details>")


def test_the_sentence_tells_the_best_from_the_best_that_costs_no_more(tmp_path):
    make_run(tmp_path, 0.4, 100, baseline="crop")
    make_run(tmp_path, 0.6, 50, alpha=1.0)
    make_run(tmp_path, 0.2, 40, alpha=2.0)
    make_run(tmp_path, 1.0, 200, alpha=0.1)
    (group,) = group_results(find_results(tmp_path))
    said = opening_page.sentence(group)
    assert re.search(r"For no more tokens QLIP scores \S+ ± \S+ with 50 % of the tokens \(.*alpha 1,", said)
    assert re.search(r"The best of 3 settings scores \S+ ± \S+ with 200 % of the tokens \(.*alpha 0.1,", said)


def test_missing_cells_are_named(tmp_path):
    folders = [make_run(tmp_path, 0.5, 50), make_run(tmp_path, 0.5, 100, baseline="crop")]
    names = [folder.relative_to(tmp_path).as_posix() for folder in folders]
    write_json(tmp_path / "sweep.json", {"cells": [*names, "vstar/never/measured"]})
    main(["report", str(tmp_path)])
    page = (tmp_path / "report" / "index.html").read_text()
    assert "1 of 3 cells of the sweep are missing" in page
    assert "<p>vstar/never/measured</p>" in page
    write_json(tmp_path / "sweep.json", {"cells": 3})
    with pytest.raises(DamagedFileError, match=r"sweep\.json: cells: got 3"):
        missing_cells(tmp_path)


def test_drawn_questions_and_the_papers_never_share_a_table(tmp_path):
    make_run(tmp_path, 0.5, 50)
    make_run(tmp_path, 0.5, 50, benchmark="vstar-pocket", model="made-up/other")
    main(["report", str(tmp_path)])
    written = {path.stem: path.read_text() for path in (tmp_path / "report" / "tables").glob("*.csv")}
    for name in ("table1", "table2"):
        assert "pocket" not in written[name]
        assert "paper" in written[name]
    for name in ("pocket1", "pocket2"):
        assert "pocket" in written[name]
        assert "paper" not in written[name]


def test_table_1_marks_the_best_of_sweep_and_the_held_out_delta(sweep, group):
    crop, pad = read(sweep / "report" / "tables" / "table1.csv")
    assert (crop["stock"], pad["stock"]) == ("crop", "pad")
    qlip = [c for c in group.cells if c.cell.criterion != "random" and c.cell.position in (None, "solve")]
    assert len(group.cells) == 57
    assert crop["of"] == str(len(qlip)) == "15"  # random selection and interpolated tables are controls
    best = max(cell.score.value for cell in qlip)
    assert crop["QLIP, best of sweep"].startswith(f"{best:.1f} ± ")
    same = float(crop["delta, same questions"].split()[0])
    assert same == pytest.approx(best - group.baselines["crop"].score.value, abs=0.16)  # three rounded numbers
    assert re.fullmatch(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]\*?", crop["delta, held out"])
    assert float(crop["delta, held out"].split()[0]) < same
    assert crop["paper: stock, QLIP, delta"] == "45, 58.6, +13.6"


def test_every_run_has_its_delta_with_an_interval(sweep):
    rows = read(sweep / "report" / "tables" / "cells.csv")
    assert len(rows) == 59
    assert sum(bool(re.search(r"\[.*, .*\]", row["delta to stock"])) for row in rows) == 58


def test_table_2_puts_the_papers_rows_below_ours(sweep):
    rows = read(sweep / "report" / "tables" / "table2.csv")
    assert rows[0]["model"] == "llava-1.5-13b, stock, crop"
    assert [row["model"] for row in rows[-2:]] == ["paper: S2-13B", "paper: SEAL-7B"]
    assert rows[-1]["V* overall"] == "75.4"


def test_grids_average_over_seeds(group):
    derivative, random = tables.score_grids(group)
    assert (derivative.sizes, derivative.alphas) == ([224, 336, 448], [0.1, 0.5, 1.0, 2.0])
    cells = [c for c in group.cells if c.cell.criterion == "random" and c.cell.size == 336 and c.cell.alpha == 2]
    assert len(cells) == 3
    assert random.score[1, 3] == pytest.approx(sum(cell.score.value for cell in cells) / 3)
    assert derivative.baseline == group.baselines["crop"].score.value


def test_heat_maps_are_white_at_the_stock_model_and_frame_the_best():
    grid = tables.ScoreGrid("t", [224, 336], [0.1, 0.2], np.array([[40.0, 50.0], [60.0, np.nan]]), 50.0)
    axes = figures.heat_map(grid).axes[0]
    image = axes.images[0]
    low, middle, high = (image.cmap(image.norm(value))[:3] for value in (40, 50, 60))
    assert min(middle) > 0.99
    assert low[0] > 1.5 * low[1]
    assert high[1] > 1.5 * high[0]
    assert [text.get_text() for text in axes.texts] == ["40.0", "50.0", "60.0"]
    assert axes.patches[-1].get_xy() == (-0.5, 0.5)


def test_the_shaded_region_is_better_than_every_baseline_with_fewer_tokens(group):
    curves = figures.curves([c for c in group.cells if c.cell.criterion == "derivative"])
    axes = figures.accuracy_over_tokens("t", "m", curves, {"crop": 45.0, "pad": 47.0}).axes[0]
    assert axes.get_xscale() == "log"
    corners = axes.collections[0].get_paths()[0].get_extents()
    assert corners.x1 == 100
    assert corners.y0 == 47
    assert [line.get_ydata()[0] for line in axes.lines[-2:]] == [45, 47]


def test_random_selection_is_a_band_from_least_to_most_over_its_seeds(group):
    curves = figures.curves([c for c in group.cells if c.cell.criterion == "random"])
    assert [curve.size for curve in curves] == [224, 336, 448]
    assert all(curve.y.shape == (3, 4) and (np.diff(curve.x) > 0).all() for curve in curves)
    panel = figures.selection("t", "m", {"random": curves}, None, "tokens").axes[0]
    light = panel.collections[0].get_paths()[0].get_extents()
    assert (light.y0, light.y1) == (curves[0].y.min(), curves[0].y.max())


def test_every_criterion_has_a_colour_of_its_own(group):
    curve = figures.curves([c for c in group.cells if c.cell.criterion == "derivative"])[0]
    names = sorted(CRITERIA.keys() - {"uniform"})  # it has no budget
    lines = figures.criteria("t", "m", dict.fromkeys(names, curve), 45.0).axes[0].get_legend().get_lines()
    assert len({line.get_color() for line in lines}) == len(names) + 1  # and the stock model


def test_criteria_are_compared_at_equal_budgets_and_one_size(tmp_path):
    for criterion, chance in (("derivative", 0.6), ("entropy", 0.4), ("random", 0.3)):
        make_run(tmp_path, chance, 20, size=448, max_tokens=100, criterion=criterion)
    make_run(tmp_path, 0.9, 20, size=448, max_tokens=100, criterion="random", seed=1)  # the first seed counts
    make_run(tmp_path, 0.9, 30, size=448, max_tokens=160, criterion="entropy")
    make_run(tmp_path, 0.9, 20, size=336, max_tokens=100, criterion="entropy")
    make_run(tmp_path, 0.9, 20, size=448, max_tokens=100, criterion="entropy", position="bicubic")
    (group,) = group_results(find_results(tmp_path))
    rows = {row[0]: row[1:] for row in tables.budget_table(group, "t", 448).rows}
    assert list(rows) == ["100 tokens, derivative", "100 tokens, entropy", "100 tokens, random", "160 tokens, entropy"]
    assert rows["160 tokens, entropy"][1:] == ["", ""]
    scores = {name: float(row[0].split()[0]) for name, row in rows.items()}
    derivative, entropy, chance = (scores[f"100 tokens, {name}"] for name in ("derivative", "entropy", "random"))
    assert rows["100 tokens, derivative"][1] == rows["100 tokens, random"][2] == ""
    assert float(rows["100 tokens, entropy"][1].split()[0]) == pytest.approx(entropy - derivative, abs=0.16)
    assert float(rows["100 tokens, entropy"][2].split()[0]) == pytest.approx(entropy - chance, abs=0.16)
    assert float(rows["100 tokens, derivative"][2].split()[0]) == pytest.approx(derivative - chance, abs=0.16)


def test_a_line_is_called_what_it_is(group):
    cells = [c for c in group.cells if c.cell.criterion == "derivative"]
    first, *_, last = figures.curves(cells)
    figure = figures.selection("t", "m", {"entropy": [first], "random": [last]}, 45.0, "tokens")
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["entropy", "stock model", "random, 1 seed"]  # also what only the second panel shows


def test_the_papers_numbers_are_all_there():
    sweeps = read_sweeps()
    assert [(s.number, s.model, s.criterion) for s in sweeps] == [
        (3, "7b", "derivative"), (4, "7b", "random"), (5, "13b", "derivative"), (6, "13b", "random"),
    ]  # fmt: skip
    assert [s.accuracy.shape for s in sweeps] == [(18, 21), (18, 8)] * 2
    for s in sweeps:  # every value is k/191, rounded
        right = s.accuracy * 191 / 100
        assert np.abs(right - right.round()).max() < 0.011
    assert reported("llava-1.5-7b-hf", "pope") == (74.4, 79.6)
    assert sweeps[2].accuracy.max() == 58.64
    assert len(read_table("table2-fine-grained.csv")) == 5


def test_models_that_the_paper_does_not_have_get_no_quote():
    assert reported("llava-next", "pope") is None


def test_only_like_is_compared_with_like(tmp_path):
    make_run(tmp_path, 0.5, 100, baseline="crop")
    make_run(tmp_path, 0.5, 50)
    make_run(tmp_path, 0.5, 50, prompt_style="lmms")
    make_run(tmp_path / "other", 0.5, 50, count=40)
    groups = group_results(find_results(tmp_path))
    assert sorted((len(group.baselines), len(group.cells)) for group in groups) == [(0, 1), (0, 1), (1, 1)]


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"qlip: dir: got .*, which holds no result.json"):
        main(["report", str(tmp_path)])


def test_a_run_that_lost_its_answers_is_named(tmp_path):
    (make_run(tmp_path, 0.5, 100) / "predictions.jsonl").unlink()
    with pytest.raises(ValueError, match=r"has a result.json but no predictions.jsonl; put it back"):
        find_results(tmp_path)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(11.0, 3, 4.2, 17.8), "+11.0 [+4.2, +17.8]*"),
        (Estimate(-1.0, 3, -7, 5), "-1.0 [-7.0, +5.0]"),
        (Estimate(-9.0, 2, -13, -5), "-9.0 [-13.0, -5.0]*"),
    ],
)
def test_a_delta_is_starred_where_its_interval_leaves_zero_out(estimate, text):
    assert tables.delta(estimate) == text
