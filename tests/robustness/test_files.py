"""Files of ours that are damaged or come from somebody else: read right, or refused by name; nothing in them runs."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from qlip import PositionMLP, QlipImageProcessor, Quadtree
from qlip.configs import FOLDER
from qlip.evaluation.bias_points import read_points
from qlip.evaluation.config import SweepConfig
from qlip.evaluation.journal import Journal
from qlip.evaluation.results import PREDICTIONS, RESULT, find_results, missing_cells, read_cell, read_result
from qlip.evaluation.run.sweep import read_sweep
from qlip.structured import read_json, read_yaml
from qlip.tools.tune import Line
from qlip.training.checkpoint import check, read_checkpoint, seal
from qlip.training.resume import newest_run, refuse_overrides
from qlip.training.targets import load_or_compute
from qlip.zoo.entries import CARD, CONFIG, WEIGHTS
from qlip.zoo.load import pull
from qlip.zoo.position_file import read_position, write_position
from qlip.zoo.store import load_folder, save
from tests.evaluation.fake_answers import make_run
from tests.robustness.campaign import Campaign
from tests.robustness.damage import damaged, pickled, spoiled_text
from tests.training.conftest import draw_photos
from tests.training.test_checkpoint import checkpoint
from tests.zoo.helpers import describe, same, tiny_position

Reader = Callable[[Path], Any]


def spoil(file: Path, kind: str, random: Random, marker: Path) -> str:
    """Spoil a file in place: a text of ours, or anything else; says how."""
    data = file.read_bytes()
    if kind in ("JSON", "YAML"):
        value = json.loads(data) if kind == "JSON" else yaml.safe_load(data)
        new = spoiled_text(value, kind, random, marker)
    else:
        new = pickled(marker, random) if random.random() < 0.15 else damaged(data, random)
    file.write_bytes(new)
    if random.random() < 0.05:
        aside = file.with_name("aside")
        file.rename(aside)
        random.choice([lambda: file.symlink_to(file), lambda: file.mkdir(), lambda: file.symlink_to("/dev/zero"), lambda: file.symlink_to("gone"), lambda: __import__("os").mkfifo(file)])()  # fmt: skip
        return f"{file.name} is no file"
    return f"{file.name}: {new[:400]!r}"


def other(position: PositionMLP) -> Callable[[Any], str | None]:
    """What is wrong with a position that is not the one that was written."""
    return lambda got: None if isinstance(got, PositionMLP) and same(got, position) else "another position"


def crafted(position: PositionMLP, random: Random, file: Path) -> str:
    """A safetensors file that is well formed and not what it says."""
    state = {name: tensor.clone() for name, tensor in position.state_dict().items()}
    name = random.choice(list(state))
    notes = {"type": "PositionMLP", "dim": 8, "grid": 4, "hidden": 16, "depth": 2, "fourier": 3, "sigma": 1.0}
    match random.randrange(6):
        case 0:
            dtypes = [
                torch.float16,
                torch.bfloat16,
                torch.float64,
                torch.int64,
                torch.uint8,
                torch.bool,
                torch.float8_e4m3fn,
            ]
            state[name] = state[name].to(random.choice(dtypes))
        case 1:
            state[name] = torch.full_like(state[name], random.choice([torch.nan, torch.inf]))
        case 2:
            state[name] = random.choice([torch.zeros(0), torch.zeros(()), torch.zeros(2, 2, 2)])
        case 3:
            state.pop(name)
        case 4:
            state[random.choice(["", "x", "../x", "table"])] = torch.zeros(1)
        case 5:
            notes[random.choice(list(notes))] = random.choice(["TablePosition", 10**12, -1, 0, 1e30, None, [], "os"])
    save_file(
        state,
        file,
        {"qlip": random.choice([json.dumps(notes), "{", "[]", "[" * 99_999, json.dumps({**notes, "sha256": "0"})])},
    )
    return f"crafted {name}"


def test_zoo_entries(campaign: Campaign) -> None:
    position = tiny_position()
    for random in campaign.rounds(120):
        entry = Path(random.choice(["entry", "entry", "ünïcode [1] 100%", "-rf", "a b", "{x}"]))
        shutil.rmtree(entry, ignore_errors=True)
        save(position, entry, describe(position))
        if random.random() < 0.3:
            what = crafted(position, random, entry / WEIGHTS)
        else:
            name, kind = random.choice([(CONFIG, "JSON"), (WEIGHTS, "weights")])
            what = spoil(entry / name, kind, random, campaign.marker)
        campaign.offer(what, lambda entry=entry: load_folder(entry), [str(entry)], other(position))
        campaign.offer(
            f"pull of {what}", lambda entry=entry: load_folder(pull(str(entry), "copy")), [str(entry), "entry"], other(position)
        )  # fmt: skip
        shutil.rmtree("checkpoints", ignore_errors=True)


def test_position_files(campaign: Campaign) -> None:
    position, file = tiny_position(), Path("qlip.safetensors")
    for random in campaign.rounds(150):
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        write_position(file, position)
        what = crafted(position, random, file) if random.random() < 0.4 else spoil(file, "", random, campaign.marker)
        campaign.offer(what, lambda: read_position(file), [file.name], other(position))


def processor_file(file: Path) -> None:
    QlipImageProcessor(quadtree=Quadtree(0.3)).save_pretrained(file.parent)


def usable(got: QlipImageProcessor) -> str | None:
    return None if len(got.cut(torch.rand(3, 60, 80))[1]) else "no tokens"


def result_file(file: Path) -> None:
    made = make_run(Path("runs"), 0.5, 50, count=5)
    shutil.copy(made / RESULT, file)


def bias_file(file: Path) -> None:
    row = {"size": 56, "position": "solve", "quadtree": True, "cosine": 0.5, "interpolation_bias": 0.1, "tokens": 4.0}
    file.write_text(json.dumps({"config": {}, "rows": [row, {**row, "position": "zero", "interpolation_bias": None}]}))


def plan_file(file: Path) -> None:
    file.write_text(json.dumps({"cells": ["pope/llava/x", "vstar/llava/y"]}))


def sweep_file(file: Path) -> None:
    shutil.copy(FOLDER / "sweeps" / "pocket.yaml", file)


def run_folder(file: Path) -> None:
    (file.parent / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save({}, file.parent / "checkpoints" / "last.ckpt")
    file.write_text(yaml.safe_dump({"model": {"lr": 1e-3, "backbone": "x"}, "ckpt_path": None}))


def resolved(file: Path) -> Any:
    (file.parent / "checkpoints" / "last.ckpt").unlink(missing_ok=True)  # so that the file itself is asked
    return newest_run(Path("lightning_logs"))


TEXTS: dict[str, tuple[str, str, Callable[[Path], None], Reader, Callable[[Any], str | None]]] = {
    "json": ("x.json", "JSON", bias_file, read_json, lambda got: None),
    "yaml": ("x.yaml", "YAML", sweep_file, read_yaml, lambda got: None),
    "settings": ("qlip.json", "JSON", processor_file, QlipImageProcessor.read, usable),
    "result": (RESULT, "JSON", result_file, read_result, lambda got: None if got.label else "no label"),
    "cell": (RESULT, "JSON", result_file, read_cell, lambda got: None if got.folder else "no folder"),
    "bias": ("bias.json", "JSON", bias_file, read_points, lambda got: None if got else "no points"),
    "plan": ("sweep.json", "JSON", plan_file, lambda file: missing_cells(Path()), lambda got: None),
    "sweep": ("sweep.yaml", "YAML", sweep_file, lambda file: read_sweep(SweepConfig(sweep=file)), lambda got: None),
    "run": ("lightning_logs/version_0/config.yaml", "YAML", run_folder, resolved, lambda got: None),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str, campaign: Campaign) -> None:
    place, kind, make, read, right = TEXTS[name]
    for random in campaign.rounds(60):
        file = Path("in", place)
        shutil.rmtree("in", ignore_errors=True)
        shutil.rmtree("lightning_logs", ignore_errors=True)
        if name == "run":
            file = Path(place)
        file.parent.mkdir(parents=True)
        make(file)
        what = spoil(file, kind, random, campaign.marker)
        campaign.offer(f"{name}: {what}", lambda file=file: read(file), [file.name, "ckpt_path", "image"], right)
        shutil.rmtree("runs", ignore_errors=True)


def records(count: int) -> list[dict[str, Any]]:
    return [{"id": f"{i}", "arms": {"a": {"tokens": i}}, "alpha": None} for i in range(count)]


def test_journals(campaign: Campaign) -> None:
    file = Path("journal.jsonl")
    for random in campaign.rounds(120):
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        Journal(file, Line).append(records(6))
        lines = file.read_bytes().splitlines()
        if random.random() < 0.5:
            at = random.randrange(6)
            lines[at] = spoiled_text(json.loads(lines[at]), "JSON", random, campaign.marker)
            file.write_bytes(b"\n".join(lines) + random.choice([b"\n", b"", b"\n\n"]))
            what = f"line {at}: {lines[at][:300]!r}"
        else:
            what = spoil(file, "", random, campaign.marker)
        campaign.offer(what, lambda: Journal(file, Line).recover(), [file.name])


def test_runs(campaign: Campaign) -> None:
    """A folder of results that came from somewhere: what is damaged is left out or refused by name."""
    for random in campaign.rounds(30):
        shutil.rmtree("results", ignore_errors=True)
        folder = make_run(Path("results"), 0.5, 50, count=5)
        make_run(Path("results"), 0.5, 100, count=5, baseline="crop")
        name, kind = random.choice([(RESULT, "JSON"), (PREDICTIONS, "")])
        what = spoil(folder / name, kind, random, campaign.marker)
        campaign.offer(
            what, lambda: find_results(Path("results")), ["results"],
            lambda got: None if 1 <= len(got) <= 2 else f"{len(got)} results of 2",
        )  # fmt: skip


def test_checkpoints(campaign: Campaign) -> None:
    position, file = tiny_position(), Path("last.ckpt")
    for random in campaign.rounds(120):
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        held = checkpoint(position)
        seal(held)
        torch.save(held, file)
        what = spoil(file, "", random, campaign.marker)

        def read() -> Any:
            refuse_overrides(str(file), None)
            read = read_checkpoint(file)
            check(read, position)
            return read

        def right(got: Any, wanted: dict[str, torch.Tensor] = held["state_dict"]) -> str | None:
            return (
                None if all(torch.equal(got["state_dict"][name], wanted[name]) for name in wanted) else "other weights"
            )

        campaign.offer(what, read, ["ckpt_path"], right)


def test_target_caches(campaign: Campaign) -> None:
    files = sorted(draw_photos(Path("photos"), 3).glob("*"))
    view, cache = QlipImageProcessor(56, "square", Quadtree(criterion="uniform")), Path("cache")

    def load() -> Any:
        return load_or_compute(lambda pixels: pixels.mean((2, 3)), files, view, encoder_digest="x", cache_dir=cache)

    wanted = load()
    for random in campaign.rounds(100):
        held = next(cache.glob("*.safetensors"))
        original = held.read_bytes()
        match random.randrange(4):
            case 0:
                dtype = random.choice([torch.bfloat16, torch.int64, torch.float16, torch.bool])
                save_file({"targets": torch.ones(3, 3).to(dtype), "sizes": torch.ones(3, 2)}, held, {"key": "x"})
                what = f"targets of {dtype}"
            case 1:
                shape = random.choice([(), (3,), (0, 3), (3, 0), (3, 3, 3)])
                save_file({"targets": torch.ones(shape), "sizes": torch.ones(3, 2)}, held, {"key": "x"})
                what = f"targets of shape {shape}"
            case _:
                what = spoil(held, "", random, campaign.marker)
        campaign.offer(
            what, load, ["cache"],
            lambda got: None if torch.equal(got.cls, wanted.cls) and torch.equal(got.sizes, wanted.sizes) else "other targets",
        )  # fmt: skip
        shutil.rmtree(cache)
        cache.mkdir()
        held.write_bytes(original)


def test_what_travels_with_an_entry_is_not_read(campaign: Campaign) -> None:
    """Whatever else lies in an entry's folder is never looked at."""
    position = tiny_position()
    for random in campaign.rounds(5):
        entry = save(position, Path("entry"), describe(position))
        for name in ("pytorch_model.bin", "adapter_model.bin", "modeling.py", "__init__.py", "training_args.bin", CARD):
            (entry / name).write_bytes(pickled(campaign.marker, random))
        campaign.offer("pickles beside an entry", lambda entry=entry: load_folder(entry), [], other(position))
        assert asdict(describe(position))
