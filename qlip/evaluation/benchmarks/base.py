"""What a benchmark is: rows, prompts, parsed answers, and scores that are functions of sums over questions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import datasets
import numpy as np
from numpy.typing import NDArray

from qlip.core.rules import shown
from qlip.evaluation.benchmarks.source import Source, load_rows, naming
from qlip.evaluation.names import Scoring, Style

Array = NDArray[np.floating]
Row = Mapping[str, Any]  # of a data set, whose columns are its authors' own

SINGLE_LETTER = "Answer with the option's letter from the given choices directly."
SINGLE_WORD = "Answer the question using a single word or phrase."


@dataclass(frozen=True)
class Question:
    """What is asked once.

    Attributes:
        id: Unique within the benchmark.
        row: Row of the data set that holds the image.
        prompt: The question as worded for the model, without the frame of the conversation.
        answer: The right answer, as `Benchmark.parse` returns it.
        group: What it is reported under; several names joined by commas where it counts for each of them.
        unit: What is resampled as a whole in the bootstrap: questions that stand or fall together share one.
        options: Text of each letter, where there are letters.
        candidates: Whole sentences whose likelihoods are compared, the right one first; empty where an answer is generated.
    """

    id: str
    row: int
    prompt: str
    answer: str
    group: str = ""
    unit: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()


class Record(TypedDict):
    """The answer to one question, a line of ``predictions.jsonl``."""

    id: str
    """`Question.id`."""
    prompt: str
    """`Question.prompt`."""
    raw: str
    """What the model wrote; the most likely candidate where likelihoods are compared."""
    parsed: str | None
    """What it meant, see `Benchmark.parse`."""
    answer: str
    """`Question.answer`."""
    correct: bool
    """Whether what it meant is the right answer."""
    group: str
    """`Question.group`."""
    unit: str
    """`Question.unit`, or the question's id where it has none."""
    tokens: int
    """Image tokens in the prompt."""
    baseline_tokens: int
    """Image tokens that the stock model spends on the same picture, at its own settings."""
    prompt_tokens: int
    """Tokens of the whole prompt, those of the image included."""
    seconds: float
    """Time that the model took; a batch divides its own equally among its questions."""


class Benchmark(ABC):
    """One benchmark: how its data is read, asked, understood and scored. A new one is a subclass in `BENCHMARKS`.

    Every score is a function of sums over units, so that a bootstrap is a product of matrices: `tally` says what a unit
    adds, `combine` turns sums of any leading shape into scores.
    """

    name: ClassVar[str]
    hub: ClassVar[str]
    revision: ClassVar[str | None] = None
    config: ClassVar[str | None] = None
    split: ClassVar[str] = "test"
    primary: ClassVar[str] = "accuracy"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 128
    scorings: ClassVar[tuple[Scoring, ...]] = ("letters",)

    def load(self, data: Path | None, hub: str | None = None, revision: str | None = None) -> Source:
        """Rows and pictures, from a folder or the Hub; see `load_rows`."""
        if data is None and hub is None:
            revision = revision or self.revision
        return load_rows(hub or self.hub, self.config, self.split, data, revision)

    def questions(self, source: Source, style: Style, scoring: Scoring = "letters") -> list[Question]:
        """All questions in the order of the rows."""
        with naming(source.origin):
            rows = list(without_pictures(source.rows))
        return [self.of_row(source, index, partial(self.question, row, index, style)) for index, row in enumerate(rows)]

    def of_row(self, source: Source, index: int, ask: Callable[[], Question]) -> Question:
        """What ``ask`` makes of a row, whose columns are its authors' own.

        Raises:
            ValueError: naming the row, and the column that is missing or holds something else.
        """
        try:
            question = ask()
            for name in ("id", "prompt", "answer", "group", "unit"):
                if not isinstance(getattr(question, name), str):
                    raise TypeError(f"as {name} it has {shown(getattr(question, name))}, no text")
            return question
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            if str(error).startswith("data: "):
                raise
            why = f"has no {error}" if isinstance(error, KeyError) else f"holds what is not taken ({error})"
            raise ValueError(
                f"data: row {index} of {source.origin} {why}, its columns are {', '.join(source.rows.column_names)}; takes "
                f"rows as those of {self.hub}"
            ) from error

    @abstractmethod
    def question(self, row: Row, index: int, style: Style) -> Question:
        """The question of one row, its image undecoded."""

    @abstractmethod
    def parse(self, raw: str, options: Mapping[str, str], style: Style) -> str | None:
        """What the model meant, in the form of `Question.answer`; None if that cannot be said."""

    def correct(self, parsed: str | None, answer: str) -> bool:
        """Whether an answer is right."""
        return parsed == answer

    def tally(self, records: Sequence[Record]) -> dict[str, float]:
        """What one unit adds to each sum. By default the right and the asked, over all and by group."""
        sums: dict[str, float] = {}
        for record in records:
            for group in ("", *filter(None, record["group"].split(","))):
                add(sums, f"{group}/right", record["correct"])
                add(sums, f"{group}/asked", 1)
        return sums

    def combine(self, sums: Mapping[str, Array]) -> dict[str, Array]:
        """Scores from sums, each of any one shape. By default accuracy, over all and by group."""
        groups = sorted(name.removesuffix("/asked") for name in sums if name.endswith("/asked"))
        return {
            group or "accuracy": ratio(sums[f"{group}/right"], sums[f"{group}/asked"], self.scale) for group in groups
        }

    def stratum(self, records: Sequence[Record]) -> str:
        """What resampling keeps the size of: units are drawn among those of their own stratum."""
        return ""


def add(sums: dict[str, float], name: str, value: float) -> None:
    """Add to one of the sums, which starts at zero."""
    sums[name] = sums.get(name, 0.0) + float(value)


def ratio(part: Array, whole: Array, scale: float = 1.0) -> Array:
    """``scale * part / whole``, zero where the whole is zero."""
    whole = np.asarray(whole, dtype=float)
    return scale * np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def without_pictures(rows: datasets.Dataset) -> datasets.Dataset:
    """The same rows with pictures left undecoded, to read the rest in a fraction of the time."""
    pictures = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    return rows.remove_columns(pictures)


def multiple_choice(question: str, options: Mapping[str, str], hint: str = "") -> str:
    """The prompt that LLaVA was trained with: hint, question, lettered options, the request for a letter."""
    lines = [hint] if hint else []
    return "\n".join([*lines, question, *(f"{letter}. {text}" for letter, text in options.items()), SINGLE_LETTER])
