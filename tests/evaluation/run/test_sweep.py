"""Sweeps: what their files mean, that nothing is done twice, and that a killed one goes on."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from qlip.cli import main
from qlip.configs import FOLDER, find
from qlip.evaluation.config import PAPER_RESULTS, SweepConfig
from qlip.evaluation.run import sweep as sweeps
from qlip.evaluation.run.sweep import expand, read_sweep, run_sweep, take_shard
from tests.evaluation.local_data import PAPER
from tests.families.tiny_llava import scene

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((FOLDER / "sweeps").glob("paper-*.yaml"))
CELLS = {
    "paper-vstar-7b": 2 + 18 * 21 + 18 * 8 * 10 + 18 * 3,
    "paper-vstar-13b": 2 + 18 * 21 + 18 * 8 * 10 + 18 * 3,
    "paper-mme": 4 + 2 * 7 * 6,
    "paper-mmbench": 4 + 2 * 5 * 6,
    "paper-scienceqa": 4 + 2 * 2 * 5 * 6,
    "paper-pope": 4 + 2 * 4 * 6,
    "paper-realworldqa": 4 + 2 * 9 * 7,
    "paper-cvbench": 4 + 2 * 2 * 6 * 5,
}

ARMS = (("own", "prune"), (None, "prune"), (None, "scale"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_are_whole(path):
    cells = read_sweep(SweepConfig(path)).cells
    assert len(cells) == CELLS[path.stem]
    assert {cell.baseline for cell, _ in cells} == {"crop", "pad", None}
    assert f"python evaluate.py sweep {path.stem}" in path.read_text()


def test_the_pocket_sweeps_need_no_download():
    for name, count, images in (
        ("pocket", 4 + 3 + 6 + 2 + 12, "pocket"),
        ("pocket-weighting", 4 + 1 + 4, "pocket"),
        ("pocket-budgets", 1 + 3 + 6 + 3, None),
    ):
        sweep = read_sweep(SweepConfig(find(name, "sweep")))
        cells = sweep.cells
        assert (sweep.bias and sweep.bias.images) == images
        assert len(cells) == count
        assert {cell.model for cell, _ in cells} == {"pocket-llava"}
        assert {cell.benchmark for cell, _ in cells} <= {"vstar-pocket", "pope-pocket"}


def test_the_pocket_qwen_is_asked_at_equal_budgets():
    cells = [cell for cell, _ in read_sweep(SweepConfig(find("pocket-qwen", "sweep"))).cells]
    assert len(cells) == 4 * (4 + 3 + 3)
    assert {cell.model for cell in cells} == {"pocket-qwen"}
    budgets = [{cell.max_tokens for cell in cells if (cell.baseline, cell.fit) == arm} for arm in ARMS]
    assert budgets == [{None, 36, 64, 100}, {36, 64, 100}, {36, 64, 100}]


def test_every_benchmark_ships_its_sweep():
    assert {path.stem for path in SHIPPED} == CELLS.keys()


def test_the_papers_grid_is_the_papers(tmp_path):
    cells = [cell for cell, _ in read_sweep(SweepConfig(find("paper-vstar-7b", "sweep"))).cells]
    header = (PAPER_RESULTS / "table3-vstar-7b-derivative.csv").read_text().splitlines()[0].split(",")[1:]
    derivative = [cell for cell in cells if cell.criterion == "derivative" and not cell.baseline]
    assert sorted({cell.alpha for cell in derivative}) == [float(alpha) for alpha in header]
    assert sorted({cell.size for cell in derivative}) == list(range(224, 701, 28))


def test_entries_expand_to_all_combinations():
    assert list(expand([{"a": [1, 2], "b": 3}, {"a": [4], "b": [5, 6]}])) == [
        {"a": 1, "b": 3}, {"a": 2, "b": 3}, {"a": 4, "b": 5}, {"a": 4, "b": 6},
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 3, 5])
def test_shards_are_all_cells_once(count):
    cells = list(range(13))
    shards = [take_shard(cells, f"{i}/{count}") for i in range(count)]
    assert sorted(cell for shard in shards for cell in shard) == cells
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("shard", ["3/3", "1", "a/b", "-1/2", "1/0"])
def test_shards_written_wrong_are_refused(shard):
    with pytest.raises(ValueError, match=f"cells: got '{shard}'; takes i/n"):
        take_shard([], shard)


@pytest.fixture
def config(tmp_path, cell, data_folders):
    """A sweep of four cells over a tiny model, written to a file."""
    file = tmp_path / "sweep.yaml"
    grid = [{"baseline": "crop"}, {"alpha": [0.5, 1.0]}, {"alpha": 1.0, "criterion": "random"}]
    run = {"batch_size": 4, "accelerator": "cpu", "devices": 1, "workers": 0}
    file.write_text(yaml.safe_dump({"common": cell(benchmark="mme"), "grid": grid, "run": run}))
    return SweepConfig(file, data=data_folders["mme"].parent, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grdi": []}, "has grdi; takes out, common, grid, run"),
        ({"common": {"benchmark": "pope", "model": "m", "colour": 1}}, "colour"),
        ({"grid": [{"alpha": "high"}]}, "alpha"),
        ({"grid": [{"benchmark": "gqa"}]}, "got 'gqa'; known are vstar"),
        ({"bias": {"images": "pocket", "side": 3}}, "has side; takes images, clip, mlp"),
        ({"bias": {"clip": "pocket-clip"}}, "images"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(changed, message, config):
    values = yaml.safe_load(config.sweep.read_text())
    config.sweep.write_text(yaml.safe_dump(values | changed))
    with pytest.raises(ValueError, match=message):
        read_sweep(config)


def test_done_cells_are_skipped_and_failed_ones_named(config, monkeypatch):
    ran = []

    def run(cell, where):
        ran.append(cell.alpha)
        if cell.criterion == "random":
            raise RuntimeError("out of memory")
        done.__wrapped__(cell, where)

    def done(cell, where):
        where.out.mkdir(parents=True)
        (where.out / "result.json").write_text(json.dumps({"config": dataclasses.asdict(cell)}))

    done.__wrapped__ = done
    monkeypatch.setattr(sweeps, "run_vqa", run)
    with pytest.raises(OSError, match=r"1 of 4 cells failed; the same command tries them again\n  mme/.*out of memory"):
        run_sweep(config)
    assert len(ran) == 4
    monkeypatch.setattr(sweeps, "run_vqa", lambda cell, where: (ran.append(cell.criterion), done(cell, where)))
    assert run_sweep(config).open == []
    assert ran[4:] == ["random"]


def test_a_damaged_cell_is_named_and_the_others_are_measured(config, monkeypatch):
    def run(cell, where):
        where.out.mkdir(parents=True)
        (where.out / "result.json").write_text(json.dumps({"config": dataclasses.asdict(cell)}))

    monkeypatch.setattr(sweeps, "run_vqa", run)
    damaged, *_ = run_sweep(config).cells
    path = damaged[1].out / "result.json"
    for text in ("{", "[]", '{"config": 3}', '{"config": {"alpha": NaN}}'):
        shutil.rmtree(config.out)
        path.parent.mkdir(parents=True)
        path.write_text(text)
        with pytest.raises(OSError, match=f"1 of 4 cells failed; .*\n  mme/.*{path}"):
            run_sweep(config)
        sweep = run_sweep(dataclasses.replace(config, dry_run=True))
        assert sweep.open == [damaged]


def test_figure_4_belongs_to_shard_0_and_is_measured_once(config, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    scene(300, 240, 0).save(tmp_path / "photos" / "a.png")
    options = {"images": str(tmp_path / "photos"), "clip": "random:64x1", "sizes": [224, 336, 112], "device": "cpu"}
    values = yaml.safe_load(config.sweep.read_text())
    monkeypatch.setattr(sweeps, "run_vqa", lambda cell, where: None)

    def run(shard="0/1", **changed):
        config.sweep.write_text(yaml.safe_dump(values | {"bias": options | changed}))
        return run_sweep(dataclasses.replace(config, cells=shard))

    measured = config.out / "bias" / "bias.json"
    assert run("1/2").open_bias is None
    assert not measured.exists()
    assert run("0/2").open_bias is None
    first = measured.stat().st_mtime_ns
    assert {row["size"] for row in json.loads(measured.read_text())["rows"]} == {224, 336}
    run()
    assert measured.stat().st_mtime_ns == first
    run(alpha=0.5)
    assert json.loads(measured.read_text())["config"]["alpha"] == 0.5


def test_the_whole_chain_killed_resumed_and_reported(config, capsys):
    command = ["sweep", str(config.sweep), f"--data={config.data}", f"--out={config.out}"]
    process = subprocess.Popen([sys.executable, "evaluate.py", *command], cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        journals = list(config.out.rglob("predictions.jsonl"))
        if len(journals) >= 2:  # one cell is done, another under way
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(0.02)
    assert process.returncode == -signal.SIGKILL
    journals = {path: path.read_bytes() for path in config.out.rglob("predictions.jsonl")}
    results = {path: path.stat().st_mtime_ns for path in config.out.rglob("result.json")}
    assert results
    assert len(results) < 4
    main(command)
    assert "4 of 4 cells done" in capsys.readouterr().out
    for path, content in journals.items():
        whole = content[: content.rfind(b"\n") + 1]
        assert path.read_bytes().startswith(whole)
    for path in config.out.rglob("predictions.jsonl"):
        ids = [json.loads(line)["id"] for line in path.read_text().splitlines()]
        assert len(ids) == len(set(ids)) == 12
    assert all(path.stat().st_mtime_ns == then for path, then in results.items())
    main(["report", str(config.out)])
    page = config.out / "report" / "index.html"
    assert "mme, model" in page.read_text()


def test_all_seven_benchmarks_from_a_sweep_in_two_sittings_to_a_report(config, capsys):
    values = yaml.safe_load(config.sweep.read_text())
    del values["common"]["benchmark"]
    values["grid"] = [{"benchmark": PAPER, **arm} for arm in ({"baseline": "crop"}, {"alpha": 0.5})]
    config.sweep.write_text(yaml.safe_dump(values))
    command = ["sweep", str(config.sweep), f"--data={config.data}", f"--out={config.out}"]
    main([*command, "--cells=0/2"])
    first = {path: path.stat().st_mtime_ns for path in config.out.rglob("result.json")}
    assert len(first) == 7
    main(command)
    assert "14 of 14 cells done" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == then for path, then in first.items())
    main(["report", str(config.out)])
    page = (config.out / "report" / "index.html").read_text()
    assert all(f"{name}, model" in page for name in PAPER)


def test_ray_that_is_not_installed_is_named(config, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"qlip: ray: got 'auto', but Ray is not installed; pip install 'qlip\[ray\]'"):
        main(["sweep", str(config.sweep), "--ray=auto"])


def test_two_devices_ask_every_question_once(cell, data_folders, tmp_path):
    """11 batches do not divide by two; each rank writes into one journal."""
    fields = {
        **cell(benchmark="realworldqa", limit=11, position="bicubic"),
        "data": data_folders["realworldqa"],
        "out": tmp_path,
    }
    machine = {"accelerator": "cpu", "devices": 2, "workers": 0, "batch_size": 1}
    options = [f"--{name}={value}" for name, value in {**fields, **machine}.items()]
    subprocess.run([sys.executable, "evaluate.py", "vqa", *options], cwd=ROOT, check=True, timeout=180)
    ids = [json.loads(line)["id"] for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert sorted(ids, key=int) == [str(i) for i in range(11)]
    assert json.loads((tmp_path / "result.json").read_text())["data"]["questions"] == 11
