"""Entries on disk: a folder with ``config.json``, ``model.safetensors`` and ``README.md``, whole or not there at all."""

from pathlib import Path

import torch

from qlip.core.position import PositionMLP
from qlip.files import read_whole, replacing_folder, write_text
from qlip.zoo.card import model_card
from qlip.zoo.config import EntryError, ZooConfig
from qlip.zoo.entries import CARD, CONFIG, FILES, WEIGHTS
from qlip.zoo.position_file import describe, read_position, write_position


def save(position: PositionMLP, folder: Path | str, config: ZooConfig) -> Path:
    """Write an entry; one that is already there is replaced whole. Never touches the network.

    Raises:
        ValueError: if the position is not float32 and finite, or is not the one that ``config`` describes.
        FileExistsError: see `check_target`.
    """
    for name, tensor in position.state_dict().items():
        if tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise ValueError(f"position: {name} is {tensor.dtype}, {_finiteness(tensor)}; takes finite float32 values")
    for key, value in describe(position).items():
        if config.description.get(key) != value:
            raise ValueError(
                f"config.{key}: got {config.description.get(key)!r} for a position whose {key} is {value!r}"
            )
    folder = Path(folder)
    check_target(folder)
    with replacing_folder(folder, FILES) as new:
        config.write(new / CONFIG)
        write_position(new / WEIGHTS, position)
        write_text(new / CARD, model_card(config, folder.name))
    return folder


def load_folder(folder: Path | str) -> PositionMLP:
    """Read an entry. Strict: every tensor must be there, none more, each of its shape and dtype.

    Raises:
        EntryError: naming the file, key or tensor that is wrong.
    """
    return read_whole(folder, lambda: _load(Path(folder)))


def _load(folder: Path) -> PositionMLP:
    config, path = ZooConfig.read(folder / CONFIG), folder / WEIGHTS
    if not path.is_file():
        raise EntryError(f"{path}: not there; an entry keeps its weights in {WEIGHTS}, no other format is read")
    try:
        position = read_position(path, config.description)
    except ValueError as error:
        raise EntryError(str(error)) from error
    if not isinstance(position, PositionMLP):
        raise EntryError(f"{path}: holds a {type(position).__name__}; an entry holds a PositionMLP")
    dtype = position.frequencies.dtype
    if dtype != torch.float32:
        raise EntryError(f"{path}: its tensors are {dtype}; those of an entry should be {torch.float32}")
    return position


def check_target(folder: Path | str) -> None:
    """Check that an entry may be written here; a training calls it before it starts.

    Raises:
        FileExistsError: if something is there that is no zoo entry, and would be lost.
    """
    folder = Path(folder)
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        try:
            ZooConfig.read(folder / CONFIG)
        except (EntryError, NotADirectoryError) as error:
            raise FileExistsError(
                f"folder: got {folder}, which exists and is no zoo entry ({error}); choose another name or remove it"
            ) from error


def _finiteness(tensor: torch.Tensor) -> str:
    return "finite" if tensor.isfinite().all() else "not finite"
