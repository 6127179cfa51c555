"""Files and folders are there whole or not at all, whatever happens while they are written."""

import ast
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import qlip.files
from qlip.files import (
    making_folder,
    replacing_file,
    replacing_folder,
    sha256,
    write_bytes,
    write_json,
    write_text,
)

ROOT = Path(__file__).parents[1]


def stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("old")
    return tmp_path / "file"


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("old")
    (tmp_path / "folder" / "b").write_text("old")
    return tmp_path / "folder"


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_replaced_and_nothing_is_left_behind(old_file: Path) -> None:
    with replacing_file(old_file) as new:
        new.write_text("new")
        assert old_file.read_text() == "old"
        assert new.parent == old_file.parent
    assert content(old_file.parent) == {"file": "new"}


@pytest.mark.parametrize(("place", "step"), [(Path, "write_bytes"), (qlip.files, "_flush"), (Path, "replace")])
def test_the_old_file_stays_on_an_exception(
    old_file: Path, place: object, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, step, stop)
    with pytest.raises(KeyboardInterrupt):
        write_text(old_file, "half")
    assert content(old_file.parent) == {"file": "old"}


def test_folders_above_a_file_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "file", "new")
    assert content(tmp_path) == {"a/b/file": "new"}


def test_contents(tmp_path: Path) -> None:
    write_bytes(tmp_path / "bytes", b"\0\r\n")
    write_text(str(tmp_path / "text"), "é\r\n")
    write_json(tmp_path / "json", {"é": [1, None]})
    assert (tmp_path / "bytes").read_bytes() == b"\0\r\n"
    assert (tmp_path / "text").read_bytes() == "é\r\n".encode()
    assert (tmp_path / "json").read_text(encoding="utf-8") == '{\n  "é": [\n    1,\n    null\n  ]\n}\n'


def test_what_json_cannot_hold_leaves_the_old_file(old_file: Path) -> None:
    with pytest.raises(TypeError):
        write_json(old_file, {1, 2})
    assert old_file.read_text() == "old"


def test_a_file_may_be_read_by_all_who_may_read_its_neighbours(old_file: Path) -> None:
    mode = old_file.stat().st_mode
    write_text(old_file, "new")
    assert old_file.stat().st_mode == mode


def test_a_reader_beside_a_writer_sees_the_old_file_or_the_new_one(old_file: Path) -> None:
    contents = ["a" * 300_000, "b" * 200_000]
    write_text(old_file, contents[0])
    seen, done = set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(old_file.read_text())  # raises, and is missed below, if there is no file

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(100):
        write_text(old_file, contents[turn % 2])
    alive = reader.is_alive()
    done.set()
    reader.join()
    assert alive
    assert seen <= set(contents)


WRITER = """
import itertools, sys
from qlip.files import replacing_folder
for turn in itertools.count():
    with replacing_folder(sys.argv[1], ("a", "b")) as new:
        for name in ("a", "b"):
            (new / name).write_text(str(turn) * 10_000)
    print(turn, flush=True)
"""


def test_a_killed_writer_leaves_a_whole_folder(old_folder: Path) -> None:
    (old_folder / "notes").write_text("mine")
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(old_folder)], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()  # it is under way
        time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    places = [path for path in old_folder.parent.iterdir() if (path / "a").is_file() and (path / "b").is_file()]
    whole = [path for path in places if (path / "a").read_text() == (path / "b").read_text() != ""]
    assert whole
    if old_folder.is_dir():  # not killed between the two renames
        assert (old_folder / "a").read_text() == (old_folder / "b").read_text() != ""
    assert [path.read_text() for path in old_folder.parent.rglob("notes")] == ["mine"]


def test_a_folder_is_replaced_and_nothing_is_left_behind(old_folder: Path) -> None:
    with replacing_folder(old_folder) as new:
        (new / "a").write_text("new")
        (new / "deep").mkdir()
        (new / "deep" / "c").write_text("new")
        assert content(old_folder) == {"a": "old", "b": "old"}
    assert content(old_folder.parent) == {"folder/a": "new", "folder/deep/c": "new"}


