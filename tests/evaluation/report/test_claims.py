"""Verdicts on claims: which runs are compared, and what their difference says."""

from dataclasses import replace

import pytest

from qlip.cli import main
from qlip.evaluation.bias_points import BiasPoint
from qlip.evaluation.report.claims import CLAIMS, Claim, bias_claim_table, claim_table, difference
from qlip.evaluation.results import find_results, group_results
from qlip.evaluation.statistics import Estimate
from qlip.files import write_json
from tests.evaluation.fake_answers import make_run


def about(text):
    return next(claim for claim in CLAIMS if text in claim.text)


@pytest.fixture
def root(tmp_path):
    make_run(tmp_path, 0.3, 100, baseline="crop")
    make_run(tmp_path, 0.9, 200, size=None, max_tokens=250)
    make_run(tmp_path, 0.1, 200, size=None, max_tokens=250, criterion="uniform")
    make_run(tmp_path, 0.95, 90, size=None, max_tokens=60, fit="scale")  # no claim is about it
    return tmp_path


def test_each_claim_compares_its_own_two_runs(root):
    (group,) = group_results(find_results(root))
    gained = difference(group, about("Small objects"))
    ours, crop = (next(r for r in [*group.cells, group.baseline] if r.percent == p) for p in (200, 100))
    assert gained.value == pytest.approx(ours.score.value - crop.score.value)
    assert difference(group, about("fewer tokens than the stock")) is None  # that run was scaled, and is another
    rows = claim_table([group]).rows
    assert [row[0] for row in rows] == [about("Small objects").text, about("and 250 each").text]
    assert all(row[1] == "holds" for row in rows)


@pytest.mark.parametrize(
    ("margin", "low", "high", "verdict"),
    [
        (0, 0.1, 5, "holds"), (0, -0.1, 5, "open"), (0, -5, -0.1, "fails"),
        (3, -2.9, 5, "holds"), (3, -3.1, 5, "open"), (3, -9, -3.1, "fails"), (3, -9, -2.9, "open"),
    ],
)  # fmt: skip
def test_a_verdict_needs_the_whole_interval(margin, low, high, verdict):
    assert Claim("", {}, {}, margin).verdict(Estimate((low + high) / 2, 1, low, high)) == verdict


def test_claims_about_biases_are_judged_by_pictures():
    def point(size, quadtree, cosine, weighting="once", spread=0.01, position="mlp"):
        each = tuple(cosine + spread * (-1) ** i for i in range(20))
        return BiasPoint(size, position, quadtree, cosine, 0.1, 10, weighting, each, tuple(c / 10 for c in each))

    points = [point(112, False, 1.0), point(336, False, 0.91), point(336, True, 0.58), point(336, True, 0.95, "area")]
    rows = bias_claim_table(points).rows
    assert [row[1] for row in rows] == ["fails", "holds", "holds", "fails"]  # of the cosine, then of the bias
    assert "once (figure 4)" in rows[0][0]
    assert rows[0][2:] == ["336", "0.580", "0.910", "-0.330 [-0.330, -0.330]"]
    noisy = [point(336, False, 0.91), point(336, True, 0.95, spread=0.3)]
    assert bias_claim_table(noisy).rows[0][1] == "open"
    (before, *_) = bias_claim_table([replace(each, cosines=()) for each in noisy]).rows
    assert before[1] == "open, for its pictures were not kept apart"
    (other, *_) = bias_claim_table([noisy[0], replace(noisy[1], cosines=(0.9,))]).rows  # of other pictures
    assert other[1] == before[1]
    zero = [point(336, False, 0.5, position="zero"), point(336, True, 0.6, position="zero")]
    (row,) = bias_claim_table(zero).rows
    assert "mesoscopic" in row[0]
    assert row[1] == "holds"
    assert not bias_claim_table(points[:2]).rows  # nothing was measured with a quadtree


def test_the_report_shows_them_where_there_are_some(root):
    main(["report", str(root)])
    page = (root / "report" / "index.html").read_text()
    assert "Claims: llava-1.5-13b" in page
    assert (root / "report" / "tables" / "claims0.csv").is_file()


def test_two_measurements_of_biases_in_folders_of_one_name_are_both_shown(root):
    """And neither is taken for that of the claims."""
    for folder, cosine in (("a/bias", 0.9), ("b/bias", 0.8)):
        point = {"size": 336, "position": "mlp", "cosine": cosine, "interpolation_bias": 0.1, "tokens": 10.0}
        rows = [{**point, "quadtree": quadtree} for quadtree in (False, True)]
        (root / folder).mkdir(parents=True)
        write_json(root / folder / "bias.json", {"rows": rows})
    main(["report", str(root)])
    page = (root / "report" / "index.html").read_text()
    assert page.count("Biases of the encoder (figure 4)") == 2
    assert "slows the drift" not in page


def test_the_report_has_no_such_section_where_nothing_tests_a_claim(tmp_path):
    make_run(tmp_path, 0.3, 100, baseline="crop")
    make_run(tmp_path, 0.9, 200, size=336, max_tokens=250)
    main(["report", str(tmp_path)])
    assert "Claims" not in (tmp_path / "report" / "index.html").read_text()
