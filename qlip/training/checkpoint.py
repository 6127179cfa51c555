"""Checkpoints that hold the coordinate MLP and leave the frozen CLIP where it came from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qlip.core.position import PositionMLP
from qlip.files import open_regular
from qlip.zoo.position_file import tensors_digest

PREFIX = "vision.position."  # where QlipModule has the network
MAX_BYTES = 2**33
_DIGEST = "qlip_sha256"


def trained_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors of a module's state that training changes."""
    return {name: tensor for name, tensor in state.items() if name.startswith(PREFIX)}


def seal(checkpoint: dict[str, Any]) -> None:
    """Note the sha256 of all of a checkpoint's tensors in it, those of the optimiser included."""
    checkpoint[_DIGEST] = tensors_digest(dict(_tensors(checkpoint)))


def check(checkpoint: dict[str, Any], position: PositionMLP) -> None:
    """Check that a checkpoint is whole and holds the tensors of this network and no others.

    Raises:
        ValueError: if a tensor is missing or there is one too many, or values are not finite or not those that were written.
    """
    state = checkpoint["state_dict"]
    wanted = {f"{PREFIX}{name}" for name in position.state_dict()}
    if wanted != state.keys():
        different = ", ".join(sorted(wanted ^ state.keys()))
        raise ValueError(f"ckpt_path: tensors differ from the configured MLP: {different}")
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise ValueError(f"ckpt_path: {name} holds values that are not finite; go on from an earlier checkpoint")
    if _DIGEST in checkpoint and checkpoint[_DIGEST] != tensors_digest(dict(_tensors(checkpoint))):  # 0.1 wrote none
        raise ValueError(
            "ckpt_path: damaged, its tensors are not those that were written (sha256); take another checkpoint"
        )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of Lightning's; nothing in it is run.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged or something else.
    """
    try:
        file = open_regular(path, MAX_BYTES)
    except OSError as error:
        raise type(error)(f"ckpt_path: {path} cannot be read: {error.strerror or error}") from error
    try:
        with file:
            held = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # torch, pickle, zip and the system raise of every kind for a damaged file
        why = _first_sentence(error)
        raise ValueError(f"ckpt_path: {path} is damaged or no checkpoint ({why}); take another") from error
    kinds = {"state_dict": dict, "hyper_parameters": dict}
    if not isinstance(held, dict) or not all(isinstance(held.get(name), kind) for name, kind in kinds.items()):
        raise ValueError(f"ckpt_path: {path} holds something else; takes a checkpoint of `qlip fit`")
    return held


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested containers, each with its place."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(inner, f"{name}.{key}")


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0][:200] or type(error).__name__
