"""One run: one benchmark, one arm, one folder with ``predictions.jsonl`` and ``result.json``."""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from qlip._version import __version__
from qlip.core.criteria import get_criterion
from qlip.evaluation.benchmarks import Benchmark, get_benchmark
from qlip.evaluation.benchmarks.base import Question, Record, Scoring, Style
from qlip.evaluation.benchmarks.source import Source
from qlip.evaluation.journal import Journal
from qlip.evaluation.results import PREDICTIONS, RESULT
from qlip.evaluation.run.arm import CHATS, Arm, Vision, load_arm
from qlip.evaluation.run.predict import Answering, QuestionData
from qlip.evaluation.statistics import score, summary
from qlip.files import write_json

CONFIG = "config.json"
PACKAGES = ("torch", "transformers", "lightning", "datasets")


@dataclass(frozen=True, kw_only=True)
class Cell(Vision):
    """What is measured: the benchmark, the arm, the wording. Two runs of one cell measure the same thing."""

    benchmark: str
    """vstar, mmbench, pope, cvbench, scienceqa, mme or realworldqa."""
    model: str
    """A LLaVA: Hub id or folder, converted before or not."""
    model_revision: str | None = None
    """Revision of a Hub id."""
    prompt_style: Style = "llava"
    """Whose prompts and parsers."""
    scoring: Scoring = "letters"
    """``likelihood`` is the official way of V*."""
    hub: str | None = None
    """Hub id of the data, in place of the benchmark's own."""
    data_revision: str | None = None
    """Its revision; the newest, or the pinned one, if not given."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights."""
    max_new_tokens: int | None = None
    """Longest answer; the benchmark's own if not given."""
    limit: int | None = None
    """Ask the first questions alone."""

    def __post_init__(self) -> None:
        benchmark = get_benchmark(self.benchmark)
        get_criterion(self.criterion)
        for name, taken in (("prompt_style", get_args(Style)), ("scoring", benchmark.scorings)):
            if getattr(self, name) not in taken:
                raise ValueError(
                    f"{name}: got {getattr(self, name)!r}; {self.benchmark} takes {', '.join(map(repr, taken))}"
                )
        for name in ("limit", "max_new_tokens", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: got {value}; takes a positive number, or null")

    @property
    def vision(self) -> Vision:
        """How the arm sees."""
        return Vision(**{name: getattr(self, name) for name in Vision.__dataclass_fields__})

    @property
    def folder(self) -> str:
        """A folder's name that says what is in it, and differs where any field does."""
        if self.baseline:
            what = f"baseline-{self.baseline}"
        else:
            budget = f"alpha{self.alpha:g}" if self.max_tokens is None else f"budget{self.max_tokens}"
            what = f"{self.position or 'default'}-{self.crop}{self.size or 'native'}-{self.criterion}-{budget}-seed{self.seed}"
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.benchmark}/{Path(self.model).name}/{what}-{digest[:8]}"


@dataclass(frozen=True)
class Run:
    """How it is measured: where data and results lie, and on what. Makes no difference to what is measured."""

    data: Path | None = None
    """Folder with a copy of the data; downloaded from the Hub if not given."""
    out: Path | None = None
    """Folder of the results; results/BENCHMARK/MODEL/... if not given."""
    batch_size: int = 1
    """Questions in a batch on each device."""
    devices: int | Literal["auto"] = "auto"
    """Number of devices."""
    accelerator: str = "auto"
    """As in Lightning: auto, gpu, cpu."""
    workers: int = 2
    """Processes that read and cut pictures, for each device."""


