"""Files and folders that are there whole or not at all, and their checksums.

A writer fills a hidden folder beside its place, and what it filled takes the place in one step of the operating system: a
reader sees the old or the new, never nothing or a half, and a kill leaves one of the two. A hidden folder is locked as long
as its writer lives; the next writer of the same place sweeps those that nobody holds. Everything that qlip writes to a
user's disk goes through here, except what is appended to.
"""

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, TypeVar

Read = TypeVar("Read")
REREADS = 20
PATIENCE = 15.0  # seconds that a writer waits for another one, which holds a place for milliseconds


@contextmanager
def replacing_file(path: Path | str) -> Iterator[Path]:
    """Give the path of a new file to write; on leaving, it takes the place of ``path``. On an exception the old one stays.

    Folders above ``path`` are made. The new file has the same name, in a hidden folder, and the usual permissions, whatever
    the writer gave it. A symbolic link is replaced, not what it points to.
    """
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(f"{path}: is a folder, in the place of a file that is to be written; move it away")
    with _hidden_beside(path) as hidden:
        new = hidden / path.name
        yield new
        new.chmod(hidden.stat().st_mode & 0o666)  # safetensors writes files that nobody else can read
        _flush(new)
        with _locked(path.parent):
            new.replace(path)
        _flush(path.parent)


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
def replacing_folder(folder: Path | str, ours: Sequence[str] | None = None) -> Iterator[Path]:
    """Give a new folder to fill; on leaving, it takes the place of ``folder``. On an exception the old one stays.

    Args:
        folder: Where it goes. Folders above it are made; a symbolic link stays, and what it points to is replaced.
        ours: Names or patterns (``model-*.safetensors``) of the files that the writer owns. Whatever else lies in the old
            folder, and is not written anew, is the user's and is there afterwards too. If not given, all of the old folder is
            replaced.

    Raises:
        OSError: if another process holds the place.
    """
    folder = Path(folder)
    if folder.is_symlink():
        folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: is a file, in the place of a folder that is to be written; move it away")
    with _hidden_beside(folder) as hidden:
        new = hidden / folder.name
        new.mkdir()
        yield new
        _flush_all(new)
        with _locked(folder.parent):
            _put(new, folder, ours)
    _flush(folder.parent)


@contextmanager
def making_folder(folder: Path | str) -> Iterator[Path]:
    """Give a new folder to fill; on leaving, it becomes ``folder``, unless another process made that one meanwhile.

    For what every process would fill with the same: the first to be done wins, and what the others filled is removed.
    """
    folder = Path(folder)
    with _hidden_beside(folder) as hidden:
        new = hidden / folder.name
        new.mkdir()
        yield new
        _flush_all(new)
        with _locked(folder.parent):
            if not folder.is_dir():  # else another process was faster
                new.rename(folder)
    _flush(folder.parent)


def open_regular(path: Path | str, most_bytes: int) -> BinaryIO:
    """Open a regular file to read; a pipe or a device is refused before it is read, which could take for ever.

    Raises:
        OSError: if it cannot be opened, is no regular file, or has more than ``most_bytes``.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
        os.close(descriptor)
        got = f"a file of {status.st_size:,} bytes" if stat.S_ISREG(status.st_mode) else "no regular file"
        raise OSError(f"got {got}; takes a regular file of at most {most_bytes:,} bytes")
    return os.fdopen(descriptor, "rb")


def read_whole(folder: Path | str, read: Callable[[], Read]) -> Read:
    """What ``read`` makes of the files in a folder, all of them of the same writer.

    Where a writer replaces the folder while it is being read, `replacing_folder`, files of the old one vanish, or are followed by
    those of the new one: it is then read again.

    Raises:
        Whatever ``read`` raises for a folder that nobody replaces.
    """
    for _ in range(REREADS):
        before = _identity(folder)
        try:
            value = read()
        except (OSError, ValueError):
            if _identity(folder) == before:
                raise
            continue
        if _identity(folder) == before:
            return value
    return read()


def _identity(folder: Path | str) -> tuple[int, int] | None:
    """What tells a folder from the one that takes its place; None if there is none."""
    try:
        status = os.stat(folder)
    except (OSError, ValueError):  # the latter for a name that no folder can have
        return None
    return status.st_dev, status.st_ino


def open_to_all(folder: Path) -> None:
    """Give the files in a folder the usual permissions, whatever wrote them."""
    usual = folder.stat().st_mode & 0o666
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(usual)


def sha256(path: Path | str) -> str:
    """Checksum of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def naming_place(path: Path) -> Iterator[None]:
    """Let an error of the system say which file or folder could not be written: of a full disk it does not.

    Raises:
        OSError: of the same class, naming the place.
    """
    try:
        yield
    except OSError as error:
        elsewhere = (
            isinstance(error.filename, str) and path.absolute().parent not in Path(error.filename).absolute().parents
        )
        if error.errno is None or not error.strerror or elsewhere:  # ours, or of what was read: they name their file
            raise
        raise type(error)(
            error.errno, f"{path} cannot be written ({error.strerror}); free the disk or take another place"
        ) from error


