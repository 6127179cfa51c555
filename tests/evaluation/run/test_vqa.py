"""One run: every benchmark, both arms, stopped and gone on with."""

import json
import math
from pathlib import Path

import pytest

from qlip.cli import main
from qlip.evaluation.benchmarks import BENCHMARKS
from qlip.evaluation.benchmarks.source import Source
from qlip.evaluation.cell import Cell, Run
from qlip.evaluation.journal import Journal, read_records
from qlip.evaluation.run.arm import load_arm
from qlip.evaluation.run.predict import Answering, Batches
from qlip.evaluation.run.prompts import CHATS
from qlip.evaluation.run.vqa import run_vqa
from qlip.images.read import to_rgb
from tests.evaluation.local_data import PAPER
from tests.families.tiny_llava import scene

RECORD = {
    "id": "a", "prompt": "?", "raw": "B", "parsed": None, "answer": "A", "correct": False, "group": "", "unit": "a", "tokens": 3,
    "baseline_tokens": 9, "prompt_tokens": 12, "seconds": 1.5,
}  # fmt: skip
FIELDS = {"id", "prompt", "raw", "parsed", "answer", "correct", "group", "unit", "tokens", "baseline_tokens"}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def run(out, data, **options):
    return Run(
        **{"data": data, "out": out, "batch_size": 4, "accelerator": "cpu", "devices": 1, "workers": 0, **options}
    )


@pytest.mark.parametrize("name", PAPER)
def test_every_benchmark_from_a_folder_to_a_result(name, cell, data_folders, tmp_path):
    result = run_vqa(Cell(**cell(benchmark=name)), run(tmp_path, data_folders[name]))
    records = lines(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text()) == json.loads(json.dumps(result))
    assert len(records) == result["data"]["questions"] == len({record["id"] for record in records})
    assert all(record.keys() >= FIELDS | {"seconds", "prompt_tokens"} for record in records)
    assert all(0 < record["tokens"] < record["prompt_tokens"] for record in records)
    assert result["tokens"]["baseline"] == 576
    assert result["tokens"]["mean"] == sum(record["tokens"] for record in records) / len(records)
    assert next(iter(result["scores"])) == BENCHMARKS[name].primary == result["primary"]
    assert result["unparsed"] == sum(record["parsed"] is None for record in records) / len(records)
    assert result["config"]["alpha"] == 0.5
    assert result["versions"].keys() >= {"qlip", "torch", "transformers", "datasets"}


def test_command_line(cell, data_folders, tmp_path, capsys):
    options = {**cell(), "data": data_folders["pope"], "out": tmp_path, "accelerator": "cpu", "workers": 0}
    main(["vqa", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())])
    assert "pope f1: 66.7 (95 % " in capsys.readouterr().out
    assert len(lines(tmp_path)) == 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"benchmark": "gqa"}, "benchmark: got 'gqa'; known are vstar"),
        ({"scoring": "likelihood"}, "scoring: got 'likelihood'; pope takes 'letters'"),
        ({"limit": 0}, "limit: got 0; takes a whole number from 1"),
        ({"data": "/nowhere"}, "data: got /nowhere, which is no folder"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(changed, message, cell, data_folders, tmp_path):
    options = {**cell(), "data": data_folders["pope"], "out": tmp_path, **changed}
    with pytest.raises(SystemExit, match=f"qlip: {message}"):
        main(["vqa", *(f"--{name}={value}" for name, value in options.items())])


def test_a_stopped_run_asks_nothing_twice_and_loses_nothing(cell, data_folders, tmp_path, monkeypatch):
    whole = run_vqa(Cell(**cell(benchmark="mme")), run(tmp_path / "whole", data_folders["mme"]))
    asked, out = [], tmp_path / "stopped"
    step = Answering.predict_step

    def counted(self, batch, batch_idx):
        asked.extend(question.id for question in batch.questions)
        if batch_idx == 1 and not (out / "resumed").exists():
            raise OSError("power cut")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Answering, "predict_step", counted)
    with pytest.raises(OSError, match="power cut"):
        run_vqa(Cell(**cell(benchmark="mme")), run(out, data_folders["mme"]))
    assert len(lines(out)) == 4
    assert not (out / "result.json").exists()
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"id": "half a li')
    (out / "resumed").touch()
    first, asked[:] = {record["id"] for record in lines_before_the_tear(out)}, []
    result = run_vqa(Cell(**cell(benchmark="mme")), run(out, data_folders["mme"], batch_size=3))
    assert len(asked) == 8
    assert not first & set(asked)
    assert result["scores"] == whole["scores"]
    assert {r["id"]: r["raw"] for r in lines(out)} == {r["id"]: r["raw"] for r in lines(tmp_path / "whole")}
    asked.clear()
    run_vqa(Cell(**cell(benchmark="mme")), run(out, data_folders["mme"]))
    assert asked == []


