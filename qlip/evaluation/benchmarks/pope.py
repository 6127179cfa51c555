"""POPE: objects that are there and objects that are not (Li et al. 2023)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from qlip.evaluation.benchmarks.base import (
    SINGLE_WORD,
    Array,
    Benchmark,
    Question,
    Record,
    Row,
    Scoring,
    Style,
    add,
    ratio,
)
from qlip.evaluation.benchmarks.parsing import parse_yes_no
from qlip.evaluation.benchmarks.source import Source


class Pope(Benchmark):
    """Three splits of yes-or-no questions over the same pictures; what occurs in several is asked once.

    The headline is F1 of "yes", pooled over all rows as VLMEvalKit does (and so the paper); ``f1_mean`` is the mean of the
    splits, LLaVA's. An answer that is not understood counts as wrong and as not "yes". Resampled by picture: 500 of
    them share all rows.
    """

    name, hub, primary = "pope", "lmms-lab/POPE", "f1"

    def questions(self, source: Source, style: Style, scoring: Scoring = "letters") -> list[Question]:
        """Each question about a picture once, its splits joined."""
        unique: dict[tuple[str, str, str], Question] = {}
        for question in super().questions(source, style):
            key = (question.unit, question.prompt, question.answer)
            seen = unique.setdefault(key, question)
            if seen is not question:
                unique[key] = replace(seen, group=f"{seen.group},{question.group}")
        return list(unique.values())

    def question(self, row: Row, index: int, style: Style) -> Question:
        """One row; ``question_id`` starts anew in every split."""
        text = row["question"].strip()
        prompt = f"{text} Please answer yes or no." if style == "vlmevalkit" else f"{text}\n{SINGLE_WORD}"
        name = f"{row['category']}:{row['question_id']}"
        return Question(name, index, prompt, row["answer"].strip().lower(), row["category"], row["image_source"])

    def parse(self, raw: str, options: Mapping[str, str], style: Style) -> str | None:
        """Yes or no."""
        return parse_yes_no(raw, style)

    def tally(self, records: Sequence[Record]) -> dict[str, float]:
        """All rows about one picture: hits, false alarms, misses, right and asked, by split."""
        sums: dict[str, float] = {}
        for record in records:
            said, true = record["parsed"] == "yes", record["answer"] == "yes"
            for split in record["group"].split(","):
                counts = {"hit": said and true, "alarm": said and not true, "miss": true and not said, "yes": said}
                for name, value in {**counts, "right": record["correct"], "asked": True}.items():
                    add(sums, f"{split}/{name}", value)
        return sums

    def combine(self, sums: Mapping[str, Array]) -> dict[str, Array]:
        """F1, accuracy, precision, recall and the share of "yes", pooled and by split."""
        splits = sorted({name.split("/")[0] for name in sums})
        names = ("hit", "alarm", "miss", "yes", "right", "asked")
        pooled = {name: np.sum([sums[f"{split}/{name}"] for split in splits], axis=0) for name in names}
        scores = self._scores(pooled)
        by_split = {split: self._scores({name: sums[f"{split}/{name}"] for name in names}) for split in splits}
        scores["f1_mean"] = np.mean([by_split[split]["f1"] for split in splits], axis=0)
        return scores | {f"{split}/{k}": v for split, inner in by_split.items() for k, v in inner.items()}

    def _scores(self, counts: Mapping[str, Array]) -> dict[str, Array]:
        hit = counts["hit"]
        return {
            "f1": ratio(2 * hit, 2 * hit + counts["alarm"] + counts["miss"], self.scale),
            "accuracy": ratio(counts["right"], counts["asked"], self.scale),
            "precision": ratio(hit, hit + counts["alarm"], self.scale),
            "recall": ratio(hit, hit + counts["miss"], self.scale),
            "yes_ratio": ratio(counts["yes"], counts["asked"], self.scale),
        }
