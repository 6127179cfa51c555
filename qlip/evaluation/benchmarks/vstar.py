"""V*: fine detail in large photographs (Wu and Xie 2024)."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import datasets
from huggingface_hub import snapshot_download

from qlip.evaluation.benchmarks.base import SINGLE_LETTER, Benchmark, Question, Row, Scoring, Style, multiple_choice
from qlip.evaluation.benchmarks.parsing import parse_letter, split_options
from qlip.evaluation.benchmarks.source import Source, check_folder, is_relative, naming, resolve_revision
from qlip.structured import read_json


class VStar(Benchmark):
    """191 questions; pictures are paths beside the rows, and the text already asks for a letter.

    Two ways of scoring: ``letters``, and ``likelihood``, the official one, where the most likely of several whole sentences
    counts as the answer.
    """

    name, hub = "vstar", "craigwu/vstar_bench"
    revision = "d9ae62c903da0c98336e85c5ee89cd863b04b4da"
    scorings = ("letters", "likelihood")

    def load(self, data: Path | None, hub: str | None = None, revision: str | None = None) -> Source:
        """Rows of ``*.jsonl`` with paths into the repository, which is downloaded whole if no folder is given.

        A copy with pictures inside the rows (``lmms-lab/vstar-bench``) is taken as well; it knows letters alone.
        """
        if data is None:
            hub = hub or self.hub
            commit = resolve_revision(hub, revision or (self.revision if hub == self.hub else None))
            root = Path(snapshot_download(hub, repo_type="dataset", revision=commit))
        else:
            root, commit = check_folder(data), None
        files = sorted(root.glob("*.jsonl"))
        if not files:
            return super().load(root)
        if len(files) > 1:
            raise ValueError(
                f"data: {root} has {len(files)} .jsonl files; takes one, with a row a question: "
                f"{', '.join(file.name for file in files)}"
            )
        with naming(str(files[0])):
            rows = datasets.load_dataset("json", data_files=str(files[0]), split="train")
        return Source(rows, hub or str(root), commit, root)

    def questions(self, source: Source, style: Style, scoring: Scoring = "letters") -> list[Question]:
        """All questions; for ``likelihood`` with the sentences of the JSON file beside each picture."""
        if scoring == "letters":
            return super().questions(source, style)
        if source.root is None:
            raise ValueError(
                f"scoring: got 'likelihood', but {source.origin} has no folder with a JSON file a picture; use "
                f"{self.hub}, or 'letters'"
            )
        return [
            self.of_row(source, index, partial(self._sentences, source, index)) for index in range(len(source.rows))
        ]

    def question(self, row: Row, index: int, style: Style) -> Question:
        """Four options about attributes, two about relative positions."""
        text = row["text"].strip()
        question, options = split_options(text)
        if style == "vlmevalkit":
            text = multiple_choice(question.replace(SINGLE_LETTER, "").strip(), options)
        elif style == "lmms":  # which so repeats the request
            text = re.sub(r"^\(([A-Z])\) ", r"\1. ", text, flags=re.MULTILINE) + f"\n{SINGLE_LETTER}"
        name = str(row["question_id"]) if row.get("question_id") is not None else str(index)
        return Question(f"{index}:{name}", index, text, row["label"].strip(), row["category"], options=options)

    def _sentences(self, source: Source, index: int) -> Question:
        row = source.rows[index]
        if source.root is None:
            raise ValueError(
                f"scoring: got 'likelihood' for {source.origin}, whose rows have no sentences beside their pictures"
            )
        if not is_relative(row["image"]):
            raise ValueError(f"image: got {row['image']!r}; takes a path below {source.root}")
        path = (source.root / row["image"]).with_suffix(".json")
        notes = read_json(path)
        if not isinstance(notes, dict) or not notes.keys() >= {"question", "options"}:
            raise ValueError(f"data: {path} has no question and options; takes the benchmark's own file")
        text, candidates = notes["question"], tuple(notes["options"])
        return Question(f"{index}:{row['image']}", index, text, candidates[0], row["category"], candidates=candidates)

    def parse(self, raw: str, options: Mapping[str, str], style: Style) -> str | None:
        """A letter. lmms-eval's own rule, any letter in any word, would read "the glove is blue" as B and is not used."""
        return parse_letter(raw, options, style)