def lines_before_the_tear(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()[:-1]]


def test_a_folder_holds_one_measurement(cell, data_folders, tmp_path):
    run_vqa(Cell(**cell(limit=2)), run(tmp_path, data_folders["pope"]))
    with pytest.raises(
        ValueError, match=r"out: .* holds another measurement; asked for config.alpha 0.7 \(there: 0.5\)"
    ):
        run_vqa(Cell(**cell(limit=2, alpha=0.7)), run(tmp_path, data_folders["pope"]))
    with pytest.raises(ValueError, match=r"config.limit 3 .*data.questions 3"):
        run_vqa(Cell(**cell(limit=3)), run(tmp_path, data_folders["pope"]))


@pytest.mark.parametrize("baseline", ["crop", "pad"])
def test_the_stock_arm_is_the_stock_model(baseline, cell, data_folders, tmp_path):
    """Its inputs and answers are those of transformers alone; and a converted arm in between changes nothing."""
    fields = cell(benchmark="vstar", baseline=baseline)
    run_vqa(Cell(**cell(benchmark="vstar", limit=1)), run(tmp_path / "ours", data_folders["vstar"]))
    result = run_vqa(Cell(**fields), run(tmp_path / "stock", data_folders["vstar"]))
    assert result["tokens"]["mean"] == 576
    arm = load_arm(fields["model"], Cell(**fields).vision)
    assert type(arm.model).__qualname__ == "LlavaForConditionalGeneration"
    picture = scene(280, 126, 0)
    prepared = arm.prepare(picture, "<image> what ?", 0)
    mean = tuple(int(255 * x) for x in arm.processor.image_processor.image_mean)
    if baseline == "pad":
        padded = scene(280, 126, 0).resize((280, 280))
        padded.paste(mean, (0, 0, 280, 280))
        padded.paste(picture, (0, 77))
        picture = padded
    expected = arm.processor(images=[picture], text=["<image> what ?"], return_tensors="pt")
    assert prepared.inputs["pixel_values"].equal(expected["pixel_values"])
    assert prepared.input_ids.equal(expected["input_ids"][0])


def test_arms_differ_and_the_saved_position_is_used(cell, data_folders, tmp_path):
    raws = {}
    for name, changed in {"own": {}, "zero": {"position": "zero"}, "baseline": {"baseline": "crop"}}.items():
        fields = cell(benchmark="vstar", max_new_tokens=6, **changed)
        run_vqa(Cell(**fields), run(tmp_path / name, data_folders["vstar"]))
        raws[name] = [record["raw"] for record in lines(tmp_path / name)]
    assert len({tuple(answers) for answers in raws.values()}) == 3
    arm = load_arm(cell()["model"], Cell(**cell()).vision)
    assert arm.model.position.hidden[0].out_features == 640  # of the file; a solved one would have 1024
    for weighting, counted in ((None, "once"), ("area", "area")):
        arm = load_arm(cell()["model"], Cell(**cell(weighting=weighting)).vision)
        assert arm.model.qlip.weighting == counted


def test_answers_do_not_hang_on_the_batch(cell, data_folders, tmp_path):
    fields = cell(benchmark="vstar", criterion="random", alpha=0.3, max_new_tokens=6)
    for size in (1, 5):
        run_vqa(Cell(**fields), run(tmp_path / str(size), data_folders["vstar"], batch_size=size))
    one, five = ({r["id"]: (r["raw"], r["tokens"]) for r in lines(tmp_path / size)} for size in ("1", "5"))
    assert one == five
    assert len({tokens for _, tokens in one.values()}) > 2
    run_vqa(Cell(**{**fields, "seed": 1}), run(tmp_path / "seed", data_folders["vstar"], batch_size=5))
    assert {r["id"]: r["tokens"] for r in lines(tmp_path / "seed")} != {k: tokens for k, (_, tokens) in one.items()}


