"""MMBench, English development split, circular evaluation (Liu et al. 2024)."""

from collections.abc import Mapping, Sequence

from qlip.evaluation.benchmarks.base import (
    SINGLE_LETTER,
    Benchmark,
    Question,
    Record,
    Row,
    Style,
    add,
    multiple_choice,
)
from qlip.evaluation.benchmarks.parsing import parse_letter

ROTATION = 1_000_000


class MMBench(Benchmark):
    """Each question is asked with its options in every rotation and counts only if all are right (VLMEvalKit)."""

    name, hub, config, split = "mmbench", "lmms-lab/MMBench", "en", "dev"
    max_new_tokens = 1024

    def question(self, row: Row, index: int, style: Style) -> Question:
        """One rotation; ``index`` of the data is text in one language and a number in the other."""
        number = int(row["index"])
        options = {letter: str(row[letter]) for letter in "ABCD" if _given(row.get(letter))}
        hint = str(row["hint"]) if _given(row.get("hint")) else ""
        if style == "lmms":
            listed = "".join(f"{letter}. {text}\n" for letter, text in options.items())
            prompt = f"{hint} {row['question']} There are several options:\n{listed}".lstrip() + f"\n{SINGLE_LETTER}"
        else:
            prompt = multiple_choice(row["question"], options, hint)
        unit = str(number % ROTATION)
        return Question(str(number), index, prompt, row["answer"].strip(), row["category"], unit, options)

    def parse(self, raw: str, options: Mapping[str, str], style: Style) -> str | None:
        """A letter."""
        return parse_letter(raw, options, style)

    def tally(self, records: Sequence[Record]) -> dict[str, float]:
        """One question with all its rotations."""
        sums: dict[str, float] = {}
        hit = all(record["correct"] for record in records)
        for group in ("", records[0]["group"]):
            add(sums, f"{group}/right", hit)
            add(sums, f"{group}/asked", 1)
        first = next((record for record in records if int(record["id"]) < ROTATION), None)
        if first:
            add(sums, "vanilla/right", first["correct"])
            add(sums, "vanilla/asked", 1)
        return sums


def _given(value: object) -> bool:
    return value is not None and str(value).strip().lower() not in ("", "nan", "none")
