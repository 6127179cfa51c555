"""The drawn benchmarks: the schemas of the real ones, true answers, the same from the same seed."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from qlip.data import pictures
from qlip.data.pictures import drawn
from qlip.evaluation.benchmarks import get_benchmark, pocket
from qlip.evaluation.benchmarks.pocket import write_pope, write_vstar
from qlip.images.read import to_rgb


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pocket, "QUESTIONS", 20)
    monkeypatch.setattr(pocket, "drawn", lambda name, write: drawn(name, write, tmp_path / "cache"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_draws_the_same_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_vstar(tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.parametrize("name", ["vstar-pocket", "vstar-photo"])
def test_vstar_pocket_has_vstars_schema_and_both_ways_of_scoring(name: str) -> None:
    benchmark = get_benchmark(name)
    source = benchmark.load(None)
    assert set(source.rows.column_names) == {"image", "text", "category", "label", "question_id"}
    assert set(source.rows["category"]) == {"direct_attributes", "relative_position"}
    assert source.revision
    assert "seed" in source.origin
    assert str(Path.home()) not in source.origin
    questions = benchmark.questions(source, "llava")
    sentences = benchmark.questions(source, "llava", "likelihood")
    assert len({question.id for question in questions}) == len(questions) == 20
    for question, sentence in zip(questions, sentences, strict=True):
        word = question.options[question.answer]
        assert len(question.options) == (4 if question.group == "direct_attributes" else 2)
        assert f"({question.answer}) {word}\n" in question.prompt
        assert "letter" not in question.prompt
        assert benchmark.parse(f" {word}.", question.options, "llava") == question.answer
        assert benchmark.parse("zebra", question.options, "llava") is None
        assert f" {word}" in sentence.answer
        assert sentence.candidates[0] == sentence.answer
        picture = Image.open(source.image(question.row))
        assert (picture.height, picture.width) in pictures.SIZES
    assert source.sizes()[3] == Image.open(source.image(3)).size


@pytest.mark.parametrize("name", ["pope-pocket", "pope-photo"])
def test_pope_pocket_has_popes_schema_and_is_balanced(name: str) -> None:
    benchmark = get_benchmark(name)
    source = benchmark.load(None)
    columns = {"id", "question_id", "question", "answer", "image_source", "category", "image"}
    assert set(source.rows.column_names) == columns
    questions = benchmark.questions(source, "llava")
    assert Counter(question.answer for question in questions) == {"yes": 10, "no": 10}
    assert {question.group for question in questions} == {"random", "popular", "adversarial"}
    assert all(count == 2 for count in Counter(question.unit for question in questions).values())


@pytest.mark.parametrize("kind", ["vstar", "pope"])
def test_photographs_lie_behind_the_same_questions(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pocket, "QUESTIONS", 6)
    drawn_one, photo_one = (get_benchmark(f"{kind}-{behind}") for behind in ("pocket", "photo"))
    plain, photo = drawn_one.load(None), photo_one.load(None)
    assert photo_one.questions(photo, "llava") == drawn_one.questions(plain, "llava")
    assert photo.origin.startswith(f"{kind}-photo")
    assert photo.sizes() == plain.sizes()
    assert to_rgb(photo.image(0)).tobytes() != to_rgb(plain.image(0)).tobytes()
    assert {folder.name for folder in (tmp_path / "cache").iterdir()} == {f"{kind}-pocket-1", f"{kind}-photo-1"}


def test_a_folder_in_place_of_the_drawn_one(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    write_pope(tmp_path / "copy")
    assert len(get_benchmark("pope-pocket").load(tmp_path / "copy").rows) == 20
