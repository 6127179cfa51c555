"""Intervals against the textbook, and the traps of comparing."""

import math

import numpy as np
import pytest

from qlip.evaluation.benchmarks import BENCHMARKS
from qlip.evaluation.statistics import compare, draw_counts, half, held_out, score

VSTAR = BENCHMARKS["vstar"]


def records(rights, unit=str, prompt="q"):
    return [
        {
            "id": str(i),
            "unit": unit(i),
            "group": "",
            "correct": bool(right),
            "prompt": prompt,
            "parsed": "A",
            "answer": "A",
        }
        for i, right in enumerate(rights)
    ]


def coins(count, chance, seed):
    return np.random.default_rng(seed).random(count) < chance


def test_the_error_of_an_accuracy_is_the_binomial_one():
    got = score(VSTAR, records(coins(191, 0.45, 0)))["accuracy"]
    p = got.value / 100
    assert got.se == pytest.approx(100 * math.sqrt(p * (1 - p) / 191), rel=0.05)
    assert got.low == pytest.approx(got.value - 1.96 * got.se, abs=0.8)
    assert got.high == pytest.approx(got.value + 1.96 * got.se, abs=0.8)


def test_pairing_takes_out_what_both_arms_share():
    base = coins(400, 0.5, 1)
    ours = base.copy()
    ours[:20] = True
    got = compare(VSTAR, records(ours), records(base))["accuracy"]
    assert got.value == pytest.approx(100 * (ours.mean() - base.mean()))
    d = ours.astype(float) - base
    assert got.se == pytest.approx(100 * d.std() / math.sqrt(400), rel=0.06)
    assert got.se < score(VSTAR, records(base))["accuracy"].se / 3
    assert got.low > 0


def test_intervals_cover_the_truth_as_often_as_they_say():
    covered = 0
    for seed in range(200):
        got = score(VSTAR, records(coins(80, 0.6, seed)))["accuracy"]
        covered += got.low <= 60 <= got.high
    assert 180 <= covered <= 199


def test_questions_of_a_unit_are_drawn_together():
    rights = np.repeat(coins(60, 0.5, 3), 4)
    alone = score(VSTAR, records(rights))["accuracy"].se
    together = score(VSTAR, records(rights, unit=lambda i: str(i // 4)))["accuracy"].se
    assert together == pytest.approx(2 * alone, rel=0.1)


def test_strata_keep_their_size():
    strata = ("a",) * 7 + ("b",) * 3
    counts = draw_counts(strata, 50)
    assert (counts[:, :7].sum(1) == 7).all()
    assert (counts[:, 7:].sum(1) == 3).all()
    assert len({tuple(row) for row in counts.tolist()}) > 40


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (records([1, 0]), "question 2 is 'q' on one arm and nothing on the other"),
        (records([1, 0, 1], prompt="Q"), "question 0 is 'q' on one arm and 'Q' on the other"),
    ],
)
def test_arms_that_were_asked_other_things_are_not_compared(other, message):
    with pytest.raises(ValueError, match=f"baseline: {message}"):
        compare(VSTAR, records([1, 0, 1]), other)


def test_the_best_of_many_equal_cells_wins_nothing_on_the_other_half():
    baseline = records(coins(300, 0.5, 100))
    cells = {str(i): records(coins(300, 0.5, i)) for i in range(60)}
    scores = {name: score(VSTAR, cell)["accuracy"].value for name, cell in list(cells.items())}
    flattering = max(scores.values()) - 50
    found = [held_out(VSTAR, cells, baseline, side) for side in (0, 1)]
    fair = sum(h.delta.value for h in found) / 2 + (score(VSTAR, baseline)["accuracy"].value - 50)
    assert flattering > 5
    assert abs(fair) < flattering / 2
    assert {h.questions for h in found} == {sum(half(str(i)) == side for i in range(300)) for side in (0, 1)}


def test_a_choice_is_made_on_one_half_and_reported_on_the_other():
    first = [half(str(i)) == 0 for i in range(100)]
    cells = {"first": records(first), "second": records([not x for x in first])}
    baseline = records([True] * 100)
    assert held_out(VSTAR, cells, baseline, 0).cell == "first"
    assert held_out(VSTAR, cells, baseline, 0).delta.value == -100
    assert held_out(VSTAR, cells, baseline, 1).cell == "second"
    assert 35 < sum(first) < 65


def test_no_half_to_report_on_gives_nothing():
    one = records([1])
    assert held_out(VSTAR, {"a": one}, one) is None
