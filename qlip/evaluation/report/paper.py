"""The paper's own numbers, from ``paper_results`` beside this file, to be shown beside ours."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qlip.evaluation.benchmarks.base import Array
from qlip.evaluation.config import PAPER_RESULTS

QUESTIONS = 191  # of V*, so that every value of tables 3 to 6 is k/191
COLUMNS = {"vstar": "vstar", "mmbench": "mmbench", "pope": "pope_f1", "cvbench": "cvbench"}


@dataclass(frozen=True)
class PaperSweep:
    """One of tables 3 to 6.

    Attributes:
        number: Number of the table, 3 to 6.
        model: Size of the language model, 7b or 13b.
        criterion: Split criterion, derivative or random.
        sizes: Shortest edges in pixels, ``S`` of them.
        alphas: Split thresholds, ``A`` of them.
        accuracy: Accuracy in percent, ``(S, A)``.
        baseline: Accuracy of the stock model, in percent.
    """

    number: int
    model: str
    criterion: str
    sizes: list[int]
    alphas: list[float]
    accuracy: Array
    baseline: float


def read_table(name: str, folder: Path = PAPER_RESULTS) -> list[dict[str, str]]:
    """Rows of one of the files."""
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def read_sweeps(folder: Path = PAPER_RESULTS) -> list[PaperSweep]:
    """Tables 3 to 6."""
    baselines = {row["model"]: float(row["vstar"]) for row in read_table("table1-benchmarks.csv", folder)}
    sweeps = []
    for path in sorted(folder.glob("table[3-6]-vstar-*.csv")):
        number, _, model, criterion = path.stem.removeprefix("table").split("-")
        rows = read_table(path.name, folder)
        alphas = [name for name in rows[0] if name != "image_size"]
        accuracy = np.array([[float(row[name]) for name in alphas] for row in rows])
        sizes = [int(row["image_size"]) for row in rows]
        baseline = baselines[f"llava-1.5-{model}"]
        sweeps.append(PaperSweep(int(number), model, criterion, sizes, [float(a) for a in alphas], accuracy, baseline))
    return sweeps


def reported(model: str, benchmark: str, folder: Path = PAPER_RESULTS) -> tuple[float, float] | None:
    """Table 1: the stock model's score and QLIP's, if the paper has this model."""
    rows = {row["model"]: row for row in read_table("table1-benchmarks.csv", folder)}
    name = next((name for name in rows if "+" not in name and model.lower().startswith(name)), None)
    if name is None:
        return None
    column = COLUMNS.get(benchmark, benchmark)
    return float(rows[name][column]), float(rows[f"{name}+qlip"][column])