def run_vqa(cell: Cell, run: Run) -> dict[str, Any]:
    """Ask what has not been asked yet, then score; returns what ``result.json`` holds.

    Raises:
        ValueError: if the folder holds another measurement, or an option is not taken.
        OSError: if data or model are not there.
    """
    out = run.out or Path("results") / cell.folder
    benchmark = get_benchmark(cell.benchmark)
    source = benchmark.load(run.data, cell.hub, cell.data_revision)
    questions = benchmark.questions(source, cell.prompt_style, cell.scoring)[: cell.limit]
    data = describe_data(source, questions)
    claim(out, {"config": asdict(cell), "data": {"questions": data["questions"], "sha256": data["sha256"]}})
    journal = Journal(out / PREDICTIONS)
    if {question.id for question in questions} - {record["id"] for record in journal.recover()}:
        arm = load_arm(cell.model, cell.vision, cell.model_revision, cell.dtype)
        ask(cell, run, arm, source, questions, journal)
    records = journal.recover()
    asked = {question.id for question in questions}
    assert {record["id"] for record in records} == asked, "a question was lost"
    result = {"config": asdict(cell), "data": data, **evaluate(benchmark, records), "batch_size": run.batch_size}
    result["versions"] = versions()
    write_json(out / RESULT, result)  # every rank writes the same, whole
    return result


def ask(cell: Cell, run: Run, arm: Arm, source: Source, questions: Sequence[Question], journal: Journal) -> None:
    """Put the open questions to the model, on all devices."""
    benchmark = get_benchmark(cell.benchmark)
    longest = cell.max_new_tokens or benchmark.max_new_tokens
    trainer = L.Trainer(
        accelerator=run.accelerator,
        devices=run.devices,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # Lightning's repeats questions until the ranks have equally many
        callbacks=[RichProgressBar()],
    )
    module = Answering(arm, benchmark, cell.prompt_style, longest, journal)
    chat = CHATS[cell.prompt_style]
    data = QuestionData(questions, source, arm, chat, journal, run.batch_size, run.workers)
    trainer.predict(module, datamodule=data, return_predictions=False)


def describe_data(source: Source, questions: Sequence[Question]) -> dict[str, Any]:
    """Where the questions are from, how many there are, and a digest of their words.

    Raises:
        ValueError: if there are none, or two share an id.
    """
    ids = [question.id for question in questions]
    if not ids or len(set(ids)) != len(ids):
        raise ValueError(
            f"data: {source.origin} has {len(ids)} questions with {len(set(ids))} different ids; takes some, all different"
        )
    words = json.dumps([[q.id, q.prompt, q.answer, q.candidates] for q in questions])
    return {
        "origin": source.origin,
        "revision": source.revision,
        "questions": len(ids),
        "sha256": hashlib.sha256(words.encode()).hexdigest(),
    }


def claim(out: Path, measured: dict[str, Any]) -> None:
    """Note in a folder what is measured there, or check that it is the same.

    Raises:
        ValueError: naming what differs.
    """
    path = out / CONFIG
    if not path.is_file():
        write_json(path, measured)
        return
    held = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(measured))
    changed = [
        f"{part}.{name} {wanted[part].get(name)!r} (there: {held[part].get(name)!r})"
        for part in wanted
        for name in sorted(wanted[part].keys() | held[part].keys())
        if wanted[part].get(name) != held[part].get(name)
    ]
    if changed:
        raise ValueError(f"out: {out} holds another measurement; asked for {', '.join(changed)}. Take another folder")


def evaluate(benchmark: Benchmark, records: Sequence[Record]) -> dict[str, Any]:
    """Everything that follows from the answers."""
    tokens, baseline = ([record[name] for record in records] for name in ("tokens", "baseline_tokens"))
    return {
        "primary": benchmark.primary,
        "scores": summary(score(benchmark, records)),
        "unparsed": _mean([record["parsed"] is None for record in records]),
        "tokens": {
            "mean": _mean(tokens),
            "baseline": _mean(baseline),
            "percent": 100 * sum(tokens) / sum(baseline),
            "longest_prompt": max(record["prompt_tokens"] for record in records),
        },
        "seconds": sum(record["seconds"] for record in records),
    }


def versions() -> dict[str, str]:
    """What a result hangs on besides its configuration."""
    return {"qlip": __version__, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
