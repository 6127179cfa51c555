"""Claims about quadtrees and what finished runs say of each: a difference with its interval on every benchmark, and a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from qlip.evaluation.bias_points import BiasPoint
from qlip.evaluation.report.tables import Table, delta
from qlip.evaluation.results import Group, Result
from qlip.evaluation.statistics import Estimate, compare, draw_counts, estimate

METHOD = (
    "<p>A claim holds on a benchmark if the whole interval of the difference says so, fails if the whole interval says the opposite, "
    "and is open otherwise. Every interval is by itself at 95 %: of twenty, one is expected to be wrong.</p>"
)
TREE = {"baseline": None, "criterion": "derivative", "fit": "prune", "size": None, "position": None, "weighting": None}
CROP = {"baseline": "crop"}
WHOLE = {"position": "mlp", "quadtree": False}
CUT = {"position": "mlp", "quadtree": True}
BARE = {"position": "zero"}  # no positions, which leaves the mesoscopic bias


@dataclass(frozen=True)
class Claim:
    """What is said of one arm and another, each given by fields of its cell.

    Attributes:
        text: The claim, and where it is from.
        ours: The arm that should do better.
        other: The arm that it is compared with.
        margin: By how many points it may do worse: 0 for "better", more for "as good as".
    """

    text: str
    ours: Mapping[str, object]
    other: Mapping[str, object]
    margin: float = 0.0

    def verdict(self, difference: Estimate) -> str:
        """``holds`` or ``fails`` if the whole interval says so, else ``open``."""
        return judge(difference, self.margin)


def judge(difference: Estimate, margin: float = 0.0) -> str:
    """``holds`` or ``fails`` if the whole interval says that one is better than another less a margin, or is not; else ``open``."""
    if difference.low > -margin:
        return "holds"
    return "fails" if difference.high < -margin else "open"


CLAIMS = (
    Claim("Small objects are seen that the stock crop loses (paper, section 4)", TREE | {"max_tokens": 250}, CROP),
    Claim("... with fewer tokens than the stock model takes (figure 1)", TREE | {"max_tokens": 60}, CROP),
    Claim(
        "A quarter of the tokens does as well as the whole grid, within 3 points (section 4)",
        TREE | {"size": 224, "max_tokens": 88},
        TREE | {"size": 224, "criterion": "uniform", "max_tokens": None},
        margin=3.0,
    ),
    Claim(
        "Where the tokens go matters: derivative, not random (figure 7)",
        TREE | {"max_tokens": 100},
        TREE | {"max_tokens": 100, "criterion": "random"},
    ),
    Claim(
        "The MLP does better than interpolating the table: with the quadtree, 100 tokens (table 1)",
        TREE | {"max_tokens": 100},
        TREE | {"max_tokens": 100, "position": "bicubic"},
    ),
    Claim(
        "... whole grid of 224 px (figure 5)",
        TREE | {"size": 224, "criterion": "uniform", "max_tokens": None},
        TREE | {"size": 224, "criterion": "uniform", "max_tokens": None, "position": "bicubic"},
    ),
    Claim(
        "Better than the grid scaled down, 100 tokens each (ours)",
        TREE | {"max_tokens": 100},
        TREE | {"max_tokens": 100, "criterion": "uniform"},
    ),
    Claim(
        "... and 250 each (ours)",
        TREE | {"max_tokens": 250},
        TREE | {"max_tokens": 250, "criterion": "uniform"},
    ),
    Claim(
        'fit="scale" (alpha 1.2) is better than the grid scaled down, 100 tokens each (ours)',
        TREE | {"max_tokens": 100, "fit": "scale"},
        TREE | {"max_tokens": 100, "criterion": "uniform"},
    ),
    Claim(
        "The criterion blurred is better than derivative, 100 tokens each (ours)",
        TREE | {"max_tokens": 100, "criterion": "blurred"},
        TREE | {"max_tokens": 100},
    ),
    Claim(
        "For answers leaves should count once, not by area: 100 tokens (ours)",
        TREE | {"max_tokens": 100},
        TREE | {"max_tokens": 100, "weighting": "area"},
    ),
)


@dataclass(frozen=True)
class BiasClaim:
    """What is said of two points of figure 4, each given by some of its fields, at the largest size at which both were measured.

    Attributes:
        text: The claim, and where it is from.
        ours: The point that should be better.
        other: The point that it is compared with.
        lower: Whether it is about interpolation bias, of which less is better; else about the cosine.
    """

    text: str
    ours: Mapping[str, object]
    other: Mapping[str, object]
    lower: bool = False

    def row(self, points: Sequence[BiasPoint]) -> list[str] | None:
        """A row of `bias_claim_table`, judged by pictures; None if it was not measured."""
        ours, other = ({p.size: p for p in points if asdict(p).items() >= f.items()} for f in (self.ours, self.other))
        size = max(ours.keys() & other.keys(), default=None)
        if size is None:
            return None
        mine, theirs = ours[size], other[size]
        values: tuple[float | None, float | None] = mine.cosine, theirs.cosine
        each, better = (mine.cosines, theirs.cosines), 1
        if self.lower:
            values = mine.interpolation_bias, theirs.interpolation_bias
            each, better = (mine.interpolation_biases, theirs.interpolation_biases), -1
        measured = [str(size), f"{values[0]:.3f}", f"{values[1]:.3f}"]
        if not each[0] or len(each[0]) != len(each[1]):
            return [self.text, "open, for its pictures were not kept apart", *measured, ""]
        gain = better * np.subtract(*each)
        gap = estimate(gain.mean(), draw_counts(("",) * len(gain)) @ gain / len(gain))
        return [self.text, judge(gap), *measured, f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"]


BIAS_CLAIMS = (
    BiasClaim(
        "The quadtree slows the drift of [CLS], leaves counted once (figure 4)", CUT | {"weighting": "once"}, WHOLE
    ),
    BiasClaim("... leaves counted by area (ours)", CUT | {"weighting": "area"}, WHOLE),
    BiasClaim(
        "... and without positions, leaves counted once: mesoscopic bias (section 2)",
        CUT | BARE | {"weighting": "once"},
        WHOLE | BARE,
    ),
    BiasClaim("... leaves counted by area (ours)", CUT | BARE | {"weighting": "area"}, WHOLE | BARE),
    BiasClaim(
        "The MLP has less interpolation bias than the bicubic table (section 2)",
        WHOLE,
        WHOLE | {"position": "bicubic"},
        True,
    ),
    BiasClaim(
        "... and with the quadtree less, leaves counted once (figure 4)", CUT | {"weighting": "once"}, WHOLE, True
    ),
    BiasClaim("... leaves counted by area (ours)", CUT | {"weighting": "area"}, WHOLE, True),
)


def find_run(group: Group, fields: Mapping[str, object]) -> Result | None:
    """The first run of a group whose cell has these fields; None if it was not measured."""
    runs = [*group.baselines.values(), *group.cells]
    return next((run for run in runs if asdict(run.cell).items() >= fields.items()), None)


def difference(group: Group, claim: Claim) -> Estimate | None:
    """How much better the claim's arm does on a group's questions, in points; None if either arm was not measured."""
    ours, other = find_run(group, claim.ours), find_run(group, claim.other)
    if ours is None or other is None:
        return None
    return compare(group.benchmark, ours.records, other.records)[group.benchmark.primary]


def claim_table(groups: Sequence[Group], name: str = "claims") -> Table:
    """Every claim that the runs, of one model, can test: its difference on each benchmark, and the verdict on each."""
    names = [group.benchmark.name for group in groups]
    rows = []
    for claim in CLAIMS:
        found = [difference(group, claim) for group in groups]
        said = {name: claim.verdict(gap) for name, gap in zip(names, found, strict=True) if gap is not None}
        if said:
            cells = ["" if gap is None else delta(gap) for gap in found]
            rows.append([claim.text, _in_short(said), *cells])
    header = ["claim", "verdict", *(f"{group.benchmark.name}, {group.benchmark.primary}" for group in groups)]
    return Table(name, "Claims: differences in points, paired, with 95 % intervals", header, rows)


def bias_claim_table(points: Sequence[BiasPoint], name: str = "bias claims") -> Table:
    """Every claim that the points of one figure 4 can test: the cosine of [CLS], or the interpolation bias, on both sides."""
    rows = [row for claim in BIAS_CLAIMS if (row := claim.row(points))]
    header = ["claim", "verdict", "px", "measured", "against", "better by"]
    return Table(name, "Claims about the encoder: by pictures, with 95 % intervals", header, rows)


def _in_short(said: Mapping[str, str]) -> str:
    """``holds`` where all benchmarks agree, else what each says."""
    verdicts = sorted(set(said.values()), key=["holds", "open", "fails"].index)
    if len(verdicts) == 1:
        return verdicts[0]
    return "; ".join(f"{verdict} on {', '.join(n for n in said if said[n] == verdict)}" for verdict in verdicts)
