"""Files and folders that are there whole or not at all, and their checksums.

A writer fills something beside its place and renames it into place, so a reader sees the old one or the new one and a
kill leaves one of the two. Everything that is written to a user's disk goes through here.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing_file(path: Path | str) -> Iterator[Path]:
    """Give the path of a new file to write; on leaving, it takes the place of ``path``. On an exception the old one stays."""
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
    """Replace the file's content in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Replace the file's content by indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def replacing_folder(folder: Path | str, ours: tuple[str, ...] | None = None) -> Iterator[Path]:
    """Give a new folder to fill; on leaving, it takes the place of ``folder``. On an exception the old one stays.

    Args:
        folder: Where it goes; parents are made.
        ours: Names of the files that a writer owns; whatever else lies in the old folder is the user's and moves along. All
            of it is replaced if not given.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(folder)
    new.mkdir()
    try:
        yield new
        for path in [*new.rglob("*"), new]:
            _flush(path)
        _swap(new, folder, ours)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # gone already, unless something failed
    _flush(folder.parent)


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
    if ours is not None:
        for path in [path for path in old.iterdir() if path.name not in ours]:
            path.rename(folder / path.name)
    shutil.rmtree(old)


def sha256(path: Path | str) -> str:
    """Checksum of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path) -> Path:
    """A hidden name in the same folder that nobody else uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
