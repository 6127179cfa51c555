"""Files and folders are there whole or not at all, whatever happens while they are written."""

import ast
import hashlib
import os
import re
import subprocess
import sys
import threading
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
        assert new.name == "file"
        assert new.parent.parent == old_file.parent
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


@pytest.mark.parametrize("step", ["write_bytes", "_flush", "_put"])
def test_the_old_folder_stays_on_an_exception(old_folder: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qlip.files, step, stop)
    with pytest.raises(KeyboardInterrupt), replacing_folder(old_folder) as new:
        qlip.files.write_text(new / "a", "half")
    assert content(old_folder.parent) == {"folder/a": "old", "folder/b": "old"}


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that cannot let two folders change places."""
    monkeypatch.setattr(qlip.files, "_exchange", lambda *_: False)


@pytest.mark.usefixtures("without_exchange")
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


@pytest.mark.usefixtures("without_exchange")
def test_a_folder_is_replaced_by_two_renames_too(old_folder: Path) -> None:
    (old_folder / "notes").write_text("mine")
    with replacing_folder(old_folder, ours=("a", "b")) as new:
        (new / "a").write_text("new")
    assert content(old_folder.parent) == {"folder/a": "new", "folder/notes": "mine"}


def test_a_file_in_the_place_of_a_folder_stays(old_file: Path) -> None:
    for make in (replacing_folder, making_folder):
        with pytest.raises(OSError, match=r"file"), make(old_file) as new:
            (new / "a").write_text("new")
    assert content(old_file.parent) == {"file": "old"}


def test_users_files_are_linked_and_not_copied(old_folder: Path) -> None:
    """The weights of a large model lie beside what a processor saves."""
    (old_folder / "deep").mkdir()
    for name in ("weights", "deep/weights"):
        (old_folder / name).write_text("mine")
    (old_folder / "dangling").symlink_to("gone")
    before = [(old_folder / name).stat().st_ino for name in ("weights", "deep/weights")]
    with replacing_folder(old_folder, ours=("[ab]",)) as new:
        (new / "a").write_text("new")
    assert [(old_folder / name).stat().st_ino for name in ("weights", "deep/weights")] == before
    assert (old_folder / "dangling").is_symlink()
    assert not (old_folder / "b").exists()


def test_where_links_cannot_be_made_files_are_copied(old_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    (old_folder / "notes").write_text("mine")
    with replacing_folder(old_folder, ours=("a", "b")) as new:
        (new / "a").write_text("new")
    assert content(old_folder.parent) == {"folder/a": "new", "folder/notes": "mine"}


def test_a_file_that_its_writer_closed_to_others_gets_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with replacing_file(tmp_path / "file") as new:
        new.touch(0o600)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_name_with_signs_of_patterns_sweeps_its_own_alone(tmp_path: Path) -> None:
    for name in (".a[b].12345678.new", ".ab.12345678.new", ".a[b].12345678"):
        (tmp_path / name).mkdir()
    write_text(tmp_path / "a[b]", "new")
    assert sorted(os.listdir(tmp_path)) == [".a[b].12345678", ".ab.12345678.new", "a[b]"]


def test_a_place_that_somebody_holds_is_an_error_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qlip.files, "PATIENCE", 0.1)
    with qlip.files._locked(tmp_path), pytest.raises(OSError, match="another process has been writing here"):
        write_text(tmp_path / "file", "new")


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


# Saves, and dies before its k-th operation on the file system, which is after the one before; prints k if it is done by then.
DYING = """
import os, sys
from qlip import files
how, place, k, exchange = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "exchange"
if not exchange:
    files._exchange = lambda *_: False
count = 0
def die(event, args):
    global count
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.listdir", "os.scandir", "os.chmod"):
        if event == "open" and not str(args[0]).startswith(os.path.dirname(place)):
            return
        count += 1
        if count == k:
            os._exit(9)
import glob, shutil, fnmatch, uuid, ctypes.util  # what is imported on the way is no operation of ours
sys.addaudithook(die)
if how == "file":
    files.write_text(place, "new")
else:
    make = files.making_folder if how == "made" else lambda path: files.replacing_folder(path, ("a", "b"))
    with make(place) as new:
        for name in ("a", "b"):
            with open(new / name, "w") as file:
                file.write("n")
                file.flush()
                os.chmod(file.name, 0o644)  # a place to die in the middle of a file
                file.write("ew")
print(count)
"""


def dying(how: str, place: Path, k: int, exchange: str) -> bool:
    """Whether the process died at operation ``k``."""
    command = [sys.executable, "-c", DYING, how, str(place), str(k), exchange]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode in (0, 9), done.stderr
    return done.returncode == 9


@pytest.mark.parametrize("exchange", ["exchange", "two renames"])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("how", ["file", "folder", "made"])
def test_a_kill_at_any_operation_leaves_the_old_or_the_new(
    how: str, there: bool, exchange: str, tmp_path: Path
) -> None:
    if exchange != "exchange" and not (how == "folder" and there):
        pytest.skip("makes no difference")
    old = {} if not there else {"": "old"} if how == "file" else {"a": "old", "b": "old", "notes": "mine"}
    new = {"": "new"} if how == "file" else {"a": "new", "b": "new"} | ({"notes": "mine"} if there else {})
    if how == "made" and there:
        new = old
    k, died, seen = 0, True, []
    while died:
        k += 1
        place = tmp_path / str(k) / "place"
        for name, text in old.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
        place.parent.mkdir(exist_ok=True)
        died = dying(how, place, k, exchange)
        found = {"": place.read_text()} if place.is_file() else content(place) if place.is_dir() else {}
        seen.append(found)
        if exchange == "exchange":
            assert found in (old, new), k
        if how == "file":
            write_text(place, "next")
        else:
            with replacing_folder(place, ("a", "b")) as again:
                (again / "a").write_text("next")
        left = content(place.parent)
        notes = {"place/notes": "mine"} if how != "file" and there else {}
        assert left == ({"place": "next"} if how == "file" else {"place/a": "next"}) | notes, k
        assert os.listdir(place.parent) == ["place"], k
    assert k > (5 if how == "made" and there else 8)
    assert seen[0] == old
    assert seen[-1] == new


WRITER = """
import sys
from qlip.files import replacing_file, replacing_folder
place, mark = sys.argv[1:]
for turn in range(60):
    with replacing_folder(place, ("a", "b")) as new:
        for name in ("a", "b"):
            (new / name).write_text(mark * 100_000)
    with replacing_file(place + ".json") as new:
        new.write_text(mark * 100_000)
"""


def test_two_writers_beside_a_reader(old_folder: Path) -> None:
    (old_folder / "notes").write_text("mine")
    write_text(f"{old_folder}.json", "old")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(old_folder), mark], cwd=ROOT) for mark in "xy"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen |= {path.read_text() for path in (old_folder / "a", old_folder / "b", Path(f"{old_folder}.json"))}
        assert (old_folder / "notes").read_text() == "mine"
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {"old", "x" * 100_000, "y" * 100_000}
    assert (old_folder / "a").read_text() == (old_folder / "b").read_text()
    assert sorted(os.listdir(old_folder.parent)) == ["folder", "folder.json"]


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


def test_an_error_about_another_file_names_that_one(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    missing = tmp_path / "sources" / "weights"
    with (
        pytest.raises(FileNotFoundError, match=re.escape(f"'{missing}'")),
        replacing_folder(tmp_path / "out" / "model", ()),
    ):
        missing.read_bytes()
