"""V* and POPE in miniature: questions about small objects in large drawn scenes, in the schemas of the real ones.

Nothing is downloaded: pictures and questions are drawn from a seed when first asked for, and kept. They are for the pocket models,
whose words they use, see docs/pocket.md. Each comes twice, with the same questions about the same objects: over drawn backgrounds, and
over photographs.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import ClassVar

import datasets
from PIL import Image

from qlip.data.backgrounds import TEST
from qlip.data.language import (
    NEGATIVES,
    Choice,
    Thing,
    absent,
    ask_colour,
    ask_height,
    ask_presence,
    ask_side,
    in_words,
)
from qlip.data.pictures import drawn, small_objects
from qlip.evaluation.benchmarks.base import Question, Row, Style
from qlip.evaluation.benchmarks.parsing import parse_words
from qlip.evaluation.benchmarks.pope import Pope
from qlip.evaluation.benchmarks.source import Source
from qlip.evaluation.benchmarks.vstar import VStar

QUESTIONS = 500
SEED = 20_000  # far from the seeds of training
VERSION = "1"  # another one where the same seed draws other pictures or questions
PHOTO_VERSION = "1"  # the same for those over photographs
CLEAR = 0.06  # an object nearer to the middle than this share of the edge is not asked for its side


class VStarPocket(VStar):
    """500 questions about the colour (300), the side (100) and the height (100) of one small object in a large scene.

    The pocket reader answers with the word of an option, not with its letter, and is asked for that.
    """

    name, hub = "vstar-pocket", "drawn"
    version: ClassVar[str] = VERSION
    photographs: ClassVar[Sequence[Path]] = ()

    def load(self, data: Path | None, hub: str | None = None, revision: str | None = None) -> Source:
        """Rows and pictures as in V*'s own repository: ``*.jsonl``, and a JSON file beside each picture."""
        return _load(super().load, self, write_vstar, data, hub, revision)

    def question(self, row: Row, index: int, style: Style) -> Question:
        """V*'s question, whatever the style, with another request at its end."""
        question = super().question(row, index, "llava")
        return replace(question, prompt=in_words(question.prompt))

    def parse(self, raw: str, options: Mapping[str, str], style: Style) -> str | None:
        """The letter of the option whose word was said."""
        return next((letter for letter, word in options.items() if word == parse_words(raw)), None)


class PopePocket(Pope):
    """500 questions whether a shape of some colour is in a large scene; 250 scenes, asked once with yes and once with no.

    Random: neither shape nor colour is there; popular: the shape is, in another colour; adversarial: both are, apart.
    """

    name, hub = "pope-pocket", "drawn"
    version: ClassVar[str] = VERSION
    photographs: ClassVar[Sequence[Path]] = ()

    def load(self, data: Path | None, hub: str | None = None, revision: str | None = None) -> Source:
        """Rows as in ``lmms-lab/POPE``, pictures inside."""
        return _load(super().load, self, write_pope, data, hub, revision)


class VStarPhoto(VStarPocket):
    """The questions of `VStarPocket` about the same objects, with photographs behind them that scikit-image ships."""

    name, version, photographs = "vstar-photo", PHOTO_VERSION, TEST


class PopePhoto(PopePocket):
    """The questions of `PopePocket` about the same objects, with photographs behind them that scikit-image ships."""

    name, version, photographs = "pope-photo", PHOTO_VERSION, TEST


def _load(
    read: Callable[..., Source],
    benchmark: VStarPocket | PopePocket,
    write: Callable[[Path, Sequence[Path]], None],
    data: Path | None,
    hub: str | None,
    revision: str | None,
) -> Source:
    if data is not None or hub is not None:
        return read(data, hub, revision)
    name, version = benchmark.name, benchmark.version
    folder = drawn(f"{name}-{version}", lambda folder: write(folder, benchmark.photographs))
    return replace(read(folder), origin=f"{name}, drawn from seed {SEED}", revision=version)


def write_vstar(folder: Path, photographs: Sequence[Path] = ()) -> None:
    """Write the questions and pictures of `VStarPocket`, or with photographs those of `VStarPhoto`, to an empty folder.

    Args:
        folder: An empty folder.
        photographs: Files of the photographs behind the objects; if there are none, backgrounds are drawn.

    Raises:
        OSError: if a photograph cannot be read.
    """
    rows, random = [], Random(SEED)
    for index, (picture, scene) in enumerate(small_objects(QUESTIONS, SEED, photographs)):
        category, choice = _choose(index, scene, random)
        name = f"{category}/{index:03}.jpg"
        (folder / category).mkdir(exist_ok=True)
        _save(picture, folder / name)
        notes = {"question": choice.text, "options": choice.sentences}
        (folder / name).with_suffix(".json").write_text(json.dumps(notes), encoding="utf-8")
        text, letter = choice.lettered(random)
        rows.append({"image": name, "text": text, "category": category, "label": letter, "question_id": index})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "test_questions.jsonl").write_text(lines, encoding="utf-8")


def _save(picture: Image.Image, file: Path | io.BytesIO) -> None:
    picture.save(file, "JPEG", quality=95, subsampling=0)


def _choose(index: int, scene: list[Thing], random: Random) -> tuple[str, Choice]:
    """Three of five questions are about colour, one about the side, one about the height."""
    turn = index % 5
    if turn >= 3:
        axis = "x" if turn == 3 else "y"
        clear = [thing for thing in scene if abs(getattr(thing, axis) - 0.5) > CLEAR]
        if clear:
            return "relative_position", (ask_side if turn == 3 else ask_height)(random.choice(clear))
    return "direct_attributes", ask_colour(random.choice(scene), scene, random)


def write_pope(folder: Path, photographs: Sequence[Path] = ()) -> None:
    """Write the questions and pictures of `PopePocket`, or with photographs those of `PopePhoto`, as `write_vstar` does."""
    rows: list[dict[str, object]] = []
    random = Random(SEED + 1)
    for index, (picture, scene) in enumerate(small_objects(QUESTIONS // 2, SEED + 1, photographs)):
        split = NEGATIVES[index % len(NEGATIVES)]
        file = io.BytesIO()
        _save(picture, file)
        there = random.choice(scene)
        for answer, pair in (("yes", (there.colour, there.shape)), ("no", absent(scene, split, random))):
            number = str(len(rows))
            rows.append(
                {
                    "id": number,
                    "question_id": number,
                    "question": ask_presence(*pair),
                    "answer": answer,
                    "image_source": f"scene_{index:03}",
                    "category": split,
                    "image": {"bytes": file.getvalue(), "path": f"scene_{index:03}.jpg"},
                }
            )
    columns = {name: datasets.Value("string") for name in rows[0] if name != "image"}
    table = datasets.Dataset.from_list(rows, features=datasets.Features({**columns, "image": datasets.Image()}))
    table.save_to_disk(str(folder))
