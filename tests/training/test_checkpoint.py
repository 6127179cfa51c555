"""Checkpoints are read as data, and what is damaged in one is named."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qlip.core.position import PositionMLP
from qlip.training.checkpoint import PREFIX, check, read_checkpoint, seal
from qlip.zoo.position_file import tensors_digest


def position() -> PositionMLP:
    return PositionMLP(8, 4, hidden=16, depth=2, fourier=3)


def checkpoint(of: PositionMLP) -> dict[str, Any]:
    state = {f"{PREFIX}{name}": tensor.clone() for name, tensor in of.state_dict().items()}
    moments = {"exp_avg": torch.zeros(3), "step": torch.tensor(2.0)}
    return {"state_dict": state, "hyper_parameters": {"lr": 1e-3}, "optimizer_states": [{"state": {0: moments}}]}


BIAS = f"{PREFIX}readout.bias"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c["state_dict"].pop(BIAS), "tensors differ from the configured MLP: .*readout.bias"),
        (lambda c: c["state_dict"].update(more=torch.zeros(1)), "tensors differ from the configured MLP: more"),
        (lambda c: c["state_dict"][BIAS].fill_(torch.nan), "readout.bias holds values that are not finite"),
        (lambda c: c["state_dict"][BIAS].add_(1e-6), "not those that were written"),
        (lambda c: c["optimizer_states"][0]["state"][0]["exp_avg"].add_(1), "not those that were written"),
    ],
)
def test_what_is_wrong_in_a_checkpoint_is_named(damage: Callable[[dict], object], message: str, tmp_path: Path) -> None:
    of = position()
    held = checkpoint(of)
    check(held, of)  # as 0.1 wrote it, without a checksum
    seal(held)
    torch.save(held, tmp_path / "last.ckpt")
    check(read_checkpoint(tmp_path / "last.ckpt"), of)
    damage(held)
    with pytest.raises(ValueError, match=f"^ckpt_path: .*{message}"):
        check(held, of)


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_what_is_no_checkpoint_is_refused_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    held = checkpoint(position())
    torch.save(held, path)
    whole = path.read_bytes()
    torch.save({**held, "more": Malice(tmp_path / "run")}, path)
    malicious = path.read_bytes()
    torch.save([1], path)
    for content in (b"", b"nonsense", whole[:-100], whole[: len(whole) // 2], malicious, path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^ckpt_path: {re.escape(str(path))} (is damaged|holds something else)"):
            read_checkpoint(path)
    assert not (tmp_path / "run").exists()
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing.ckpt", "."):
        with pytest.raises(OSError, match=f"ckpt_path: {re.escape(str(tmp_path / name))}"):
            read_checkpoint(tmp_path / name)


def test_the_digest_covers_names_shapes_and_values() -> None:
    digests = {
        tensors_digest(tensors)
        for tensors in (
            {"a": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, {"b": torch.zeros(2, 3)}, {"a": torch.zeros(2, 3).half()},
            {"a": torch.ones(2, 3)},
        )
    }  # fmt: skip
    assert len(digests) == 5
