"""A file of answers that survives a kill: whole lines are appended, and a torn one is cut off."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

from qlip.evaluation.benchmarks.base import Record
from qlip.files import naming_place, open_regular
from qlip.structured import DamagedFileError, check_fields, parse_json

BLOCK = 2**16
MAX_BYTES = 2**31


class Journal:
    """A file of JSON lines that is only ever appended to; every line is on the disk when `append` returns.

    Several processes may append to one journal: each takes a lock.

    Args:
        path: The file; made when first written.
        kind: The fields of a line with their types, a TypedDict that has an ``id``; if not given, those of an answer.
    """

    def __init__(self, path: str | Path, kind: type[Any] = Record) -> None:
        self.path = Path(path)
        self.kind = kind

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append one line for each record, all of them or, after a crash, whole lines up to the crash."""
        data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        with naming_place(self.path), self._locked() as file:
            end = _whole(file)
            try:
                while data:
                    data = data[os.write(file, data) :]
                os.fsync(file)
            except OSError:  # a full disk: another process may append before anybody recovers
                os.ftruncate(file, end)
                raise

    def recover(self) -> list[Any]:
        """All records, the first of each id; a line torn by a crash is cut off the file.

        Raises:
            ValueError: if a line other than the last is damaged, which no crash of ours can do.
        """
        if not self.path.is_file():
            return []
        with naming_place(self.path), self._locked() as file:
            content = _content(self.path)
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                os.ftruncate(file, whole)
                os.fsync(file)
        records: dict[str, Any] = {}
        for record in _records(content[:whole], self.path, self.kind):
            records.setdefault(record["id"], record)
        return list(records.values())

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)  # gives the lock back


def read_records(path: Path) -> list[Record]:
    """The records of a journal, the first of each id, a torn last line left out; the file is not touched.

    Raises:
        ValueError: if a line is damaged.
    """
    content = _content(path)
    records: dict[str, Record] = {}
    for record in _records(content[: content.rfind(b"\n") + 1], path, Record):
        records.setdefault(record["id"], record)
    return list(records.values())


def _whole(file: int) -> int:
    """Length of an open journal, which ends in a whole line; what a dead writer has torn is cut off first."""
    end = os.fstat(file).st_size
    while end and os.pread(file, 1, end - 1) != b"\n":
        before = max(end - BLOCK, 0)
        end = before + os.pread(file, end - before, before).rfind(b"\n") + 1 or before
    os.ftruncate(file, end)
    return end


def _content(path: Path) -> bytes:
    """What is in a journal.

    Raises:
        OSError: if it is no regular file, or larger than any of ours.
    """
    try:
        with open_regular(path, MAX_BYTES) as file:
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(f"{path}: cannot be read: {error.strerror or error}") from error


def _records(content: bytes, path: Path, kind: type[Any]) -> Iterator[Any]:
    """The records of whole lines, with the fields of ``kind``.

    Raises:
        ValueError: naming the line and field that is damaged.
    """
    kinds = get_type_hints(kind)
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        where = f"{path}: line {number}"
        try:
            record = check_fields(parse_json(line, where), where, kinds)
        except DamagedFileError as error:
            raise ValueError(f"{error}; put it right or start in a new folder") from error
        yield record
