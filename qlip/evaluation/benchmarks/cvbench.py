"""CV-Bench: counting, relations, depth and distance (Tong et al. 2024)."""

from collections.abc import Mapping, Sequence

import numpy as np

from qlip.evaluation.benchmarks.base import SINGLE_LETTER, Array, Benchmark, Question, Record, Row, Style, add, ratio
from qlip.evaluation.benchmarks.parsing import parse_letter

SOURCES = {"2D": ("ADE20K", "COCO"), "3D": ("Omni3D",)}


class CVBench(Benchmark):
    """2638 questions with two to six options; the headline is Cambrian's mean of means over sources."""

    name, hub, primary = "cvbench", "nyu-visionx/CV-Bench", "combined"
    revision = "bc284db50d036958861cb60cdd7b77612052ce0d"

    def question(self, row: Row, index: int, style: Style) -> Question:
        """The data brings its prompt with it; group is the task, unit the question."""
        options = {chr(ord("A") + i): str(choice) for i, choice in enumerate(row["choices"])}
        prompt = row["prompt"]
        if style == "llava":
            prompt = f"{prompt}\n{SINGLE_LETTER}"
        elif style == "lmms":
            letters = ", ".join(options)
            note = f"Note: You only need to respond with {letters} without providing any additional information.\n"
            prompt = f"{note}\n{prompt}"
        group = f"{row['task']},{row['source']}"
        return Question(str(row["idx"]), index, prompt, row["answer"].strip("() "), group, options=options)

    def parse(self, raw: str, options: Mapping[str, str], style: Style) -> str | None:
        """A letter."""
        return parse_letter(raw, options, style)

    def tally(self, records: Sequence[Record]) -> dict[str, float]:
        """Right and asked by task and by source."""
        sums: dict[str, float] = {}
        for record in records:
            task, source = record["group"].split(",")
            for name in ("micro", f"task/{task}", f"source/{source}"):
                add(sums, f"{name}/right", record["correct"])
                add(sums, f"{name}/asked", 1)
        return sums

    def combine(self, sums: Mapping[str, Array]) -> dict[str, Array]:
        """2D is the mean of ADE20K and COCO, 3D is Omni3D, combined is the mean of both; sources left out do not count."""
        names = sorted(name.removesuffix("/asked") for name in sums if name.endswith("/asked"))
        scores = {name: ratio(sums[f"{name}/right"], sums[f"{name}/asked"], self.scale) for name in names}
        means = []
        for side, sources in SOURCES.items():
            present = [scores[f"source/{source}"] for source in sources if f"source/{source}" in scores]
            if present:
                scores[side] = np.mean(present, axis=0)
                means.append(scores[side])
        return {"combined": np.mean(means, axis=0), **scores}

    def stratum(self, records: Sequence[Record]) -> str:
        """The source: its size is part of the design."""
        return str(records[0]["group"].split(",")[1])
