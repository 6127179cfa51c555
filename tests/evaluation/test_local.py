"""The user's own questions: what a CSV may hold, what is said of one that does not, and which answers are right."""

import json
from pathlib import Path

import pytest
from PIL import Image

from qlip.cli import main
from qlip.evaluation.benchmarks.base import SINGLE_LETTER, SINGLE_WORD
from qlip.evaluation.benchmarks.local import Local, read_questions
from qlip.evaluation.results import find_results
from qlip.evaluation.statistics import score
from tests.families.tiny_llava import scene

LOCAL = Local()
HEADER = "image,question,answer\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    for name, seed in (("a.png", 1), ("below/b c.png", 2)):
        scene(140, 112, seed).save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def written(folder: Path, text: str, name: str = "q.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


def test_questions_as_they_are_written_and_requests_where_an_answer_is_known(folder):
    text = (
        "\ufeffid,Image , question,answer\r\n"
        '7,a.png,"what, if\nanything, is it ?",\r\n'
        "8,below/b c.png,what colour ?,Red|crimson\r\n"
        '9,a.png,"which ?\nA. red\nB. blue",B\r\n'
    )
    source = read_questions(folder, written(folder, text))
    questions = LOCAL.questions(source, "llava")
    assert [question.prompt for question in questions] == [
        "what, if\nanything, is it ?",
        f"what colour ?\n{SINGLE_WORD}",
        f"which ?\nA. red\nB. blue\n{SINGLE_LETTER}",
    ]
    assert [question.unit for question in questions] == ["a.png", "below/b c.png", "a.png"]
    assert questions[2].options == {"A": "red", "B": "blue"}
    assert source.sizes() == [Image.open(source.image(row)).size for row in range(3)]
    asked = text.replace("what colour ?,", f'"what colour ?\n{SINGLE_WORD}",')  # as copied from a benchmark
    assert LOCAL.questions(read_questions(folder, written(folder, asked)), "llava")[1] == questions[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"q.csv: line 1: got the columns none; takes a CSV file .* image and question"),
        ("picture,question\na.png,x", r"q.csv: line 1: got the columns picture, question; takes"),
        (HEADER, r"q.csv has no questions"),
        (HEADER + "a.png,what,red\na.png,what, if,red", r"q.csv: line 3: has more fields than the header; put .* quotes"),
        (HEADER + 'a.png,"two\nlines",red\na.png,,red', r"q.csv: line 4: question empty"),
        (HEADER + "a.png", r"q.csv: line 2: question empty"),
        (HEADER + ",,", r"q.csv: line 2: image and question empty"),
        (HEADER + 'a.png,"never closed', r"q.csv cannot be read: unexpected end of data"),
        (HEADER + "a.png,x,\nc.png,x,\nbelow,x,", r"q.csv: line 3: c.png is not there, line 4: below is not there; pictures"),
        (HEADER + "broken.png,x,", r"q.csv: line 2: broken.png: .*image"),
        (HEADER + "c.png,x,\n" * 12, r"line 11: c.png is not there, and 2 more; pictures lie in"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_and_line(text, message, folder):
    with pytest.raises((ValueError, OSError), match=message) as raised:
        read_questions(folder, written(folder, text))
    assert "\n" not in str(raised.value)


def test_what_is_not_there_is_named(folder):
    with pytest.raises(FileNotFoundError, match="folder: got nowhere, which is no folder"):
        read_questions(Path("nowhere"), folder / "q.csv")
    with pytest.raises(FileNotFoundError, match=r"questions: got .*none.csv, which is no file; takes a CSV"):
        read_questions(folder, folder / "none.csv")
    (folder / "latin.csv").write_bytes("image,question\na.png,où".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.csv cannot be read: 'utf-8' .*; takes a CSV file in UTF-8"):
        read_questions(folder, folder / "latin.csv")


@pytest.mark.parametrize(
    ("raw", "answer", "right"),
    [
        ("Red.", "red", True),
        ("dark red", "red", False),
        ("Crimson!", "red| crimson", True),
        ("Yes, there is a red star.", "yes", True),
        ("No", "yes", False),
        ("nothing", "no", False),
        ("1,200.50", "1,200.50", True),
        ("1200", "1,200", False),
        ("-5", "5", False),
        ("the  Red\nstar", "the red star", True),
        ("", "red", False),
    ],
)
def test_right_is_the_same_words(raw, answer, right):
    assert LOCAL.correct(LOCAL.parse(raw, {}, "llava"), answer) is right


def record(unit: str, answer: str, correct: bool) -> dict:
    return {"unit": unit, "answer": answer, "correct": correct, "group": ""}


def test_only_questions_with_an_answer_are_scored():
    records = [record("a", "x", True), record("a", "", False), record("b", "x", False), record("c", "", False)]
    scores = score(LOCAL, records)
    assert scores["accuracy"].value == 50
    assert (scores["accuracy"].low, scores["accuracy"].high) == (0, 100)
    assert score(LOCAL, [record("c", "", False)]) == {}
    one = score(LOCAL, [record("a", "x", True), *(record(unit, "", False) for unit in "bcdefg")])["accuracy"]
    assert (one.value, one.low, one.high) == (100, 100, 100)  # every resample has the picture with an answer


def test_vqa_asks_them_too_and_a_report_leaves_out_what_has_no_score(folder, model_folder, tmp_path, capsys):
    common = [f"--model={model_folder}", f"--data={folder}", "--accelerator=cpu", "--workers=0", "--max-new-tokens=2"]
    written(folder, "image,question\na.png,what is there ?\n", "questions.csv")
    main(["vqa", "--benchmark=local", *common, f"--out={tmp_path / 'open'}"])
    assert "local accuracy: no right answers to score by, 55 %" in capsys.readouterr().out
    assert json.loads((tmp_path / "open" / "result.json").read_text())["scores"] == {}
    with pytest.raises(ValueError, match=r"holds no result\.json"):
        find_results(tmp_path)
    written(folder, "image,question,answer\na.png,is there a circle ?,yes\n", "questions.csv")
    main(["vqa", "--benchmark=local", *common, f"--out={tmp_path / 'scored'}"])
    assert [result.folder.name for result in find_results(tmp_path)] == ["scored"]
    with pytest.raises(SystemExit, match="data: got nothing for local; takes --data FOLDER"):
        main(["vqa", "--benchmark=local", common[0]])
