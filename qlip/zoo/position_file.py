"""A position as one file that says what it is, beside the checkpoint of the model it belongs to."""

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from qlip.core.position import Position, PositionMLP, TablePosition

POSITION_FILE = "qlip.safetensors"


def check_writable(position: Position) -> PositionMLP | TablePosition:
    """The position, if it can be written.

    Raises:
        TypeError: if it is a function of the user's own.
    """
    if not isinstance(position, PositionMLP | TablePosition):
        raise TypeError(
            f"position: got {type(position).__name__}; takes a PositionMLP or TablePosition. A function cannot be saved: "
            f"save the original model (qlip.restore) and convert it again after loading"
        )
    return position


def write_position(path: str | Path, position: Position) -> Path:
    """Write a position, whole or not at all.

    Raises:
        TypeError: see `check_writable`.
    """
    position = check_writable(position)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in position.state_dict().items()}
    path = Path(path)
    part = path.with_suffix(f".{os.getpid()}.part")
    metadata = {"format": "pt", "qlip": json.dumps(_describe(position))}
    part.write_bytes(safetensors.torch.save(tensors, metadata=metadata))
    part.replace(path)
    return path


def read_position(path: str | Path) -> PositionMLP | TablePosition:
    """Read what `write_position` wrote; strict, every tensor must be there.

    Raises:
        ValueError: if the file is something else.
    """
    with safetensors.safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if "qlip" not in metadata:
        raise ValueError(f"{path}: not written by qlip; takes the {POSITION_FILE} that a converted model saves")
    config = json.loads(metadata["qlip"])
    kind = config.pop("type")
    if kind == "TablePosition":
        return TablePosition(tensors["table"], config["mode"])
    with torch.device("meta"):  # shapes alone, and no draw from the caller's random state
        position = PositionMLP(**config)
    position.load_state_dict(tensors, assign=True)
    return position


def _describe(position: PositionMLP | TablePosition) -> dict[str, Any]:
    if isinstance(position, TablePosition):
        return {"type": "TablePosition", "mode": position.mode}
    return {
        "type": "PositionMLP",
        "dim": position.dim,
        "grid": position.grid,
        "hidden": position.readout.in_features,
        "depth": len(position.hidden),
        "fourier": position.frequencies.shape[0],
        "sigma": position.sigma,
    }
