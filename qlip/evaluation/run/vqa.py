"""One run: one benchmark, one arm, one folder with ``predictions.jsonl`` and ``result.json``."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from qlip._version import __version__
from qlip.data.readable import check_unreadable
from qlip.evaluation.benchmarks import Benchmark, get_benchmark
from qlip.evaluation.benchmarks.base import Question, Record
from qlip.evaluation.benchmarks.source import Source
from qlip.evaluation.cell import Cell, Run
from qlip.evaluation.journal import Journal
from qlip.evaluation.results import PREDICTIONS, RESULT, DataDescription, Evaluation, ResultFile
from qlip.evaluation.run.arm import Arm, load_arm
from qlip.evaluation.run.predict import Answering, QuestionData
from qlip.evaluation.statistics import score, summary
from qlip.files import write_json
from qlip.structured import check_fields, read_json

CONFIG = "config.json"
PACKAGES = ("torch", "transformers", "lightning", "datasets")


def run_vqa(cell: Cell, run: Run, source: Source | None = None) -> ResultFile:
    """Ask what has not been asked yet, then score; returns what ``result.json`` holds.

    Args:
        cell: What is measured.
        run: Where, and on what.
        source: The benchmark's rows and pictures, if they are loaded already.

    Raises:
        ValueError: if the folder holds another measurement, or an option is not taken.
        OSError: if data or model are not there, or more than 1 % of the pictures cannot be read.
    """
    out = run.out or Path("results") / cell.folder
    benchmark = get_benchmark(cell.benchmark)
    source = source or benchmark.load(run.data, cell.hub, cell.data_revision)
    questions = benchmark.questions(source, cell.prompt_style, cell.scoring)[: cell.limit]
    data = describe_data(source, questions)
    claim(out, {"config": asdict(cell), "data": {"questions": data["questions"], "sha256": data["sha256"]}})
    journal = Journal(out / PREDICTIONS)
    if {question.id for question in questions} - {record["id"] for record in journal.recover()}:
        arm = load_arm(cell.model, cell.vision, cell.model_revision, cell.dtype)
        ask(cell, run, arm, source, questions, journal)
    asked = {question.id for question in questions}
    records = [record for record in journal.recover() if record["id"] in asked]
    unreadable = sorted(asked - {record["id"] for record in records})
    check_unreadable(len(unreadable), len(asked), "data")
    result: ResultFile = {
        "config": asdict(cell),
        "data": data,
        **evaluate(benchmark, records),
        "unreadable": unreadable,
        "batch_size": run.batch_size,
        "versions": versions(),
    }
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
    data = QuestionData(questions, source, arm, cell.prompt_style, journal, run.batch_size, run.workers)
    trainer.predict(module, datamodule=data, return_predictions=False)


def describe_data(source: Source, questions: Sequence[Question]) -> DataDescription:
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


def claim(out: Path, measured: Mapping[str, object]) -> None:
    """Note in a folder what is measured there, or check that it is the same.

    Raises:
        ValueError: naming what differs.
    """
    path = out / CONFIG
    if not path.is_file():
        write_json(path, measured)
        return
    held = check_fields(read_json(path), str(path), dict.fromkeys(measured, dict))
    wanted = json.loads(json.dumps(measured))
    changed = [
        f"{section}.{name} {wanted[section].get(name)!r} (there: {held[section].get(name)!r})"
        for section in wanted
        for name in sorted(wanted[section].keys() | held[section].keys())
        if wanted[section].get(name) != held[section].get(name)
    ]
    if changed:
        raise ValueError(f"out: {out} holds another measurement; asked for {', '.join(changed)}. Take another folder")


def evaluate(benchmark: Benchmark, records: Sequence[Record]) -> Evaluation:
    """Everything that follows from the answers."""
    tokens = [record["tokens"] for record in records]
    baseline = [record["baseline_tokens"] for record in records]
    if sum(baseline) < 1:
        raise ValueError(
            f"{PREDICTIONS}: baseline_tokens: got none in all of the answers; delete the folder and measure anew"
        )
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
