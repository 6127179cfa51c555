"""MME: perception and cognition, asked in pairs (Fu et al. 2023)."""

from collections.abc import Mapping, Sequence

from qlip.evaluation.benchmarks.base import SINGLE_WORD, Array, Benchmark, Question, Record, Row, Style, add, ratio
from qlip.evaluation.benchmarks.parsing import parse_yes_no

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
REQUEST = "Please answer yes or no."


class MME(Benchmark):
    """Two questions a picture, one to be answered with yes, one with no.

    A subtask's score is 100 times the accuracy plus 100 times the share of pictures with both answers right; perception is the
    sum of ten subtasks (2000 at most), cognition of four (800). The headline is perception, as in the paper (which does
    not say so, but its numbers fit nothing else).
    """

    name, hub, primary, scale = "mme", "lmms-lab/MME", "perception", 1.0

    def question(self, row: Row, index: int, style: Style) -> Question:
        """Questions end with a request for yes or no, which LLaVA replaces by one for a single word."""
        text = row["question"].strip()
        if style != "vlmevalkit":
            text = f"{text.removesuffix(REQUEST).strip()}\n{SINGLE_WORD}"
        unit = f"{row['category']}:{row['question_id']}"
        return Question(f"{index}:{unit}", index, text, row["answer"].strip().lower(), row["category"], unit)

    def parse(self, raw: str, options: Mapping[str, str], style: Style) -> str | None:
        """Yes or no; lmms-eval looks at the first four characters."""
        if style == "lmms":
            start = raw.strip().lower()[:4]
            return "yes" if "yes" in start else "no" if "no" in start else None
        return parse_yes_no(raw, "vlmevalkit")

    def tally(self, records: Sequence[Record]) -> dict[str, float]:
        """One picture: its answers, and whether all are right."""
        sums: dict[str, float] = {}
        group = records[0]["group"]
        for record in records:
            add(sums, f"{group}/right", record["correct"])
            add(sums, f"{group}/asked", 1)
        add(sums, f"{group}/pairs_right", all(record["correct"] for record in records))
        add(sums, f"{group}/pairs", 1)
        return sums

    def combine(self, sums: Mapping[str, Array]) -> dict[str, Array]:
        """Perception, cognition and each subtask."""
        groups = sorted({name.split("/")[0] for name in sums})
        scores: dict[str, Array] = {
            group: 100 * ratio(sums[f"{group}/right"], sums[f"{group}/asked"])
            + 100 * ratio(sums[f"{group}/pairs_right"], sums[f"{group}/pairs"])
            for group in groups
        }
        nothing = 0 * next(iter(scores.values()))
        totals: dict[str, Array] = {
            "perception": sum((scores[group] for group in groups if group in PERCEPTION), nothing),
            "cognition": sum((scores[group] for group in groups if group in COGNITION), nothing),
        }
        return totals | scores

    def stratum(self, records: Sequence[Record]) -> str:
        """The subtask: its size is part of the design."""
        return str(records[0]["group"])