def test_likelihood_takes_the_sentence_with_the_lowest_mean_loss(cell, data_folders, tmp_path):
    fields = cell(benchmark="vstar", scoring="likelihood", limit=3)
    run_vqa(Cell(**fields), run(tmp_path, data_folders["vstar"]))
    arm, benchmark = load_arm(fields["model"], Cell(**fields).vision), BENCHMARKS["vstar"]
    source = benchmark.load(data_folders["vstar"])
    questions = {q.id: q for q in benchmark.questions(source, "llava", "likelihood")}
    for record in lines(tmp_path):
        question = questions[record["id"]]
        losses = []
        for sentence in question.candidates:  # one at a time, with transformers' own loss
            text = CHATS["llava"].format(question.prompt) + f" {sentence}"
            inputs = arm.processor(images=[to_rgb(source.image(question.row))], text=[text], return_tensors="pt")
            labels = inputs["input_ids"].clone()
            labels[:, : -len(sentence.split())] = -100
            losses.append(arm.model(**inputs, labels=labels).loss.item())
        assert record["raw"] == question.candidates[losses.index(min(losses))]
        assert record["correct"] == (losses.index(min(losses)) == 0)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 12, 13])
def test_every_question_is_in_one_batch_of_one_rank(world, count):
    costs = [(7 * i) % 5 for i in range(count)]
    shares = [list(Batches(costs, 2, rank, world)) for rank in range(world)]
    batches = [batch for share in shares for batch in share]
    assert sorted(i for batch in batches for i in batch) == list(range(count))
    ranks_in_turn = [[costs[i] for i in batch] for step in zip(*shares, strict=False) for batch in step]
    flat = [cost for batch in ranks_in_turn for cost in batch]
    assert flat == sorted(flat, reverse=True)


def test_the_journal_refuses_what_no_crash_of_ours_leaves(tmp_path):
    path = tmp_path / "j.jsonl"
    Journal(path).append([RECORD, {**RECORD, "id": "b"}])
    whole = path.read_text()
    for damage, message in (
        ("nonsense", "line 2: damaged, it is no JSON of ours"),
        ('{"id": "a"}', "line 2: missing answer, "),
        (json.dumps({**RECORD, "tokens": "9"}), "line 2: tokens: got '9'; takes a whole number"),
        (json.dumps({**RECORD, "seconds": math.nan}), "line 2: damaged, .*NaN is no finite number"),
    ):
        path.write_text(whole.replace("\n", f"\n{damage}\n", 1))
        with pytest.raises(ValueError, match=f"{message}.*; put it right or start in a new folder"):
            Journal(path).recover()
        with pytest.raises(ValueError, match=message):
            read_records(path)


def test_every_line_is_on_disk_before_append_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append((tmp_path / "j.jsonl").read_text()))
    Journal(tmp_path / "j.jsonl").append([{"id": "a"}, {"id": "ü"}])
    assert synced == ['{"id": "a"}\n{"id": "ü"}\n']


def test_a_question_whose_picture_cannot_be_read_is_left_out_and_named(
    cell, data_folders, tmp_path, monkeypatch, caplog
):
    one, image = Cell(**cell()), Source.image
    monkeypatch.setattr(Source, "image", lambda self, row: b"no picture" if row == 2 else image(self, row))
    with pytest.raises(OSError, match="data: 1 of 8 images cannot be read"):
        run_vqa(one, run(tmp_path, data_folders["pope"]))
    assert len(lines(tmp_path)) == 7
    monkeypatch.setattr("qlip.data.readable.MAX_UNREADABLE", 0.2)
    result = run_vqa(one, run(tmp_path, data_folders["pope"], batch_size=1))
    (left_out,) = result["unreadable"]
    assert f"skipping question {left_out}, row 2" in caplog.text
    assert left_out not in {record["id"] for record in lines(tmp_path)}
