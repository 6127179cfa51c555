"""Scores with their uncertainty: a bootstrap over units, paired where two arms answered the same questions.

Every score is a function of sums over units (see `Benchmark.tally`), so a resample is a row of counts and all resamples
together one product of matrices.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from qlip.evaluation.benchmarks.base import Array, Benchmark, Record

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number, its standard error and its interval (percentiles of the bootstrap), at 95 % unless said otherwise."""

    value: float
    se: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Tallies:
    """What each unit adds to the sums.

    Attributes:
        units: Names, ``U`` of them, sorted.
        names: Names of the sums, ``S`` of them.
        values: What each unit adds to each sum, ``(U, S)``.
        strata: Name of the stratum that each unit is drawn in, ``U`` of them.
    """

    units: tuple[str, ...]
    names: tuple[str, ...]
    values: Array
    strata: tuple[str, ...]

    def scores(self, benchmark: Benchmark, counts: Array | None = None) -> dict[str, Array]:
        """All scores; with ``counts (R, U)``, how often each unit was drawn, an array ``(R,)`` of each."""
        sums = np.ones(len(self.units)) @ self.values if counts is None else counts @ self.values
        return benchmark.combine({name: sums[..., i] for i, name in enumerate(self.names)})


def tally(benchmark: Benchmark, records: Sequence[Record]) -> Tallies:
    """Group records by unit and add each unit up.

    Raises:
        ValueError: if there are none.
    """
    if not records:
        raise ValueError("records: got none; takes the answers to at least one question")
    by_unit: dict[str, list[Record]] = {}
    for record in records:
        by_unit.setdefault(record["unit"], []).append(record)
    units = tuple(sorted(by_unit))
    rows = [benchmark.tally(by_unit[unit]) for unit in units]
    names = tuple(sorted({name for row in rows for name in row}))
    values = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    return Tallies(units, names, values, tuple(benchmark.stratum(by_unit[unit]) for unit in units))


def draw_counts(strata: tuple[str, ...], resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """How often each unit is drawn in each resample, ``(R, U)``: with replacement, within each stratum."""
    return _draw_counts(strata, resamples, seed)


@lru_cache(maxsize=4)  # all arms of a benchmark share their questions, so also their resamples
def _draw_counts(strata: tuple[str, ...], resamples: int, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    counts = np.zeros((resamples, len(strata)), dtype=np.float32)
    for stratum in sorted(set(strata)):
        members = np.array([i for i, other in enumerate(strata) if other == stratum])
        counts[:, members] = generator.multinomial(
            len(members), np.full(len(members), 1 / len(members)), size=resamples
        )
    counts.setflags(write=False)
    return counts


def estimate(value: float, samples: Array, level: float = LEVEL) -> Estimate:
    """An estimate from its value and its resamples ``(R,)``; ``level`` is that of the interval."""
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return Estimate(float(value), float(samples.std(ddof=1)), float(low), float(high))


def score(benchmark: Benchmark, records: Sequence[Record]) -> dict[str, Estimate]:
    """Every score of a benchmark with its uncertainty, the headline first."""
    tallies = tally(benchmark, records)
    values = tallies.scores(benchmark)
    samples = tallies.scores(benchmark, draw_counts(tallies.strata))
    order = sorted(values, key=lambda name: name != benchmark.primary)
    return {name: estimate(float(values[name]), samples[name]) for name in order}


def compare(
    benchmark: Benchmark, records: Sequence[Record], baseline: Sequence[Record], level: float = LEVEL
) -> dict[str, Estimate]:
    """Every score of one arm minus that of another on the same questions; both see the same resamples.

    Args:
        benchmark: The benchmark that was asked.
        records: Answers of the arm.
        baseline: Answers of the other.
        level: Of the interval; ``1 - 0.05 / n`` where the arm is one of n that were tried (Bonferroni).

    Raises:
        ValueError: if the arms did not answer the same questions.
    """
    check_same_questions(records, baseline)
    ours, theirs = tally(benchmark, records), tally(benchmark, baseline)
    counts = draw_counts(ours.strata)
    values, others = ours.scores(benchmark), theirs.scores(benchmark)
    samples, other_samples = ours.scores(benchmark, counts), theirs.scores(benchmark, counts)
    return {
        name: estimate(float(values[name] - others[name]), samples[name] - other_samples[name], level)
        for name in values
        if name in others
    }


def check_same_questions(records: Sequence[Record], baseline: Sequence[Record]) -> None:
    """Raise unless two arms answered the same questions, worded the same.

    Raises:
        ValueError: naming a question that differs.
    """
    ours, theirs = ({record["id"]: record["prompt"] for record in arm} for arm in (records, baseline))
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            got, other = (repr(arm[name]) if name in arm else "nothing" for arm in (ours, theirs))
            raise ValueError(
                f"baseline: question {name} is {got} on one arm and {other} on the other; takes two finished runs of "
                f"one benchmark with one prompt style and one revision of the data"
            )


def half(unit: str) -> int:
    """Which half of a benchmark a unit is in, 0 or 1; the same for every run, whatever the order of the questions."""
    return hashlib.sha256(unit.encode()).digest()[0] & 1


@dataclass(frozen=True)
class HeldOut:
    """The cell chosen on one half of the questions, and its delta on the other half, which took no part in the choice.

    Attributes:
        cell: Name of the cell.
        delta: Its score minus the baseline's, on the half that it was not chosen on.
        questions: Number of questions in that half.
    """

    cell: str
    delta: Estimate
    questions: int


def held_out(
    benchmark: Benchmark, cells: Mapping[str, Sequence[Record]], baseline: Sequence[Record], choose_on: int = 0
) -> HeldOut | None:
    """Choose the best cell on one half, report its difference from the baseline on the other; None if a half is empty.

    Args:
        benchmark: The benchmark that was asked.
        cells: Answers of every cell of a sweep, by the cell's name.
        baseline: Answers of the baseline.
        choose_on: The half to choose on, 0 or 1.
    """

    def in_half(records: Sequence[Record], which: int) -> list[Record]:
        return [record for record in records if half(record["unit"]) == which]

    reported = in_half(baseline, 1 - choose_on)
    if not reported or not in_half(baseline, choose_on):
        return None
    seen = {name: tally(benchmark, in_half(records, choose_on)).scores(benchmark) for name, records in cells.items()}
    best = max(seen, key=lambda name: float(seen[name][benchmark.primary]))
    delta = compare(benchmark, in_half(cells[best], 1 - choose_on), reported)[benchmark.primary]
    return HeldOut(best, delta, len(reported))


def summary(scores: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    """Scores as plain values for JSON."""
    return {name: value.to_dict() for name, value in scores.items()}
