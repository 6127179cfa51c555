"""Finished runs on disk, and which of them may be compared."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, get_args, get_type_hints

from qlip.core.names import TableMode
from qlip.core.rules import shown
from qlip.data.readable import MAX_UNREADABLE
from qlip.evaluation.benchmarks import Benchmark, get_benchmark
from qlip.evaluation.benchmarks.base import Record
from qlip.evaluation.benchmarks.source import is_relative
from qlip.evaluation.cell import Cell
from qlip.evaluation.journal import read_records
from qlip.evaluation.statistics import Estimate
from qlip.structured import DamagedFileError, check_fields, read_json

log = logging.getLogger(__name__)

PREDICTIONS, RESULT, PLAN = "predictions.jsonl", "result.json", "sweep.json"
# fields of a cell that the first results lack, and what was measured then
ADDED = {"cover": "roots", "fit": "prune", "weighting": None}


class DataDescription(TypedDict):
    """What was asked, as ``result.json`` has it."""

    origin: str
    """Hub id, folder or seed."""
    revision: str | None
    """Commit on the Hub; None for a folder."""
    questions: int
    """How many there are."""
    sha256: str
    """Digest of their words and answers."""


class TokenCounts(TypedDict):
    """Tokens of a run, as ``result.json`` has them."""

    mean: float
    """Image tokens of a question."""
    baseline: float
    """Those of the stock model."""
    percent: float
    """The first in percent of the second."""
    longest_prompt: int
    """Most tokens of a whole prompt."""


class Evaluation(TypedDict):
    """What follows from the answers alone."""

    primary: str
    """Name of the headline."""
    scores: dict[str, dict[str, float]]
    """Every score with its uncertainty, see `Estimate`."""
    unparsed: float
    """Share of answers that were not understood, 0 to 1."""
    tokens: TokenCounts
    """Tokens of images and prompts."""
    seconds: float
    """Time that the model took, on all devices together."""


class ResultFile(Evaluation):
    """What ``result.json`` holds."""

    config: dict[str, Any]
    """Fields of the `Cell` that was measured."""
    data: DataDescription
    """What was asked."""
    unreadable: list[str]
    """Ids of the questions whose pictures could not be read; results of qlip 0.1 lack the field."""
    batch_size: int
    """Questions in a batch on each device."""
    versions: dict[str, str]
    """Versions of Python and of the packages that a result depends on."""


_CELL = get_type_hints(Cell)
_ESTIMATE = dict.fromkeys(("value", "se", "low", "high"), float)
_DATA = {"origin": str, "revision": str | None, "questions": int, "sha256": str}
_RESULT = {  # the fields of a `ResultFile` and their types
    "config": dict, "data": dict, "primary": str, "scores": dict, "unparsed": float, "tokens": dict,
}  # fmt: skip
_MORE = {"unreadable": list, "seconds": float, "batch_size": int, "versions": dict}  # which nobody reads again


@dataclass(frozen=True, eq=False)
class Result:
    """One finished run.

    Attributes:
        folder: Where it lies.
        cell: What was measured.
        primary: Name of the headline.
        scores: Every score, by its name.
        percent: Image tokens in percent of the stock model's.
        unparsed: Share of answers that were not understood, 0 to 1.
        data: What was asked.
    """

    folder: Path
    cell: Cell
    primary: str
    scores: dict[str, Estimate]
    percent: float
    unparsed: float
    data: DataDescription

    @property
    def score(self) -> Estimate:
        """The headline."""
        return self.scores[self.primary]

    @property
    def size(self) -> int | str:
        """Shortest edge in pixels, "native", or "model" for the size that the model was made for."""
        return self.cell.size or "native"

    @property
    def preprocessing(self) -> str:
        """How pictures come to the stock model; empty for a converted one."""
        if self.cell.baseline == "own" and self.cell.max_tokens:
            return f"own, {self.cell.max_tokens} tokens"
        return self.cell.baseline or ""

    @cached_property
    def records(self) -> list[Record]:
        """The answers."""
        return read_records(self.folder / PREDICTIONS)

    @property
    def label(self) -> str:
        """What a reader should call it."""
        cell = self.cell
        if cell.baseline:
            return f"stock, {self.preprocessing}"
        words = [
            "its own size" if cell.size == "model" else f"{self.size} px",
            f"alpha {cell.alpha:g}" if cell.max_tokens is None else f"{cell.max_tokens} tokens",
        ]
        words += [cell.criterion]
        words += [cell.position] if cell.position else []
        words += ["square"] if cell.crop == "square" else []
        words += ["cover of roots"] if cell.cover == "roots" else []
        words += ["scaled to fit"] if cell.fit == "scale" and cell.max_tokens else []
        words += [f"weighting {cell.weighting}"] if cell.weighting else []
        words += [f"seed {cell.seed}"] if cell.criterion == "random" else []
        return ", ".join(words)


def read_result(path: Path) -> Result:
    """Read a ``result.json``.

    Raises:
        ValueError: if it does not describe a cell, naming what is unknown, missing or not taken.
    """
    values = check_fields(read_json(path), str(path), _RESULT, _MORE)
    cell = _cell(values["config"], path)
    data: Any = check_fields(values["data"], f"{path}: data", _DATA)
    tokens = check_fields(
        values["tokens"], f"{path}: tokens", {"percent": float}, dict.fromkeys(TokenCounts.__annotations__, float)
    )
    scores = {
        name: Estimate(**check_fields(score, f"{path}: scores: {name}", _ESTIMATE))
        for name, score in values["scores"].items()
    }
    if scores and values["primary"] not in scores:  # none: no question had a right answer
        raise DamagedFileError(f"{path}: primary: got {values['primary']!r}, which is none of its scores")
    return Result(path.parent, cell, values["primary"], scores, tokens["percent"], values["unparsed"], data)


def read_cell(path: Path) -> Cell:
    """The cell that a ``result.json`` is about.

    Raises:
        ValueError: if it does not describe a cell, naming what is unknown, missing or not taken.
    """
    held = read_json(path)
    if not isinstance(held, dict) or not isinstance(held.get("config"), dict):
        raise DamagedFileError(f"{path}: has no config; delete its folder and measure it anew")
    return _cell(held["config"], path)


def _cell(values: Mapping[str, Any], path: Path) -> Cell:
    values = {**ADDED, **values}
    taken = Cell.__dataclass_fields__.keys()
    unknown, missing = sorted(values.keys() - taken), sorted(taken - values.keys())
    if unknown or missing:
        wrong = [f"{what} {', '.join(names)}" for what, names in (("unknown", unknown), ("missing", missing)) if names]
        raise ValueError(
            f"config: got {' and '.join(wrong)} in {path}; takes {', '.join(taken)}. Read it with the version of qlip that "
            f"wrote it, or delete its folder and measure it anew"
        )
    try:
        return Cell(**check_fields(values, "config", _CELL))
    except (TypeError, ValueError) as error:
        raise ValueError(f"config: {path} holds what is not taken: {error}") from error


@dataclass(frozen=True)
class Group:
    """Runs that answered the same questions, worded the same, with the same weights.

    Attributes:
        name: Benchmark, model and, where they differ from the default, style and scoring.
        benchmark: The benchmark that they answered.
        model: Last part of the model's name.
        baselines: Runs of the stock model, by its preprocessing.
        cells: All other runs, controls included.
    """

    name: str
    benchmark: Benchmark
    model: str
    baselines: dict[str, Result] = field(default_factory=dict)
    cells: list[Result] = field(default_factory=list)

    @property
    def baseline(self) -> Result | None:
        """What the paper compares with: the stock model as its users run it, or else whatever stock run there is."""
        usual = next((self.baselines[name] for name in ("crop", "own", "pad") if name in self.baselines), None)
        return usual or next(iter(self.baselines.values()), None)

    def rival(self, run: Result) -> Result | None:
        """The stock run that a run is compared with: the one with the same budget, or else `baseline`."""
        return self.baselines.get(f"own, {run.cell.max_tokens} tokens") or self.baseline

    @property
    def is_drawn(self) -> bool:
        """Whether its questions are drawn here, as those of the pocket benchmarks are."""
        return self.benchmark.hub == "drawn"

    @property
    def contenders(self) -> list[Result]:
        """The cells that are QLIP; random selection and table interpolation are controls and win nothing."""
        controls = get_args(TableMode)
        return [run for run in self.cells if run.cell.criterion != "random" and run.cell.position not in controls]

    @property
    def best(self) -> Result | None:
        """The contender with the highest score; chosen on the very questions it is scored on."""
        return max(self.contenders, key=lambda run: run.score.value, default=None)


def find_results(root: Path) -> list[Result]:
    """All finished runs under a folder, in the order of their paths; those that asked nothing with a right answer are left out.

    Raises:
        ValueError: if there are none. One that has lost its answers or is damaged is left out; the log names it.
    """
    found: list[Result] = []
    damaged: list[str] = []
    for path in _visible(root):
        try:
            found.append(_whole(path))
        except (OSError, ValueError) as error:
            log.warning("left out: %s", error)
            damaged.append(str(error))
    if damaged and not found:
        raise ValueError(f"dir: {root} holds no run that can be read: {damaged[0]}")
    found = [result for result in found if result.scores]
    if not found:
        raise ValueError(
            f"dir: got {root}, which holds no {RESULT} with scores; takes the folder of finished runs (evaluate.py vqa, sweep)"
        )
    return found


def _whole(path: Path) -> Result:
    """A finished run with all that a report needs of it."""
    result = read_result(path)
    if not (result.folder / PREDICTIONS).is_file():
        raise ValueError(f"dir: {result.folder} has a {RESULT} but no {PREDICTIONS}; put it back or delete the folder")
    answers, questions = len(result.records), result.data["questions"]  # reads them, which may fail too
    if answers < max(1, questions * (1 - MAX_UNREADABLE)):
        raise DamagedFileError(f"{result.folder / PREDICTIONS}: holds {answers} of {questions} answers")
    return result


def missing_cells(root: Path) -> tuple[list[str], int]:
    """The cells without a result that sweeps under a folder have planned, and how many were planned in all.

    Raises:
        ValueError: if a plan does not list cells; DamagedFileError if it is damaged.
    """
    missing, planned = [], 0
    for path in sorted(root.rglob(PLAN)):
        cells = check_fields(read_json(path), str(path), {"cells": list})["cells"]
        if not all(isinstance(name, str) and is_relative(name) for name in cells):
            raise DamagedFileError(f"{path}: cells: got {shown(cells)}; takes names of folders below its own")
        missing += [name for name in cells if not (path.parent / name / RESULT).is_file()]
        planned += len(cells)
    return missing, planned


def _visible(root: Path) -> list[Path]:
    """The results under a folder, sorted; those that a writer is at are hidden."""
    found = sorted(root.rglob(RESULT))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]


def group_results(results: Iterable[Result]) -> list[Group]:
    """Sort runs into groups that may be compared.

    Raises:
        ValueError: if two runs of the stock model in one group measure the same.
    """
    groups: dict[tuple[str | None, ...], Group] = {}
    for result in results:
        cell = result.cell
        weights = (cell.model, cell.model_revision, cell.dtype)
        key = (*weights, cell.benchmark, cell.prompt_style, cell.scoring, result.data["sha256"])
        if key not in groups:
            model = Path(cell.model).name
            name = f"{cell.benchmark}, {model}, {cell.prompt_style} prompts"
            name += ", by likelihood" if cell.scoring == "likelihood" else ""
            groups[key] = Group(name, get_benchmark(cell.benchmark), model)
        group = groups[key]
        if not cell.baseline:
            group.cells.append(result)
        elif result.preprocessing in group.baselines:
            other = group.baselines[result.preprocessing].folder
            raise ValueError(f"dir: {result.folder} and {other} both hold the baseline of {group.name}; delete one")
        else:
            group.baselines[result.preprocessing] = result
    return sorted(groups.values(), key=lambda group: group.name)
