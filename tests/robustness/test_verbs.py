"""What verbs read that is the user's or somebody else's: questions, benchmarks' folders, pictures, results on a page."""

import json
import shutil
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import datasets
import huggingface_hub.constants
import pytest
from PIL import Image

from qlip.cli import main
from qlip.evaluation.benchmarks import get_benchmark
from qlip.evaluation.benchmarks.base import Benchmark
from qlip.evaluation.benchmarks.local import read_questions
from qlip.evaluation.config import ReportConfig
from qlip.evaluation.report.report import write_report
from qlip.evaluation.results import RESULT
from qlip.tools.config import ShowConfig, TuneConfig
from qlip.tools.show import run_show
from qlip.tools.tune import run_tune
from tests.evaluation.fake_answers import make_run
from tests.evaluation.local_data import MAKERS
from tests.robustness.campaign import Campaign
from tests.robustness.damage import bent, damaged, odd_values
from tests.robustness.test_files import spoil
from tests.robustness.test_pictures import encoded
from tests.training.conftest import draw_photos

CELLS = ("a.png", "b.png", "gone.png", "../a.png", "/etc/hosts", "", " ", "a\x00.png", "x" * 300, "what ?", "=1+1", "ü\u202e", '"', '""', "a,b", "q" * 200_000, "A. x\nB. y", "|", "NaN", "<script>alert(1)</script>")  # fmt: skip
HEADERS = ("image,question", "image,question,answer", "Image , QUESTION,answer,more", "image;question", "image,image,question", "question", "", "image,question\x00", "\ufeffimage,question")  # fmt: skip


def quoted(cell: str, random: Random) -> str:
    return '"' + cell.replace('"', '""') + '"' if random.random() < 0.6 else cell


def test_questions(campaign: Campaign) -> None:
    """Questions of the user's own; a line that is taken is what stands in the file."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (30, 20)).save(name)
    file = Path("q.csv")
    for random in campaign.rounds(150):
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        common = [random.choice(CELLS[:2]), "what ?", "yes"]
        rows = [[random.choice(CELLS) if random.random() < 0.15 else cell for cell in common] for _ in range(4)]
        lines = [random.choice(HEADERS[:3] if random.random() < 0.8 else HEADERS)]
        lines += [",".join(quoted(cell, random) for cell in row[: random.choice([2, 3, 3, 4])]) for row in rows]
        text = random.choice(["\n", "\n", "\r\n", "\r", "\n\n"]).join(lines)
        data = text.encode(random.choice(["utf-8"] * 8 + ["utf-16", "latin-1"]), errors="replace")
        file.write_bytes(damaged(data, random) if random.random() < 0.3 else data)
        what = f"{data[:300]!r}"
        if random.random() < 0.1:
            what = spoil(file, "", random, campaign.marker)
        source = campaign.offer(
            what, partial(read_questions, Path(), file), ["q.csv"],
            lambda got: None if set(got.rows["image"]) <= {"a.png", "b.png"} else "a picture outside the folder",
        )  # fmt: skip
        if source is not None:
            local = get_benchmark("local")
            campaign.offer(what, partial(local.questions, source, "llava"), ["q.csv"], whole)
            campaign.offer(what, source.sizes, ["q.csv"])


def whole(questions: Any) -> str | None:
    """What is wrong with questions that were taken."""
    fine = all(question.prompt.strip() and isinstance(question.answer, str) for question in questions)
    return None if fine and questions else "a question without words"


def asked(benchmark: Benchmark, folder: Path, style: Any) -> Any:
    source = benchmark.load(folder)
    questions = benchmark.questions(source, style)
    source.sizes()
    for row in range(min(len(source.rows), 2)):
        try:
            source.image(row)
        except ValueError as error:
            if not str(error).startswith("data: "):
                raise
    return questions


@pytest.mark.parametrize("name", ["vstar", "mmbench", "pope", "scienceqa", "mme", "realworldqa", "cvbench"])
def test_folders_of_benchmarks(name: str, campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark's copy with other columns, other types, or files that are damaged."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    MAKERS[name](Path("whole"))
    parquet = next(Path("whole").rglob("*.parquet"), None)
    benchmark = get_benchmark(name)
    held = next(Path("whole").glob("*.jsonl"), None)
    if held is not None:
        rows = [json.loads(line) for line in held.read_text().splitlines()]
    else:
        rows = datasets.load_dataset("parquet", data_files=str(parquet), split="train").cast_column("image", datasets.Image(decode=False)).to_list()  # fmt: skip
    for random in campaign.rounds(6):
        folder = Path(f"copy{campaign.round}")
        shutil.copytree("whole", folder)
        what = f"{name}: "
        if random.random() < 0.25 and parquet is not None:
            what += spoil(folder / parquet.relative_to("whole"), "", random, campaign.marker)
        elif held is not None:
            lines = [json.dumps(bent(row, random) if random.random() < 0.2 else row) for row in rows]
            (folder / held.name).write_text("\n".join(lines))
            what += "rows bent"
        else:
            column = random.choice(list(rows[0]))
            changed = [{key: value for key, value in row.items() if key != column} for row in rows]
            if random.random() < 0.6:
                odd = random.choice([None, 3, 0.5, "", "x", True, ["x"], {"x": 1}])
                changed = [{**row, column: odd} for row in changed]
            what += f"column {column} is {changed[0].get(column, 'missing')!r}"
            shutil.rmtree(folder)
            datasets.Dataset.from_list(changed).save_to_disk(folder)
        style = random.choice(["llava", "vlmevalkit", "lmms"])
        campaign.offer(what, partial(asked, benchmark, folder, style), [folder.name])
        shutil.rmtree(folder, ignore_errors=True)


def test_shown_pictures(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("picture.png")
    for random in campaign.rounds(12):
        kind, data, size = encoded(random)
        file.write_bytes(data if random.random() < 0.4 else damaged(data, random))
        options = ShowConfig(size=random.choice([None, "model", 28, 112]), max_tokens=random.choice([None, 1, 30]), fit=random.choice(["prune", "scale"]))  # fmt: skip
        campaign.offer(
            f"show {kind} of {size}, {options}", partial(run_show, [file], options), ["picture.png", "image: "]
        )


def test_tuned_folders(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with pictures that are damaged, and a journal that is."""
    from rich.console import Console

    monkeypatch.setattr("qlip.tools.tune.can_read", lambda: False)
    for random in campaign.rounds(3):
        shutil.rmtree("photos", ignore_errors=True)
        draw_photos(Path("photos"), 3, seed=random.randrange(99))
        config = TuneConfig(images="photos", budget=20, workers=0)

        def tune(config: TuneConfig = config) -> None:
            run_tune(config, Console(quiet=True))

        (Path("photos") / "bad.png").write_bytes(damaged(encoded(random)[1], random))
        campaign.offer("a damaged picture", tune, ["photos"])
        for journal in Path("results").rglob("journal.jsonl"):
            lines = journal.read_bytes().splitlines()
            at = random.randrange(len(lines))
            lines[at] = json.dumps(bent(json.loads(lines[at]), random)).encode()
            journal.write_bytes(b"\n".join(lines) + b"\n")
            campaign.offer(f"a journal with {lines[at][:300]!r}", tune, ["journal.jsonl", "images"])
        shutil.rmtree("results", ignore_errors=True)