def test_files_of_the_user_move_along(old_folder: Path) -> None:
    (old_folder / "notes").write_text("mine")
    (old_folder / "more").mkdir()
    (old_folder / "more" / "notes").write_text("mine")
    with replacing_folder(old_folder, ours=("a", "b")) as new:
        (new / "a").write_text("new")
    assert content(old_folder.parent) == {"folder/a": "new", "folder/notes": "mine", "folder/more/notes": "mine"}


def test_a_linked_folder_is_replaced_behind_the_link(old_folder: Path, tmp_path: Path) -> None:
    (old_folder / "notes").write_text("mine")
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(old_folder)
    with replacing_folder(link, ours=("a", "b")) as new:
        (new / "a").write_text("new")
    assert link.is_symlink()
    assert content(old_folder) == {"a": "new", "notes": "mine"}
    assert os.listdir(link.parent) == ["link"]


@pytest.mark.parametrize("step", ["write_bytes", "_flush", "_swap"])
def test_the_old_folder_stays_on_an_exception(old_folder: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qlip.files, step, stop)
    with pytest.raises(KeyboardInterrupt), replacing_folder(old_folder) as new:
        qlip.files.write_text(new / "a", "half")
    assert content(old_folder.parent) == {"folder/a": "old", "folder/b": "old"}


def test_a_failure_between_the_two_renames_puts_the_old_folder_back(
    old_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, failed = Path.rename, []

    def fail_on_the_second(path: Path, target: Path) -> Path:
        if target == old_folder and not failed:
            failed.append(path)
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_second)
    with pytest.raises(KeyboardInterrupt), replacing_folder(old_folder) as new:
        (new / "a").write_text("new")
    assert failed
    assert content(old_folder.parent) == {"folder/a": "old", "folder/b": "old"}


def test_nothing_is_visible_before_all_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, flush = [], qlip.files._flush

    def look(path: Path) -> None:
        seen.append((tmp_path / "new").exists())
        flush(path)

    monkeypatch.setattr(qlip.files, "_flush", look)
    with replacing_folder(tmp_path / "new") as new:
        (new / "a").write_text("new")
        (new / "deep").mkdir()
        (new / "deep" / "c").write_text("new")
    assert seen == [False] * 4 + [True]  # two files, two folders; then the folder above


def test_a_made_folder_appears_whole_and_once(tmp_path: Path) -> None:
    with making_folder(tmp_path / "above" / "folder") as slow:
        (slow / "a").write_text("slow")
        with making_folder(tmp_path / "above" / "folder") as fast:
            (fast / "a").write_text("fast")
    assert content(tmp_path) == {"above/folder/a": "fast"}
    assert os.listdir(tmp_path / "above") == ["folder"]


def test_a_folder_that_cannot_be_made_leaves_nothing(old_file: Path) -> None:
    with pytest.raises(OSError, match=r"file"), making_folder(old_file) as new:
        (new / "a").write_text("new")
    assert content(old_file.parent) == {"file": "old"}


def test_the_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == sha256(str(tmp_path / "file")) == hashlib.sha256(data).hexdigest()


# Calls that a source outside `qlip.files` has no need of. `str.replace` looks like `Path.replace`, so that one is left out.
BY_HAND = {"write_text", "write_bytes", "rename", "mkdtemp", "file_digest"}
EXCEPT = {"qlip/files.py", "qlip/evaluation/benchmarks/pocket.py"}  # the latter fills the folder of a `making_folder`
SOURCES = sorted(path for folder in ("qlip", "recipes") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_written_by_hand(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() in EXCEPT:
        return
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    used = {f"line {call.lineno}: .{call.attr}" for call in calls if getattr(call, "attr", None) in BY_HAND}
    assert not used, "use qlip.files"
