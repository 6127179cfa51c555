"""Files and folders that are there whole or not at all, and their checksums.

A writer fills something beside its place, under a hidden name, and renames it into place. A reader of a file sees the old
one or the new one, and a kill leaves one of the two. A folder that takes the place of another is moved in by two renames:
for a moment there is neither, and a kill in that moment leaves the old one beside its place, under its hidden name.
Everything that qlip writes to a user's disk goes through here, except what is appended to.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_file(path: Path | str) -> Iterator[Path]:
    """Give the path of a new file to write; on leaving, it takes the place of ``path``. On an exception the old one stays.

    Folders above ``path`` are made. The new file's name does not end as ``path`` does, so a writer that goes by the ending
    (PIL, matplotlib) must be told the format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(path)
    try:
        yield new
        _flush(new)
        new.replace(path)
        _flush(path.parent)
    finally:
        new.unlink(missing_ok=True)  # gone already, unless something failed


def write_bytes(path: Path | str, data: bytes) -> None:
    """Replace the file's content, whole or not at all."""
    with replacing_file(path) as new:
        new.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Replace the file's content in UTF-8, whole or not at all; line ends stay as they are."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: object) -> None:
    """Replace the file's content by indented JSON in UTF-8, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def replacing_folder(folder: Path | str, ours: tuple[str, ...] | None = None) -> Iterator[Path]:
    """Give a new folder to fill; on leaving, it takes the place of ``folder``. On an exception the old one stays.

    Args:
        folder: Where it goes. Folders above it are made; a symbolic link stays, and what it points to is replaced.
        ours: Names of the files that the writer owns. Whatever else lies in the old folder is the user's and moves along.
            If not given, all of the old folder is replaced.
    """
    folder = Path(folder)
    if folder.is_symlink():
        folder = folder.resolve()
    with _filled_beside(folder) as new:
        yield new
        _flush_all(new)
        _swap(new, folder, ours)
    _flush(folder.parent)


@contextmanager
def making_folder(folder: Path | str) -> Iterator[Path]:
    """Give a new folder to fill; on leaving, it becomes ``folder``, unless another process made that one meanwhile.

    For what every process would fill with the same: the first to be done wins, and what the others filled is removed.
    """
    folder = Path(folder)
    with _filled_beside(folder) as new:
        yield new
        _flush_all(new)
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    _flush(folder.parent)


def sha256(path: Path | str) -> str:
    """Checksum of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _filled_beside(folder: Path) -> Iterator[Path]:
    """Give a new folder beside ``folder``, and remove it on leaving if it is still there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(folder)
    new.mkdir()
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)  # gone already, unless something failed


def _swap(new: Path, folder: Path, ours: tuple[str, ...] | None) -> None:
    """Move ``folder`` away and ``new`` into its place; a failure half-way puts the old one back."""
    if not folder.exists():
        new.rename(folder)
        return
    old = _beside(folder)
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    kept = [] if ours is None else [path for path in old.iterdir() if path.name not in ours]
    for path in kept:
        path.rename(folder / path.name)
    shutil.rmtree(old)


def _beside(path: Path) -> Path:
    """A hidden name in the same folder that nobody else uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def _flush_all(folder: Path) -> None:
    """Wait until a folder and all that is in it are on the disk."""
    for path in [*folder.rglob("*"), folder]:
        _flush(path)


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
