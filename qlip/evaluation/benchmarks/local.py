"""The user's own questions: a folder of pictures and a CSV file."""

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import datasets

from qlip.core.rules import listed
from qlip.evaluation.benchmarks.base import SINGLE_LETTER, SINGLE_WORD, Benchmark, Question, Record, Row, Style
from qlip.evaluation.benchmarks.parsing import parse_letter, split_options
from qlip.evaluation.benchmarks.source import Source, is_relative
from qlip.files import open_regular
from qlip.images.read import read_size

QUESTIONS = "questions.csv"
COLUMNS = ("image", "question")
TAKES = "takes a CSV file in UTF-8 with the columns image and question and, where right answers are known, answer"
MAX_BYTES = 2**26  # of a CSV file
LISTED = 10  # pictures that a message names at most


class Local(Benchmark):
    """Questions of the user's own, each about one picture; those with a right answer are scored.

    A question is put as it is written. One with a right answer is followed by the request for a single word or phrase, or, where
    options are written under it as lines ``A. ...``, for a letter.
    """

    name, hub = "local", "nowhere"

    def load(self, data: Path | None, hub: str | None = None, revision: str | None = None) -> Source:
        """Pictures and ``questions.csv`` from one folder; see `read_questions`."""
        if data is None or hub is not None:
            raise ValueError(
                f"data: got {hub or 'nothing'} for local; takes --data FOLDER, a folder of pictures that holds {QUESTIONS}"
            )
        return read_questions(data, data / QUESTIONS)

    def question(self, row: Row, index: int, style: Style) -> Question:
        """One line of the CSV; all questions about a picture are one unit."""
        text, answer = row["question"].strip(), row["answer"].strip()
        options = split_options(text)[1] if answer else {}
        request = SINGLE_LETTER if options else SINGLE_WORD
        prompt = f"{text}\n{request}" if answer and not text.endswith(request) else text
        return Question(f"{index}:{row['image']}", index, prompt, answer, unit=row["image"], options=options)

    def parse(self, raw: str, options: Mapping[str, str], style: Style) -> str | None:
        """A letter where there are options, else the words, see `in_words`; None for an empty reply."""
        return parse_letter(raw, options, style) if options else in_words(raw) or None

    def correct(self, parsed: str | None, answer: str) -> bool:
        """Whether the words are those of one of the right answers; a yes or no may go on."""
        wanted = {in_words(one) for one in answer.split("|")} - {""}
        first = (parsed or "").split(" ")[0]
        return in_words(parsed or "") in wanted or (first in ("yes", "no") and first in wanted)

    def tally(self, records: Sequence[Record]) -> dict[str, float]:
        """Right and asked; questions without a right answer are not counted."""
        return super().tally([record for record in records if record["answer"]])

    def stratum(self, records: Sequence[Record]) -> str:
        """Pictures with right answers are drawn among themselves, so that every resample has as many of them."""
        return "answered" if any(record["answer"] for record in records) else ""


def in_words(text: str) -> str:
    """A short answer made comparable: words alone, in lower case, one space between them.

    Points and commas within numbers stay, and a minus before one.
    """
    return " ".join(re.findall(r"(?:(?<!\w)-(?=\d))?\w+(?:[.,:]\d+)*", text.lower()))


def read_questions(folder: Path, questions: Path) -> Source:
    """Read a CSV file of questions, and check that every picture is there.

    Args:
        folder: Folder of the pictures.
        questions: CSV file with a header. ``image`` is a path below the folder; ``answer`` may be empty, or hold several right
            answers with ``|`` between them; other columns are ignored.

    Raises:
        OSError: if folder, file or pictures are not there or cannot be read, naming the lines.
        ValueError: if a line is not as it must be, naming it.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"folder: got {folder}, which is no folder; takes the folder of the pictures")
    if not os.path.isfile(questions):
        raise FileNotFoundError(f"questions: got {questions}, which is no file; {TAKES}")
    try:
        lines = list(_lines(questions))
    except OSError as error:
        raise OSError(f"questions: {questions} cannot be read: {error.strerror or error}; {TAKES}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"questions: {questions} cannot be read: {error}; {TAKES}") from error
    if not lines:
        raise ValueError(f"questions: {questions} has no questions; takes one in every line below the header")
    fault_of = cache(partial(_fault, folder))  # many questions are about one picture
    missing = [f"line {number}: {fault}" for number, row in lines if (fault := fault_of(row["image"]))]
    if missing:
        more = f", and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        raise FileNotFoundError(
            f"questions: {questions}: {', '.join(missing[:LISTED])}{more}; pictures lie in {folder}"
        )
    rows = datasets.Dataset.from_list([row for _, row in lines])
    return Source(rows, str(questions), None, folder)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows, each with the number of its first line."""
    with io.TextIOWrapper(open_regular(path, MAX_BYTES), encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        names = [name.strip().lower() for name in reader.fieldnames or []]
        if not set(COLUMNS) <= set(names):
            raise ValueError(f"questions: {path}: line 1: got the columns {listed(names) or 'none'}; {TAKES}")
        reader.fieldnames = names
        begin = reader.line_num + 1
        for values in reader:
            number, begin = begin, reader.line_num + 1
            where = f"questions: {path}: line {number}"
            if None in values:
                raise ValueError(f"{where}: has more fields than the header; put text with commas in double quotes")
            row = {name: (values.get(name) or "").strip() for name in (*COLUMNS, "answer")}
            empty = [name for name in COLUMNS if not row[name]]
            if empty:
                raise ValueError(f"{where}: {' and '.join(empty)} empty; every line names an image and asks a question")
            yield number, row


def _fault(folder: Path, image: str) -> str:
    """What is wrong with a picture, or nothing."""
    path = folder / image
    if not is_relative(image):
        return f"{image[:100]} is no path below the folder"
    if not os.path.isfile(path):  # also where the name is longer than any can be
        return f"{image[:100]} is not there"
    try:
        read_size(path)
    except OSError as error:
        return f"{image}: {error}"
    return ""
