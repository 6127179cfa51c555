"""Whole runs of the command line on drawn photographs and a tiny CLIP."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import qlip
from qlip.cli import main
from qlip.configs import FOLDER
from qlip.towers.base import position_table
from qlip.training.resume import refuse_overrides
from tests.training.conftest import arguments

TRAIN = str(Path(__file__).parents[2] / "train.py")
LAST = Path("lightning_logs/version_0/checkpoints/last.ckpt")
LOGGED = Path("lightning_logs/version_0/config.yaml")


def checkpoint(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def run(*args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess:
    command, env = [sys.executable, TRAIN, *args], {**os.environ, **env}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, check=False, timeout=300)


def assert_same_position(first: Path, second: Path) -> None:
    a, b = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a.keys() | b.keys())


def test_fit_leaves_logs_checkpoints_and_a_zoo_entry(
    fit_args: list[str], photos: Path, capsys: pytest.CaptureFixture
) -> None:
    main(["fit", *fit_args])
    events = EventAccumulator("lightning_logs/version_0").Reload()
    scalars = set(events.Tags()["scalars"])
    losses = {"loss", "l_cls", "residual_l1", "residual_l2"}
    assert {f"train/{x}" for x in losses | {"tokens_per_image", "position_grad_norm", "offgrid"}} <= scalars
    assert {f"val/{x}" for x in losses | {"offgrid"}} | {f"val/cos_cls_{n}" for n in (42, 56, 84)} <= scalars
    assert "lr-Adam" in scalars
    names = sorted(path.stem for path in photos.glob("val/*"))[:2]
    assert set(events.Tags()["images"]) == {f"quadtree/{name}/alpha_{a}" for name in names for a in (0.1, 0.5, 1)}
    assert not scalars & {"epoch", "hp_metric"}
    config = yaml.safe_load(Path("lightning_logs/version_0/config.yaml").read_text())
    assert (config["trainer"]["max_epochs"], config["model"]["lr"]) == (2, 7.5e-5)

    printed = capsys.readouterr().out
    for label in ("R", "L_cls", "cos [CLS] at 84", "tokens per image", "seconds", "checkpoints/tiny", "tensorboard"):
        assert label in printed

    position = qlip.load("checkpoints/tiny-last")
    held = checkpoint(LAST)["state_dict"]
    assert {name.removeprefix("vision.position.") for name in held} == position.state_dict().keys()
    assert all(torch.equal(held[f"vision.position.{k}"], v) for k, v in position.state_dict().items())
    assert set(os.listdir("checkpoints/tiny")) == {"config.json", "model.safetensors", "README.md"}
    assert LAST.stat().st_size < 3 * 4 * sum(v.numel() for v in held.values()) + 50_000  # weights and two moments


def test_the_solved_start_reproduces_clip_and_random_merging_trains_it(fit_args: list[str]) -> None:
    main(["fit", *fit_args, "--projection.every_n_steps=0"])
    events = EventAccumulator("lightning_logs/version_0").Reload()
    residual = [event.value for event in events.Scalars("val/residual_l1")]
    assert residual[0] < 5e-7 < residual[-1]
    learning_rates = [event.value for event in events.Scalars("lr-Adam")]
    assert learning_rates[-1] < learning_rates[0]


@pytest.mark.parametrize(("lr", "start_is_kept"), [("1e-9", True), ("1e-2", False)])
def test_where_nothing_improves_the_start_is_exported_and_the_table_says_so(
    lr: str, start_is_kept: bool, fit_args: list[str], capsys: pytest.CaptureFixture
) -> None:
    main(["fit", *fit_args, f"--model.lr={lr}", "--model.mlp.init=random", "--projection.every_n_steps=0"])
    steps = json.loads(Path("checkpoints/tiny/config.json").read_text())["training"]["steps"]
    assert (steps == 0) == start_is_kept
    said = "No validation had a val/loss that was 1% below that of the start: the start was as good"
    assert (said in capsys.readouterr().out) == start_is_kept


def test_a_second_run_with_the_same_seed_ends_the_same(fit_args: list[str]) -> None:
    main(["fit", *fit_args])
    main(["fit", *fit_args, "--export.name=again"])
    assert_same_position(Path("checkpoints/tiny-last"), Path("checkpoints/again-last"))


@pytest.mark.parametrize("validated", [True, False])
def test_projection_keeps_the_residual_at_rounding_error(fit_args: list[str], validated: bool) -> None:
    unseen = [] if validated else ["--trainer.limit_val_batches=0", "--trainer.max_steps=7"]
    main(["fit", *fit_args, *unseen])
    events, position = EventAccumulator("lightning_logs/version_0").Reload(), qlip.load("checkpoints/tiny-last")
    table = position_table(qlip.load_clip(yaml.safe_load(LOGGED.read_text())["model"]["backbone"]))
    assert position.residual(table)[0] < 5e-7
    assert max(event.value for event in events.Scalars("train/residual_l1")) > 5e-6  # it was trained in between
    if validated:
        assert max(event.value for event in events.Scalars("val/residual_l1")) < 5e-7


def test_validate_test_and_predict_need_only_the_checkpoint(fit_args: list[str], capsys: pytest.CaptureFixture) -> None:
    main(["fit", *fit_args])
    trained = EventAccumulator("lightning_logs/version_0").Reload().Scalars("val/cos_cls_84")[-1].value
    rest = [x for x in fit_args if not x.startswith(("--model", "--export", "--trainer.max_epochs"))]
    for command in ("validate", "test"):
        capsys.readouterr()
        main([command, *rest, f"--ckpt_path={LAST}"])
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "val/cos_cls_84" in line]
        assert float(re.findall(r"-?\d\.\d+", line)[-1]) == pytest.approx(trained, abs=1e-5)
    main(["predict", *rest, f"--ckpt_path={LAST}"])


LONG = ("--trainer.max_epochs=5", "--model.lr=1e-3")


@pytest.fixture(scope="module")
def unkilled(clip_folder: str, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo entry of a long run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unkilled")
    done = run("fit", *arguments(clip_folder, photos, folder), *LONG, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "checkpoints/tiny-last"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_goes_on_and_ends_where_an_unkilled_one_ends(
    fit_args: list[str], unkilled: Path, how: signal.Signals
) -> None:
    killed = subprocess.Popen(
        [sys.executable, TRAIN, "fit", *fit_args, *LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # background shells start us ignoring it
    )
    deadline = time.monotonic() + 120
    while not LAST.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # into the next epoch
    killed.send_signal(how)
    _, errors = killed.communicate(timeout=120)
    assert killed.returncode != 0
    assert ("steps; go on with: python train.py fit --ckpt_path last" in errors.decode()) == (how != signal.SIGKILL)
    assert 0 < checkpoint(LAST)["global_step"] < 25
    resumed = run("fit", "--ckpt_path=last")
    assert resumed.returncode == 0, resumed.stderr
    assert "not resumable" not in resumed.stderr
    assert os.listdir("lightning_logs") == ["version_0"]
    assert checkpoint(LAST)["global_step"] == 25
    curves = EventAccumulator("lightning_logs/version_0").Reload()
    for tag, least in (("train/l_cls", 24), ("val/l_cls", 5)):  # a signal may fall between a step and its point
        steps = [event.step for event in curves.Scalars(tag)]
        assert steps == sorted(set(steps))
        assert len(steps) >= least
    assert_same_position(unkilled, Path("checkpoints/tiny-last"))


def test_a_checkpoint_overrides_nothing_in_silence(fit_args: list[str]) -> None:
    main(["fit", *fit_args])
    for argument in ("--model.lr=0.9", "--model.mlp.init=random", "--model.loss.gamma=3"):
        with pytest.raises(SystemExit, match=argument.split("=")[0]):
            main(["fit", *fit_args, f"--ckpt_path={LAST}", argument])
    refuse_overrides(str(LAST), None)


def test_a_checkpoint_of_another_network_is_refused(fit_args: list[str]) -> None:
    main(["fit", *fit_args])
    state = checkpoint(LAST)
    state["state_dict"].pop("vision.position.readout.bias")
    torch.save(state, "missing.ckpt")
    with pytest.raises(SystemExit, match=r"qlip: .*vision\.position\.readout\.bias"):
        main(
            [
                "validate",
                *[a for a in fit_args if not a.startswith(("--export", "--trainer.max"))],
                "--ckpt_path=missing.ckpt",
            ]
        )


def test_two_processes_train_validate_and_export_once(fit_args: list[str]) -> None:
    done = run("fit", *fit_args, "--trainer.devices=2", "--trainer.strategy=ddp", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert checkpoint(LAST)["global_step"] == 2 * 3  # 10 photographs, 2 a batch, 2 ranks
    assert sorted(os.listdir("checkpoints")) == ["tiny", "tiny-last"]
    assert done.stdout.count("Zoo entry") == 1
    alone = ["fit", *fit_args, "--trainer.max_steps=1", "--export.name=alone"]
    assert run(*alone).returncode == 0
    first, second = (EventAccumulator(f"lightning_logs/version_{i}").Reload() for i in range(2))
    for tag in ("val/cos_cls_42", "val/l_cls"):  # before the first step, three photographs on two ranks
        assert first.Scalars(tag)[0].value == pytest.approx(second.Scalars(tag)[0].value, rel=1e-4)
    assert done.stderr.count("computing 13 targets") + done.stdout.count("computing 13 targets") == 1
    qlip.load("checkpoints/tiny")


def test_without_a_network_one_line_names_the_quickstart(tmp_path: Path) -> None:
    done = run("fit", cwd=tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("train.py:")]
    assert "openai/clip-vit-large-patch14-336" in line
    assert "python train.py fit --config quickstart" in line
    assert "Traceback" not in done.stderr


def test_unknown_keys_fail_by_name(fit_args: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["fit", *fit_args, "--model.gama=2"])
    assert "gama" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configurations_parse(path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", f"--config={path}", "--print_config"])
    assert stopped.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["backbone"]


def test_the_recipe_of_the_paper_is_spelled_out(capsys: pytest.CaptureFixture) -> None:
    """Its file says all that it is, so that it stays what it is whatever the defaults become."""
    spelled = yaml.safe_load((FOLDER / "paper.yaml").read_text())
    network = {"hidden": 1024, "depth": 4, "fourier": 48, "init": "random"}
    loss = {"gamma": 1.0, "cls_loss": "mse", "target": "image_embeds", "patches": 0.0}
    model = {
        "backbone": "openai/clip-vit-large-patch14-336",
        "mlp": network,
        "loss": loss,
        "lr": 7.5e-5,
        "warmup": 0.01,
    }
    assert spelled == {
        "model": model,
        "data": {"root": "imagenette", "batch_size": 14, "max_size": 560, "merge": 0.1},
        "trainer": {"max_epochs": 100},
        "projection": {"every_n_steps": 0},
    }
    with pytest.raises(SystemExit):
        main(["fit", "--config=paper", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["projection"]["every_n_steps"] == 0


def test_without_options_a_fit_projects(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["projection"]["every_n_steps"] == 10


@pytest.mark.parametrize("off", ["logger=false", "enable_checkpointing=false", "barebones=true"])
def test_what_is_switched_off_is_off(off: str, fit_args: list[str], capsys: pytest.CaptureFixture) -> None:
    args = [arg for arg in fit_args if off != "barebones=true" or "log_every_n" not in arg]
    main(["fit", *args, f"--trainer.{off}", "--trainer.max_steps=1"])
    assert qlip.load("tiny-last").hidden[0].out_features == 32
    assert bool(list(Path().rglob("*.ckpt"))) == (off == "logger=false")
    assert Path("lightning_logs").exists() == (off == "enable_checkpointing=false")
    assert "L_cls" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", "bf16-true", "64-true"])
def test_a_precision_that_would_spoil_the_network_is_refused(precision: str, fit_args: list[str]) -> None:
    with pytest.raises(SystemExit, match=f"precision: got '{precision}'; takes 32-true, bf16-mixed"):
        main(["fit", *fit_args, f"--trainer.precision={precision}"])