def test_reports(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of somebody else on a page: nothing of them becomes code of the page."""
    monkeypatch.setattr("qlip.evaluation.report.report._png", lambda figure: b"")  # seconds for each of them
    for random in campaign.rounds(3):
        shutil.rmtree("results", ignore_errors=True)
        make_run(Path("results"), 0.5, 100, count=6, baseline="crop")
        folder = make_run(Path("results"), 0.5, 50, count=6)
        held = json.loads((folder / RESULT).read_text())
        name = random.choice(["model", "model", "position", "criterion", "benchmark", "hub"])
        held["config"][name] = random.choice(["<script>alert(1)</script>", "x/<img src=x onerror=alert(1)>", "\ud800", "a|b\n# c", odd_values(random)])  # fmt: skip
        (folder / RESULT).write_text(json.dumps(held))

        def safe(page: Path) -> str | None:
            text = page.read_text().lower()
            return "the page holds code of the result" if "<script>alert" in text or "<img src=x" in text else None

        campaign.offer(f"{name}: {held['config'][name]!r:.80}", partial(write_report, ReportConfig(Path("results"))), ["results"], safe)  # fmt: skip


def test_models_that_are_none(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names and folders that hold no model, wherever a model is taken."""
    from tests.robustness.test_options import run

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    Image.new("RGB", (30, 20)).save("a.png")
    Path("q.csv").write_text("image,question\na.png,what ?\n")
    Path("file").write_text("{}")
    Path("empty").mkdir()
    for name, text in (("list", "[]"), ("typo", '{"model_type": "llawa"}'), ("bert", '{"model_type": "bert"}'), ("deep", "[" * 9999), ("auto", '{"model_type": "llava", "auto_map": {"AutoConfig": "evil.Evil"}}'), ("code", '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}')):  # fmt: skip
        Path(name).mkdir()
        (Path(name) / "config.json").write_text(text)
        (Path(name) / "evil.py").write_text(f"open({str(campaign.marker)!r}, 'w')\nclass Evil: pass\n")
    models = ("file", "empty", "list", "typo", "bert", "deep", "auto", "code", "nowhere", "a b", "x/y/z", "../x", "", "pocket-lava", "http://x/y", "ü", "x" * 300)  # fmt: skip
    lines = (
        ["show", "a.png", "--model={}"],
        ["compare", ".", "q.csv", "--model={}"],
        ["bias", "samples", "--clip={}", "--limit=1"],
        ["zoo", "pull", "solve:{}"],
        ["zoo", "pull", "{}"],
        ["zoo", "show", "{}"],
        ["vqa", "--benchmark=pope-pocket", "--model={}", "--limit=1"],
        ["fit", "--data.root=samples", "--model.backbone={}"],
    )
    monkeypatch.setattr("sys.argv", ["qlip"])
    monkeypatch.setattr("qlip.data.pictures.CACHE", Path("cache"))
    for random in campaign.rounds(10):
        model, words = random.choice(models), random.choice(lines)
        args = [word.replace("{}", model) for word in words]
        campaign.offer(f"qlip {' '.join(args)}", partial(run, args, capsys), [model[:60] or "''"])
    assert main
