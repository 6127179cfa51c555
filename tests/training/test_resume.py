"""A run goes on as the same run, and replaces nothing of another one."""

import contextlib
import itertools
import os
import pickle
import re
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from qlip.cli import main
from qlip.training.callbacks import Interruption
from qlip.training.module import QlipModule
from qlip.training.resume import ConfigError, check_path, newest_run
from qlip.zoo.config import ZooConfig
from tests.training.conftest import arguments

LAST = Path("lightning_logs/version_0/checkpoints/last.ckpt")


def entry(name: str) -> ZooConfig:
    return ZooConfig.read(Path("checkpoints", name, "config.json"))


def made(folder: Path, options: str = "{}", checkpoint: bool = True) -> Path:
    """What a run leaves."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(options)
    if checkpoint:
        (folder / "checkpoints/last.ckpt").touch()
    return folder


def test_the_newest_run_is_the_one_that_was_started_last(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run under"):
        newest_run(tmp_path)
    made(tmp_path / "version_9")
    newest = made(tmp_path / "version_10")
    os.utime(newest / "checkpoints/last.ckpt", (0, 0))
    (tmp_path / "version_11" / "checkpoints").mkdir(parents=True)  # a validation: no options are kept
    assert newest_run(tmp_path).checkpoint == newest / "checkpoints/last.ckpt"
    made(tmp_path / "version_12", f"ckpt_path: {newest}/checkpoints/last.ckpt", checkpoint=False)
    assert newest_run(tmp_path).folder == tmp_path / "version_12"
    assert newest_run(tmp_path).checkpoint == newest / "checkpoints/last.ckpt"
    made(tmp_path / "version_13", checkpoint=False)
    with pytest.raises(ConfigError, match=r"newest run, .*version_13, was stopped before its first checkpoint"):
        newest_run(tmp_path)
    made(tmp_path / "version_14", "[]", checkpoint=False)
    with pytest.raises(ConfigError, match=r"version_14/config.yaml is damaged"):
        newest_run(tmp_path)


def test_last_goes_on_with_the_options_of_its_run(fit_args: list[str]) -> None:
    main(["fit", *fit_args])
    options = Path("lightning_logs/version_0/config.yaml").read_text()
    others = {
        "--data.max_size=56": "--data.max_size 56 (the run has 84)",
        "--trainer.max_epochs=3": "--trainer.max_epochs 3 (the run has 2)",
        "--export.name=other": "--export.name 'other' (the run has 'tiny')",
    }
    for option, message in others.items():
        with pytest.raises(SystemExit, match=re.escape(message)):
            main(["fit", "--ckpt_path=last", option])
    main(["fit", *fit_args, "--ckpt_path=last"])
    assert os.listdir("lightning_logs") == ["version_0"]
    assert Path("lightning_logs/version_0/config.yaml").read_text() == options
    assert Path("lightning_logs/version_0/checkpoints/last.ckpt").is_file()
    assert sorted(os.listdir("checkpoints")) == ["tiny", "tiny-last"]


def test_a_folder_has_its_previews_once(fit_args: list[str]) -> None:
    main(["fit", *fit_args])
    main(["fit", *fit_args, "--ckpt_path=lightning_logs/version_0/checkpoints/last.ckpt", "--trainer.max_epochs=3"])
    main(["fit", "--ckpt_path=last"])
    curves = EventAccumulator("lightning_logs/version_1", size_guidance={"images": 0}).Reload()
    tags = curves.Tags()["images"]
    assert len(tags) == 6
    assert all(len(curves.Images(tag)) == 1 for tag in tags)


def test_a_new_run_takes_no_folder_of_another_one(fit_args: list[str]) -> None:
    main(["fit", *fit_args])
    options = Path("lightning_logs/version_0/config.yaml").read_text()
    with pytest.raises(RuntimeError, match=r"version_0/config.yaml to NOT exist"):
        main(["fit", *fit_args, "--model.lr=0.9", "--trainer.logger.init_args.version=version_0"])
    assert Path("lightning_logs/version_0/config.yaml").read_text() == options


class Malice:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("run",)


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict"])
def test_nothing_in_a_checkpoint_is_run_and_no_address_is_loaded(verb: str, fit_args: list[str]) -> None:
    Path("malice.ckpt").write_bytes(pickle.dumps(Malice()))
    torch.save({"state_dict": {}, "hyper_parameters": Malice()}, "malice-too.ckpt")
    os.mkfifo("pipe.ckpt")
    options = [one for one in fit_args if verb == "fit" or not one.startswith(("--export", "--trainer.max", "--model"))]
    for path in ("malice.ckpt", "malice-too.ckpt")[: 2 if verb == "fit" else 1]:
        with pytest.raises(SystemExit, match=f"ckpt_path: {path} is damaged or no checkpoint"):
            main([verb, *options, f"--ckpt_path={path}"])
    refused = ("http://127.0.0.1:9/a.ckpt", "s3://a/b.ckpt", "missing.ckpt", "best", "hpc", "pipe.ckpt")
    for path in refused:
        with pytest.raises(ConfigError, match=f"ckpt_path: got '{path}', which is no file here"):
            check_path(path)
    with pytest.raises(SystemExit, match=f"ckpt_path: got '{refused[0]}', which is no file here"):
        main([verb, *options, f"--ckpt_path={refused[0]}"])  # all verbs ask that function
    assert not Path("run").exists()


def test_entries_of_another_run_are_kept(fit_args: list[str]) -> None:
    short = [*fit_args, "--trainer.max_steps=1"]
    main(["fit", *short])
    before = Path("checkpoints/tiny/model.safetensors").stat()
    main(["fit", *short, "--model.lr=1e-3"])
    assert sorted(os.listdir("checkpoints")) == ["tiny", "tiny-2", "tiny-2-last", "tiny-last"]
    assert Path("checkpoints/tiny/model.safetensors").stat() == before
    assert entry("tiny-2-last").training["lr"] == 1e-3
    main(["fit", *short, "--model.lr=1e-2", "--export.replace=true"])
    assert sorted(os.listdir("checkpoints")) == ["tiny", "tiny-2", "tiny-2-last", "tiny-last"]
    assert entry("tiny-last").training["lr"] == 1e-2
    for name in os.listdir("checkpoints"):  # stopped in the middle of an epoch
        assert entry(name).metrics.keys() >= {"R", "R2", "offgrid", "l_cls", "loss", "cos_cls_84"}
        card = Path("checkpoints", name, "README.md").read_text()
        assert str(Path.cwd().parent) not in card
        assert not re.search(r"[^\w.:/]/\w+/", card.split("---")[-1])


def test_the_state_before_the_first_step_competes(fit_args: list[str]) -> None:
    main(["fit", *fit_args, "--model.lr=10", "--trainer.max_steps=2"])
    best, last = entry("tiny"), entry("tiny-last")
    assert (best.training["steps"], last.training["steps"]) == (0, 2)
    assert best.metrics["loss"] < last.metrics["loss"]


@pytest.mark.parametrize("dry", ["--trainer.fast_dev_run=true", "--trainer.max_epochs=0", "--trainer.max_steps=0"])
def test_a_run_without_a_step_exports_nothing(dry: str, fit_args: list[str], capsys: pytest.CaptureFixture) -> None:
    main(["fit", *fit_args, dry])
    assert not list(Path("checkpoints").rglob("*.safetensors"))
    assert "Zoo entry" not in capsys.readouterr().out


def test_a_name_does_not_leave_the_zoo(fit_args: list[str]) -> None:
    with pytest.raises(SystemExit, match=re.escape("name: got '../up'; takes letters")):
        main(["fit", *fit_args, "--export.name=../up"])


def stop_by_signal() -> None:
    signal.raise_signal(signal.SIGINT)


def stop_by_error() -> None:
    raise OSError("no space left")


SITES = {
    "before its weights change": (QlipModule, "on_before_optimizer_step", 8, stop_by_signal),
    "by an error": (QlipModule, "on_before_optimizer_step", 8, stop_by_error),
    "in a validation": (QlipModule, "validation_step", 8, stop_by_signal),
}
LONGER = ("--trainer.max_epochs=3", "--model.lr=1e-3")


@pytest.fixture(scope="module")
def whole(clip_folder: str, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last state of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with contextlib.chdir(folder):
        main(["fit", *arguments(clip_folder, photos, folder), *LONGER])
    return torch.load(folder / LAST, weights_only=True)


@pytest.mark.parametrize("site", SITES)
def test_a_run_stopped_in_the_middle_of_a_step_goes_on_as_if_it_had_not_been(
    fit_args: list[str], whole: dict[str, Any], site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, at, stop = SITES[site]
    stock, calls, handler = getattr(owner, name), itertools.count(1), signal.getsignal(signal.SIGINT)

    def stopping(*args: object, **kwargs: object) -> object:
        if next(calls) == at:
            stop()
        return stock(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopping)
        with pytest.raises(SystemExit):
            main(["fit", *fit_args, *LONGER])
    assert signal.getsignal(signal.SIGINT) is handler
    main(["fit", "--ckpt_path=last"])
    curves = EventAccumulator("lightning_logs/version_0").Reload()
    steps = {tag: [point.step for point in curves.Scalars(tag)] for tag in ("train/l_cls", "lr-Adam", "val/l_cls")}
    assert steps == {"train/l_cls": [*range(15)], "lr-Adam": [*range(15)], "val/l_cls": [0, 4, 9, 14]}
    resumed = torch.load(LAST, weights_only=True)
    assert whole["global_step"] == resumed["global_step"] == 15
    assert all(torch.equal(value, resumed["state_dict"][key]) for key, value in whole["state_dict"].items())


def test_ctrl_c_stays_ignored_where_it_was() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        Interruption().on_train_start(L.Trainer(accelerator="cpu", devices=1, logger=False), L.LightningModule())
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
