"""Finished runs with made-up answers, written by the code that writes real ones."""

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qlip.evaluation.benchmarks import get_benchmark
from qlip.evaluation.journal import Journal
from qlip.evaluation.run.vqa import PREDICTIONS, RESULT, Cell, evaluate, versions
from qlip.files import write_json


def make_run(root: Path, chance: float, percent: float, count: int = 60, **fields: Any) -> Path:
    """A run of V* in which each question is right with a chance that its difficulty shifts.

    Args:
        root: Gets the run's folder.
        chance: Of a right answer.
        percent: Image tokens in percent of the stock model's.
        count: Number of questions.
        fields: Of the cell.
    """
    cell = Cell(**{"benchmark": "vstar", "model": "made-up/llava-1.5-13b", **fields})
    folder = root / cell.folder
    luck = random.Random(cell.folder)
    records = []
    for i in range(count):
        right = luck.random() < min(max(chance + 0.3 * ((i * 37 % count) / count - 0.5), 0), 1)
        records.append(
            {
                "id": str(i),
                "prompt": f"question {i}",
                "raw": "A" if right else "B",
                "parsed": "A" if right else "B",
                "answer": "A",
                "correct": right,
                "group": "direct_attributes" if i < 0.6 * count else "relative_position",
                "unit": str(i),
                "tokens": round(5.76 * percent),
                "baseline_tokens": 576,
                "prompt_tokens": round(5.76 * percent) + 40,
                "seconds": 0.1,
            }
        )
    Journal(folder / PREDICTIONS).append(records)
    data = {"origin": "made up", "revision": None, "questions": count, "sha256": f"made up {count}"}
    result = {"config": asdict(cell), "data": data, **evaluate(get_benchmark("vstar"), records), "versions": versions()}
    write_json(folder / RESULT, result)
    return folder


def make_sweep(root: Path, count: int = 60, sizes: tuple[int, ...] = (224, 336, 448), seeds: int = 3) -> Path:
    """Two baselines, cells over size and alpha with derivative and random selection, and cells without a quadtree."""
    make_run(root, 0.45, 100, count, baseline="crop")
    make_run(root, 0.43, 100, count, baseline="pad")
    for size in sizes:
        native = 133 * (size / 336) ** 2
        for i, alpha in enumerate((0.1, 0.5, 1.0, 2.0)):
            part = native / (1 + i)
            make_run(root, 0.52 - 0.05 * abs(i - 1), part, count, size=size, alpha=alpha)
            for seed in range(seeds):
                make_run(root, 0.5 - 0.04 * i, part, count, size=size, alpha=alpha, criterion="random", seed=seed)
        for position in ("solve", "bicubic", "bilinear"):
            drop = 0.06 if position == "bilinear" else 0.0
            make_run(root, 0.5 - drop, native, count, size=size, criterion="uniform", position=position)
    return root
