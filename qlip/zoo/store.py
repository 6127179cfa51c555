"""Entries on disk: a folder with ``config.json``, ``model.safetensors`` and ``README.md``, whole or not there at all."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qlip.zoo.card import model_card
from qlip.zoo.config import EntryError, ZooConfig, architecture

if TYPE_CHECKING:  # `qlip zoo list` does not wait for torch; what reads and writes weights imports it
    import torch

    from qlip.core.position import PositionMLP

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)


def save(position: "PositionMLP", folder: Path | str, config: ZooConfig) -> Path:
    """Write an entry; one that is already there is replaced whole. Never touches the network.

    Raises:
        ValueError: if the position is not float32 and finite, or is not the one that ``config`` describes.
        FileExistsError: see `check_target`.
    """
    import safetensors.torch
    import torch

    for name, tensor in position.state_dict().items():
        if tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise ValueError(f"position: {name} is {tensor.dtype}, {_finiteness(tensor)}; takes finite float32 values")
    for key, value in architecture(position).items():
        if getattr(config, key) != value:
            raise ValueError(f"config.{key}: got {getattr(config, key)!r} for a position whose {key} is {value!r}")
    folder = Path(folder)
    with replacing(folder) as new:
        config.write(new / CONFIG)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in position.state_dict().items()}
        (new / WEIGHTS).write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
        (new / CARD).write_text(model_card(config, folder.name), encoding="utf-8")
    return folder


def load_folder(folder: Path | str) -> "PositionMLP":
    """Read an entry. Strict: every tensor must be there, none more, each of its shape and dtype.

    Raises:
        EntryError: naming the file, key or tensor that is wrong.
    """
    import safetensors.torch
    import torch
    from safetensors import SafetensorError

    from qlip.core.position import PositionMLP

    folder = Path(folder)
    config = ZooConfig.read(folder / CONFIG)
    with torch.device("meta"):  # shapes alone, and no draw from the caller's random state
        position = PositionMLP(**config.architecture)
    path = folder / WEIGHTS
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise EntryError(
            f"{path}: not there; an entry keeps its weights in {WEIGHTS}, no other format is read"
        ) from error
    except SafetensorError as error:
        raise EntryError(f"{path}: damaged ({error}); fetch or export the entry again") from error
    expected = position.state_dict()
    for problem, names in (("missing", expected.keys() - tensors), ("unknown", tensors.keys() - expected)):
        if names:
            raise EntryError(f"{path}: {problem} tensors {', '.join(sorted(names))}")
    for name, tensor in tensors.items():
        wanted = expected[name]
        if (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
            raise EntryError(
                f"{path}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; by {CONFIG} it should be "
                f"{wanted.dtype} of shape {tuple(wanted.shape)}"
            )
    position.load_state_dict(tensors, assign=True)
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


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give a new folder to fill; on leaving, it takes the place of ``folder``. On an exception the old one stays.

    Other files that the user put into the old entry move along.

    Raises:
        FileExistsError: see `check_target`.
    """
    check_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex[:8]
    new, old = (folder.parent / f".{folder.name}.{token}.{state}" for state in ("new", "old"))
    new.mkdir()
    try:
        yield new
        for path in [*new.iterdir(), new]:
            _fsync(path)
        _swap(new, folder, old)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # gone already, unless something failed
    _fsync(folder.parent)


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Move ``folder`` away to ``old`` and ``new`` into its place; a failure half-way puts the old one back."""
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    for path in old.iterdir():
        if path.name not in FILES:
            path.rename(folder / path.name)
    shutil.rmtree(old)


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local_entries(root: Path | str = "checkpoints") -> list[str]:
    """Names of the entries in ``root``, sorted; what is half written or no entry is left out."""
    root = Path(root)
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [x.name for x in folders if not x.name.startswith(".") and all((x / f).is_file() for f in (CONFIG, WEIGHTS))]


def _finiteness(tensor: "torch.Tensor") -> str:
    return "finite" if tensor.isfinite().all() else "not finite"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
