"""A pocket LLaVA that is loaded once, with questions that are prepared once, and asked again with one position after the other."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from qlip.core.position import Position
from qlip.evaluation.benchmarks import get_benchmark
from qlip.evaluation.benchmarks.base import Question
from qlip.evaluation.cell import Vision
from qlip.evaluation.run.arm import Arm, PreparedQuestion, load_arm
from qlip.evaluation.run.predict import PreparedQuestions

AT_ONCE = 20  # questions in a batch


@dataclass(frozen=True)
class Asked:
    """Questions of one benchmark, as one view shows their pictures.

    Attributes:
        benchmark: Its name.
        view: The view's name.
        questions: The questions.
        items: Each of them ready for the model.
    """

    benchmark: str
    view: str
    questions: list[Question]
    items: list[PreparedQuestion]

    @property
    def tokens(self) -> float:
        """Mean image tokens of a question."""
        return sum(item.tokens for item in self.items) / len(self.items)


class Reader:
    """Answers the first questions of benchmarks through several views, with any position.

    Args:
        llava: A LLaVA, by name or folder.
        benchmarks: Names of the benchmarks.
        views: How pictures are shown, by name.
        count: Questions of each benchmark.
    """

    def __init__(self, llava: str, benchmarks: tuple[str, ...], views: Mapping[str, Vision], count: int) -> None:
        self.asked = []
        for view, vision in views.items():
            self.arm = load_arm(llava, vision)  # the same model each time, with another processor
            self.asked += [_prepare(self.arm, name, view, count) for name in benchmarks]

    @torch.no_grad()
    def ask(self, position: Position) -> dict[str, list[bool]]:
        """Whether each question is answered right, by benchmark and view."""
        self.arm.model.qlip.position = position
        return {f"{asked.benchmark}, {asked.view}": self._answers(asked) for asked in self.asked}

    def _answers(self, asked: Asked) -> list[bool]:
        benchmark = get_benchmark(asked.benchmark)
        right = [False] * len(asked.items)
        order = sorted(range(len(asked.items)), key=lambda i: asked.items[i].tokens)  # little padding
        for first in range(0, len(order), AT_ONCE):
            batch = order[first : first + AT_ONCE]
            answers = self.arm.generate(self.arm.collate([asked.items[i] for i in batch]), max_new_tokens=4)
            for i, raw in zip(batch, answers, strict=True):
                question = asked.questions[i]
                right[i] = benchmark.correct(benchmark.parse(raw, question.options, "llava"), question.answer)
        return right


def _prepare(arm: Arm, name: str, view: str, count: int) -> Asked:
    benchmark = get_benchmark(name)
    source = benchmark.load(None)
    prepared = PreparedQuestions(benchmark.questions(source, "llava")[:count], source, arm, "llava")
    pairs = [prepared[i] for i in range(len(prepared))]
    questions, items = zip(*(pair for pair in pairs if pair is not None), strict=True)
    return Asked(name, view, list(questions), list(items))
