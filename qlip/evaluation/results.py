"""Finished runs on disk, and which of them may be compared."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from qlip.core.position import TableMode
from qlip.evaluation.benchmarks import Benchmark, get_benchmark
from qlip.evaluation.journal import read_records
from qlip.evaluation.statistics import Estimate

PREDICTIONS, RESULT = "predictions.jsonl", "result.json"


@dataclass(frozen=True, eq=False)
class Result:
    """One finished run.

    Attributes:
        folder: Where it lies.
        values: What ``result.json`` holds.
    """

    folder: Path
    values: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The cell that was measured."""
        return self.values["config"]

    @property
    def score(self) -> Estimate:
        """The headline."""
        return Estimate(**self.values["scores"][self.values["primary"]])

    @property
    def percent(self) -> float:
        """Image tokens in percent of the stock model's."""
        return self.values["tokens"]["percent"]

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The answers."""
        return read_records(self.folder / PREDICTIONS)

    @property
    def label(self) -> str:
        """What a reader should call it."""
        config = self.config
        if config["baseline"]:
            return f"stock, {config['baseline']}"
        budget = f"alpha {config['alpha']:g}" if config["max_tokens"] is None else f"{config['max_tokens']} tokens"
        parts = [f"{config['size'] or 'native'} px", budget, config["criterion"]]
        parts += [config["position"]] if config["position"] else []
        parts += ["square"] if config["crop"] == "square" else []
        parts += ["full cover"] if config.get("cover") == "full" else []
        parts += [f"seed {config['seed']}"] if config["criterion"] == "random" else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Group:
    """Runs that answered the same questions, worded the same, with the same weights.

    Attributes:
        name: Benchmark, model and, where they differ from the default, style and scoring.
        benchmark: The benchmark.
        model: Last part of the model's name.
        baselines: Runs of the stock model, by its preprocessing.
        cells: All others, controls included.
    """

    name: str
    benchmark: Benchmark
    model: str
    baselines: dict[str, Result] = field(default_factory=dict)
    cells: list[Result] = field(default_factory=list)

    @property
    def baseline(self) -> Result | None:
        """What the paper compares with: the stock model on cropped images, or on padded ones if there is nothing else."""
        return self.baselines.get("crop") or self.baselines.get("pad")

    @property
    def contenders(self) -> list[Result]:
        """The cells that are QLIP; random selection and table interpolation are controls and win nothing."""
        return [
            cell
            for cell in self.cells
            if cell.config["criterion"] != "random" and cell.config["position"] not in get_args(TableMode)
        ]

    @property
    def best(self) -> Result | None:
        """The contender with the highest score; chosen on the very questions it is scored on."""
        return max(self.contenders, key=lambda cell: cell.score.value, default=None)


def find_results(root: Path) -> list[Result]:
    """All finished runs under a folder, in the order of their paths.

    Raises:
        ValueError: if there are none, or one has lost its answers.
    """
    found = [Result(path.parent, json.loads(path.read_text())) for path in sorted(root.rglob(RESULT))]
    if not found:
        raise ValueError(
            f"dir: got {root}, which holds no {RESULT}; takes the folder of finished runs (evaluate.py vqa, sweep)"
        )
    for result in found:
        if not (result.folder / PREDICTIONS).is_file():
            raise ValueError(
                f"dir: {result.folder} has a {RESULT} but no {PREDICTIONS}; put it back or delete the folder"
            )
    return found


def group_results(results: Iterable[Result]) -> list[Group]:
    """Sort runs into groups that may be compared.

    Raises:
        ValueError: if two runs of the stock model in one group measure the same.
    """
    groups: dict[tuple[Any, ...], Group] = {}
    for result in results:
        config = result.config
        key = tuple(config[k] for k in ("benchmark", "model", "model_revision", "dtype", "prompt_style", "scoring"))
        key = (*key, result.values["data"]["sha256"])
        if key not in groups:
            model = Path(config["model"]).name
            name = f"{config['benchmark']}, {model}, {config['prompt_style']} prompts"
            name += ", by likelihood" if config["scoring"] == "likelihood" else ""
            groups[key] = Group(name, get_benchmark(config["benchmark"]), model)
        group = groups[key]
        if not config["baseline"]:
            group.cells.append(result)
        elif config["baseline"] in group.baselines:
            other = group.baselines[config["baseline"]].folder
            raise ValueError(f"dir: {result.folder} and {other} both hold the baseline of {group.name}; delete one")
        else:
            group.baselines[config["baseline"]] = result
    return sorted(groups.values(), key=lambda group: group.name)
