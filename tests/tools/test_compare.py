"""`qlip compare`, end to end: both models asked, the figures of the page by hand, and nothing asked twice."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.draw_questions import main as draw_questions
from qlip.cli import main
from qlip.data.pictures import small_objects
from qlip.evaluation.benchmarks.local import read_questions
from qlip.evaluation.run.predict import Answering
from tests.evaluation.tiny_families import save_tiny

QUESTIONS = [
    ("0.jpg", "Is there a red star in the image?", "no"),
    ("0.jpg", "What is the color of the triangle?", "yellow|white"),
    ("1.jpg", "Is there a <b>green cross</b> in the image?", ""),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, (picture, _) in enumerate(small_objects(2, seed=7)):
        picture.save(folder / f"{index}.jpg")
    with (folder / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "question", "answer"), *QUESTIONS])
    return folder


def compare(folder: Path, out: Path, *options: str, model: object = "pocket-llava", questions: str = "mine.csv") -> str:
    quick = ("--accelerator=cpu", "--workers=0", "--max-new-tokens=5", f"--out={out}")
    main(["compare", str(folder), str(folder / questions), f"--model={model}", *quick, *options])
    return (out / "index.html").read_text()


def runs(out: Path) -> dict[int | str | None, dict[str, dict]]:
    """The records of each arm, by its budget; those of the stock model with a budget by "own" and the budget."""
    found = {}
    for path in out.rglob("result.json"):
        lines = path.with_name("predictions.jsonl").read_text().splitlines()
        config = json.loads(path.read_text())["config"]
        budget = config["max_tokens"]
        found[f"own {budget}" if budget and config["baseline"] else budget] = {
            record["id"]: record for record in map(json.loads, lines)
        }
    return found


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared")
    compare(folder, out, "--size=448")
    return out


def test_budgets_are_a_half_and_a_quarter_of_the_stock_models(done):
    records = runs(done)
    assert records.keys() == {None, 32, 16}
    assert all(record["tokens"] == 64 for record in records[None].values())
    for budget in (32, 16):
        assert all(budget - 2 <= record["tokens"] <= budget for record in records[budget].values())


def test_every_answer_is_side_by_side_in_a_table(done):
    records = runs(done)
    with (done / "answers.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "question", "answer", "stock", "32 tokens", "16 tokens"]
    for index, (row, asked) in enumerate(zip(rows, QUESTIONS, strict=True)):
        name = f"{index}:{asked[0]}"
        assert row == [*asked, *(records[budget][name]["raw"] for budget in (None, 32, 16))]


def test_the_page_shows_the_figures_and_pictures_and_no_markup_of_the_users(done):
    page, records = (done / "index.html").read_text(), runs(done)
    stock = records[None]
    for budget in (32, 16):
        same = [records[budget][name]["parsed"] == stock[name]["parsed"] for name in stock]
        assert f"data-label='agrees with stock'>{100 * sum(same) / 3:.0f} % [" in page
    for answers in records.values():
        right = [answers[name]["correct"] for name in ("0:0.jpg", "1:0.jpg")]
        assert f"data-label='right'>{50 * sum(right)} % [" in page
    assert page.count("class='right'") + page.count("class='wrong'") == 6
    assert "<b>" not in page
    assert "&lt;b&gt;green cross&lt;/b&gt;" in page
    pictures = re.findall("<img [^>]*src='([^']*)'", page)
    assert len(set(pictures)) == 6
    for name in pictures:
        assert max(Image.open(done / name).size) >= 448


def test_a_second_call_asks_nothing_and_a_new_budget_alone(done, folder, monkeypatch):
    asked = []
    step = Answering.predict_step

    def counted(self, batch, batch_idx):
        asked.append((self.arm.vision.max_tokens, len(batch.questions)))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Answering, "predict_step", counted)
    page = (done / "index.html").read_text()
    with monkeypatch.context() as patch:
        for module in ("qlip.tools.compare", "qlip.evaluation.run.vqa"):
            patch.delattr(f"{module}.load_arm")  # a model of billions of weights is not read for nothing
        assert compare(folder, done, "--size=448") == page
    assert asked == []
    compare(folder, done, "--size=448", "--budgets=[24]", "--batch-size=3")
    assert asked == [(24, 3)]


def test_questions_without_answers_and_a_family_of_any_size(folder, tmp_path):
    (folder / "open.csv").write_text("question,image\nword1 word2,1.jpg\n")
    model = save_tiny("qwen2.5", tmp_path / "model")
    page = compare(folder, tmp_path / "out", "--budgets=[40,999]", "--size=null", model=model, questions="open.csv")
    asked = runs(tmp_path / "out")
    assert asked.keys() == {None, 40, 999, "own 40"}  # 999 it keeps anyway
    (ours,), (stock,), (scaled,) = asked[40].values(), asked[None].values(), asked["own 40"].values()
    assert 38 <= ours["tokens"] <= 40 < stock["tokens"] == ours["baseline_tokens"]
    assert 20 < scaled["tokens"] <= 40
    assert "scaled down, 40 tokens" in page
    assert "where the picture scaled down to as many gives it on" in page
    assert len(re.findall("<figure>", page)) == 3
    header = (tmp_path / "out" / "answers.csv").read_text().splitlines()[0]
    assert header == 'image,question,answer,stock,"scaled down, 40 tokens",40 tokens,999 tokens'
    assert "data-label='right'" not in page
    assert "✓" not in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--criterion=random"], "criterion: got 'random', which cuts a picture anew for every question"),
        (["--budgets=[]"], r"budgets: got \[\]; takes whole numbers from 1, at least one"),
        (["--budgets=[0]"], r"budgets: got \[0\]; takes"),
        (["--alpha=-1"], "alpha: got -1"),
    ],
)
def test_what_is_not_taken_is_said_before_anything_is_asked(options, message, folder, tmp_path):
    with pytest.raises(SystemExit, match=message):
        compare(folder, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_missing_pictures_are_named_before_anything_is_asked(folder, tmp_path):
    (folder / "gone.csv").write_text("image,question\n0.jpg,x\nno.jpg,x\n")
    with pytest.raises(SystemExit, match=r"qlip: questions: .*gone.csv: line 3: no.jpg is not there; pictures lie in"):
        compare(folder, tmp_path / "out", questions="gone.csv")
    assert not (tmp_path / "out").exists()


def test_leaves_are_drawn_over_the_picture(done):
    (plain,), (leaves,) = (list(done.glob(f"local/*/{name}*/pictures/0000.jpg")) for name in ("baseline", "*budget32"))
    bare, lined = ((np.asarray(Image.open(path).convert("L")) > 240).mean() for path in (plain, leaves))
    assert lined > bare + 0.005


def test_the_drawn_example_of_the_documentation_is_taken(tmp_path):
    draw_questions(tmp_path / "scenes")
    source = read_questions(tmp_path / "scenes", tmp_path / "scenes" / "questions.csv")
    assert source.rows["answer"] == ["yes", "no", ""] * 4
