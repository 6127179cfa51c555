"""ScienceQA, the questions with a picture (Lu et al. 2022)."""

from collections.abc import Mapping

from qlip.evaluation.benchmarks.base import Benchmark, Question, Row, Style, multiple_choice
from qlip.evaluation.benchmarks.parsing import parse_letter


class ScienceQA(Benchmark):
    """2017 school questions; lecture and solution are never shown."""

    name, hub, config = "scienceqa", "lmms-lab/ScienceQA", "ScienceQA-IMG"
    max_new_tokens = 1024

    def question(self, row: Row, index: int, style: Style) -> Question:
        """The answer is an index into the choices."""
        options = {chr(ord("A") + i): str(choice) for i, choice in enumerate(row["choices"])}
        hint = (row.get("hint") or "").strip()
        if style == "lmms" and hint:
            hint = f"Context: {hint}"
        prompt = multiple_choice(row["question"], options, hint)
        return Question(str(index), index, prompt, chr(ord("A") + int(row["answer"])), row["subject"], options=options)

    def parse(self, raw: str, options: Mapping[str, str], style: Style) -> str | None:
        """A letter."""
        return parse_letter(raw, options, style)