@contextmanager
def _hidden_beside(path: Path) -> Iterator[Path]:
    """What `_held_beside` gives, its errors with the place in them."""
    with naming_place(path), _held_beside(path) as hidden:
        yield hidden


@contextmanager
def _held_beside(path: Path) -> Iterator[Path]:
    """Give a hidden folder in the folder of ``path``, held for as long as the writer is at it, and remove it afterwards.

    Hidden folders of the same place that no process holds were left by dead ones, and are swept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):  # nobody may sweep between the next two steps
        _sweep(path)
        hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
        hidden.mkdir()
        holder = os.open(hidden, os.O_RDONLY)
        _hold(holder)
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        os.close(holder)


def _sweep(path: Path) -> None:
    """Remove what dead writers of ``path`` left; put back the old folder where one died between two renames."""
    for hidden in path.parent.iterdir():
        if not fnmatch(hidden.name, f".{_literal(path.name)}.????????.new"):
            continue
        with suppress(OSError):  # somebody else's, or gone by now
            holder = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if _hold(holder):
                    moved = hidden / _MOVED_AWAY
                    if moved.exists() and not path.exists():
                        moved.rename(path)
                    shutil.rmtree(hidden)
            finally:
                os.close(holder)


def _literal(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other writers out of a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + PATIENCE
        while not _hold(descriptor):
            if time.monotonic() > until:
                raise OSError(
                    f"{folder}: another process has been writing here for {PATIENCE:.0f} seconds; try again later"
                )
            time.sleep(0.002)
        yield
    finally:
        os.close(descriptor)  # gives the lock back


def _hold(descriptor: int) -> bool:
    """Take the lock of an open file or folder, if nobody else has it; a file system without locks has nobody else."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise
    return True


_MOVED_AWAY = ".old"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def _put(new: Path, folder: Path, ours: Sequence[str] | None) -> None:
    """Let ``new`` take the place of ``folder``; what was there, the user's files excepted, is left in the hidden folder."""
    if not folder.is_dir():
        new.rename(folder)  # fails where something other than a folder is in its place
        return
    if ours is not None:
        _keep_users_files(folder, new, ours)
    if _exchange(new, folder):
        return
    old = new.parent / _MOVED_AWAY
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        old.rename(folder)
        raise


def _keep_users_files(old: Path, new: Path, ours: Sequence[str]) -> None:
    """Link the user's files into the new folder too, so that they are there before and after it takes its place."""
    for path in old.iterdir():
        if not (new / path.name).exists() and not any(fnmatch(path.name, pattern) for pattern in ours):
            _link(path, new / path.name)


def _link(path: Path, new: Path) -> None:
    """A second name for a file, or for all files of a folder; a copy where the file system has no such thing."""
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, new, symlinks=True, copy_function=lambda old, name: _link(Path(old), Path(name)))
        return
    try:
        os.link(path, new, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, new, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _flush_all(folder: Path) -> None:
    """Wait until a folder and all that is in it are on the disk."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            _flush(path)


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
