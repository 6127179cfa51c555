"""A file of answers that survives a kill: whole lines are appended, and a torn one is cut off."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

from qlip.evaluation.benchmarks.base import Record
from qlip.structured import DamagedFileError, check_fields, parse_json

_KINDS = get_type_hints(Record)


class Journal:
    """A file of JSON lines that is only ever appended to; every line is on the disk when `append` returns.

    Several processes may append to one journal: each takes a lock.

    Args:
        path: The file; made when first written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, records: Iterable[Record]) -> None:
        """Append one line for each record, all of them or, after a crash, whole lines up to the crash."""
        data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        with self._locked() as file:
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)

    def recover(self) -> list[Record]:
        """All records, the first of each id; a line torn by a crash is cut off the file.

        Raises:
            ValueError: if a line other than the last is damaged, which no crash of ours can do.
        """
        if not self.path.is_file():
            return []
        with self._locked() as file:
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                os.ftruncate(file, whole)
                os.fsync(file)
        records: dict[str, Record] = {}
        for record in _records(content[:whole], self.path):
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
    content = path.read_bytes()
    records: dict[str, Record] = {}
    for record in _records(content[: content.rfind(b"\n") + 1], path):
        records.setdefault(record["id"], record)
    return list(records.values())


def _records(content: bytes, path: Path) -> Iterator[Record]:
    """The records of whole lines.

    Raises:
        ValueError: naming the line and field that is damaged.
    """
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        where = f"{path}: line {number}"
        try:
            record: Any = check_fields(parse_json(line, where), where, _KINDS)
        except DamagedFileError as error:
            raise ValueError(f"{error}; put it right or start in a new folder") from error
        yield record
