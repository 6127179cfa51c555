"""RealWorldQA: photographs from vehicles and elsewhere (xAI 2024)."""

import re
from collections.abc import Mapping

from qlip.evaluation.benchmarks.base import Benchmark, Question, Row, Style, multiple_choice
from qlip.evaluation.benchmarks.parsing import parse_letter, parse_words, split_options

REQUEST = re.compile(r"\s*Please answer directly with [^\n]*$")


class RealWorldQA(Benchmark):
    """765 questions, some with lettered options, some to be answered with a word or a number."""

    name, hub = "realworldqa", "xai-org/RealworldQA"

    def question(self, row: Row, index: int, style: Style) -> Question:
        """The question embeds its options and its request; VLMEvalKit splits them off and words them anew."""
        text, answer = row["question"].strip(), row["answer"].strip()
        bare, options = split_options(text)
        if not re.fullmatch("[A-Z]", answer):
            options = {}
        if options and style == "vlmevalkit":
            text = multiple_choice(REQUEST.sub("", bare).strip(), options)
        group = "letters" if options else "words"
        return Question(str(index), index, text, answer if options else parse_words(answer), group, options=options)

    def parse(self, raw: str, options: Mapping[str, str], style: Style) -> str | None:
        """A letter where there are options, else the words; None for an empty reply."""
        if options:
            return parse_letter(raw, options, style)
        return parse_words(raw) or None
