"""Going on with a run: which one, from which checkpoint, and that it is the same."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from qlip.core.rules import shown
from qlip.structured import read_yaml
from qlip.training.checkpoint import read_checkpoint

LOGS = Path("lightning_logs")
CONFIG = "config.yaml"


class ConfigError(ValueError):
    """The command line asks for something that cannot be; the message says what to do."""


@dataclass(frozen=True)
class Run:
    """A run of ``fit`` that can go on.

    Attributes:
        folder: Its logs, with the ``config.yaml`` that has all its options.
        checkpoint: The newest of its checkpoints.
    """

    folder: Path
    checkpoint: Path

    @property
    def config(self) -> Path:
        """All its options."""
        return self.folder / CONFIG


def newest_run(logs: Path = LOGS) -> Run:
    """The run of ``fit`` that was started last.

    One that itself went on with an earlier run, and was stopped before its first checkpoint, goes on from the same place again.

    Raises:
        ConfigError: if there is none, or it has no checkpoint.
    """
    versions = {path.parent: int(path.parent.name.removeprefix("version_")) for path in _configs(logs)}
    if not versions:
        raise ConfigError(f"ckpt_path: got 'last', but there is no run under {logs}; start without --ckpt_path")
    folder = max(versions, key=lambda folder: versions[folder])
    found = sorted(folder.glob("checkpoints/last*.ckpt"), key=lambda path: path.stat().st_mtime)
    if found:
        return Run(folder, found[-1])
    before = _options(folder / CONFIG).get("ckpt_path")
    if isinstance(before, str) and os.path.isfile(before):
        return Run(folder, Path(before))
    raise ConfigError(
        f"ckpt_path: got 'last', but the newest run, {folder}, was stopped before its first checkpoint; start it anew without "
        f"--ckpt_path, or go on with an earlier run by the path of its checkpoint"
    )


def _configs(logs: Path) -> list[Path]:
    return [path for path in logs.glob(f"version_*/{CONFIG}") if re.fullmatch(r"version_\d+", path.parent.name)]


def _options(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"ckpt_path: {path} is damaged, it holds no options; name the checkpoint itself")
    return values


def refuse_differences(run: Run, asked: Namespace) -> None:
    """Stop where the user asks for other options than the run has: it goes on as it was.

    Args:
        run: The run that goes on.
        asked: Only those options that the user gave.

    Raises:
        ConfigError: naming each option, what was asked and what the run has.
    """
    held = _flatten(_options(run.config))
    given = {
        name: value for name, value in _flatten(asked).items() if name.split(".")[0] not in ("ckpt_path", "config")
    }
    changed = [
        f"--{name} {value!r} (the run has {held.get(name)!r})"
        for name, value in given.items()
        if held.get(name) != value
    ]
    if changed:
        raise ConfigError(
            f"ckpt_path: 'last' goes on with the run in {run.folder} as it was, and cannot take {', '.join(changed)}. Leave these "
            f"options out, or go on with other ones by --ckpt_path {run.checkpoint}"
        )


def refuse_overrides(path: str, asked: Namespace | None) -> None:
    """Stop where the user asks for other hyperparameters than the checkpoint holds; Lightning would keep the latter.

    Args:
        path: The checkpoint.
        asked: Only those arguments of the model that the user gave.

    Raises:
        OSError: if the checkpoint cannot be read.
        ConfigError: naming each argument, what was asked and what the checkpoint holds.
        ValueError: if the checkpoint is damaged.
    """
    held = _flatten(read_checkpoint(path)["hyper_parameters"])
    changed = [
        f"--model.{name} {value!r} (the checkpoint has {held[name]!r})"
        for name, value in _flatten(asked or {}).items()
        if name in held and held[name] != value
    ]
    if changed:
        raise ConfigError(
            f"ckpt_path: {path} goes on with its own hyperparameters and would ignore {', '.join(changed)}. Leave these "
            f"arguments out to resume, or leave --ckpt_path out to start anew"
        )


def check_path(path: str) -> None:
    """Check that a checkpoint is a file here.

    Raises:
        ConfigError: if it is an address, or not there.
    """
    if not os.path.isfile(path):  # also where no file can have that name
        raise ConfigError(
            f"ckpt_path: got {shown(path)}, which is no file here; takes the path of a checkpoint, or 'last' for the newest run. "
            f"An address is never loaded: download it first"
        )


def _flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """``{"mlp": {"depth": 4}}`` to ``{"mlp.depth": 4}``, in values as a file has them."""
    flat: dict[str, Any] = {}
    for name, value in json.loads(json.dumps(values, default=_plain)).items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat


def _plain(value: object) -> Any:
    """What JSON takes for something that it does not take."""
    return vars(value) if isinstance(value, Namespace) else str(value)
