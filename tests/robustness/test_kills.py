"""Writers that are killed at any operation on the file system, and two of them beside a reader: the old or the new, whole."""

import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from qlip import PositionMLP, QlipImageProcessor, Quadtree, convert
from qlip.data.pictures import drawn
from qlip.evaluation.config import ReportConfig
from qlip.evaluation.journal import Journal
from qlip.evaluation.report.report import write_report
from qlip.evaluation.results import RESULT
from qlip.files import write_json, write_text
from qlip.tools.tune import Line
from qlip.towers.synthetic import random_clip
from qlip.training.targets import load_or_compute
from qlip.zoo.load import pull
from qlip.zoo.store import load_folder, save
from tests.evaluation.fake_answers import make_run
from tests.robustness.campaign import Campaign
from tests.robustness.test_files import records
from tests.training.conftest import draw_photos
from tests.zoo.helpers import describe, same, tiny_position

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.listdir", "os.scandir", "os.chmod", "os.truncate", "shutil.rmtree", "fcntl.flock")  # fmt: skip
KILLED = 9
NEVER = ["what no message says: a reader beside writers is never refused"]

_countdown: list[int] = []  # operations that are left; empty outside of a child
_place = ""


def _die(event: str, args: tuple[Any, ...]) -> None:
    """Die when the countdown is over; what happens elsewhere, such as imports, does not count."""
    if not _countdown or event not in EVENTS or (event == "open" and not str(args[0]).startswith(_place)):
        return
    _countdown[0] -= 1
    if not _countdown[0]:
        os._exit(KILLED)


def in_child(work: Callable[[], object], operations: int | None = None) -> int:
    """Run in a child process, which dies before its n-th operation if that is given; returns its exit status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            if operations is not None:
                _countdown.append(operations)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def after(seconds: float, work: Callable[[], object]) -> int:
    """Run in a child process that is killed after a time; returns its exit status."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@dataclass(frozen=True)
class Writer:
    """Something that writes.

    Attributes:
        old: Makes what is there before; takes the place.
        new: Writes to the place.
        appends: Whether what is there before stays and more of the same comes behind it.
    """

    old: Callable[[Path], object]
    new: Callable[[Path], object]
    appends: bool = False


def entry(seed: int, place: Path) -> None:
    position = tiny_position(seed)
    save(position, place / "entry", describe(position, metrics={"R": seed / 7}))


def with_notes(write: Callable[[Path], object], place: Path) -> None:
    write(place)
    for folder in (path for path in place.iterdir() if path.is_dir()):
        (folder / "notes.txt").write_text("the user's own")


def model(seed: int, place: Path) -> None:
    converted, processor = (
        convert(random_clip(32, 1, image_size=56, seed=seed), position="bicubic"),
        QlipImageProcessor(56),
    )
    converted.save_pretrained(place / "model")
    processor.save_pretrained(place / "model")


def report(title: str, place: Path) -> None:
    from qlip.evaluation.report import report as module

    module.our_sections = lambda *_: [module.Section(title, "text", [])]  # figures take seconds
    write_report(ReportConfig(RUNS, place / "report", paper=Path("nowhere")))


RUNS = Path("runs")


def targets(count: int, place: Path) -> None:
    files = sorted(Path("photos").glob("*"))[:count]
    view = QlipImageProcessor(56, "square", Quadtree(criterion="uniform"))
    load_or_compute(lambda x: x.mean((2, 3)), files, view, encoder_digest="x", cache_dir=place / "cache", block=2)


def scenes(place: Path) -> None:
    def fill(folder: Path) -> None:
        for name in ("train", "val"):
            (folder / name).mkdir()
            for number in range(2):
                Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name / f"{number}.png")

    drawn("scenes", fill, place)


def journal(first: int, last: int, place: Path) -> None:
    held = Journal(place / "journal.jsonl", Line)
    known = {record["id"] for record in held.recover()}
    for record in records(last)[first:]:
        if record["id"] not in known:
            held.append([record])


WRITERS = {
    "entry": Writer(partial(with_notes, partial(entry, 1)), partial(entry, 2)),
    "model": Writer(partial(with_notes, partial(model, 1)), partial(model, 2)),
    "report": Writer(partial(with_notes, partial(report, "old")), partial(report, "new")),
    "result": Writer(lambda place: write_json(place / RESULT, ["old"] * 999), lambda place: write_json(place / RESULT, ["new"])),
    "settings": Writer(lambda place: QlipImageProcessor(56).save_pretrained(place), lambda place: QlipImageProcessor(28).save_pretrained(place)),
    "targets": Writer(partial(targets, 2), partial(targets, 6), appends=True),
    "scenes": Writer(lambda place: None, scenes),
    "journal": Writer(partial(journal, 0, 3), partial(journal, 0, 8), appends=True),
}  # fmt: skip


SLOW = ("model", "report", "targets")


def content(place: Path) -> dict[str, str]:
    """Digest of every file that can be seen; hidden folders are those of writers at work."""
    paths = [path for path in place.rglob("*") if path.is_file()]
    seen = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(place).parts)]
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in seen}


def lines(place: Path) -> list[str]:
    return [record["id"] for record in Journal(place / "journal.jsonl", Line).recover()]


def complaint(name: str, place: Path, old: dict[str, str], new: dict[str, str]) -> tuple[str, str] | None:
    """What a kill has lost or torn."""
    found = content(place)
    if name == "journal":
        ids = lines(place)
        if ids != [str(i) for i in range(len(ids))] or len(ids) < 3:
            return "lost", f"the journal holds {ids}"
        return None
    if WRITERS[name].appends:
        lost = old.items() - found.items()
        torn = found.items() - new.items()
        return ("lost", f"{lost}") if lost else ("torn", f"{torn}") if torn else None
    if name == "model":  # two writers, one after the other: weights and settings are each whole
        files = [(file, digest) for file, digest in found.items() if file.endswith("qlip.json")]
        found = {file: digest for file, digest in found.items() if not file.endswith("qlip.json")}
        old, new = (
            {file: digest for file, digest in held.items() if not file.endswith("qlip.json")} for held in (old, new)
        )
        if len(files) > 1:
            return "torn", f"{files}"
    if found in (old, new):
        return None
    return ("lost" if old.keys() - found.keys() else "torn"), f"{sorted(found.items() ^ old.items())}"


@pytest.mark.parametrize("name", WRITERS)
def test_kills(name: str, campaign: Campaign) -> None:
    global _place
    sys.addaudithook(_die)
    writer = WRITERS[name]
    draw_photos(Path("photos"), 6)
    make_run(RUNS, 0.5, 50, count=5)
    make_run(RUNS, 0.5, 100, count=5, baseline="crop")
    whole = Path("whole")
    whole.mkdir()
    assert in_child(partial(writer.old, whole)) == 0
    old = content(whole)
    _place = str(whole)
    count = counted(partial(writer.new, whole))
    new = content(whole)
    assert new != old
    for random in campaign.rounds(4 if name in SLOW else 10):
        place = Path(f"place{campaign.round}")
        place.mkdir()
        in_child(partial(writer.old, place))
        start = content(place)
        _place = str(place)
        if random.random() < 0.8:
            at = random.randint(1, count)
            how, status = f"operation {at} of {count}", in_child(partial(writer.new, place), at)
        else:
            seconds = random.random() * 0.05
            how, status = f"{seconds:.4f} s", after(seconds, partial(writer.new, place))
        campaign.counts["kills"] += status != 0
        if status not in (0, KILLED, -KILLED):
            campaign.fault("crashes", f"{name} at {how}", f"exit status {status}")
        if wrong := complaint(name, place, start, new):
            campaign.fault(wrong[0], f"{name} killed at {how}", wrong[1])
        assert in_child(partial(writer.new, place)) == 0
        left = [str(path) for path in place.rglob(".*") if any(path.iterdir())]  # an empty one loses nothing
        if content(place) != new or left:
            campaign.fault(
                "lost", f"{name} killed at {how}", f"the next writer leaves {sorted(content(place))}, {left}"
            )
        shutil.rmtree(place)


def counted(work: Callable[[], object]) -> int:
    """How many operations a writer takes: it dies at none of them."""
    out, into = os.pipe()

    def count() -> None:
        work()
        os.write(into, str(2**31 - _countdown[0]).encode())

    assert in_child(count, 2**31) == 0
    found = int(os.read(out, 99))
    os.close(out)
    os.close(into)
    return found


def test_two_writers_beside_a_reader(campaign: Campaign) -> None:
    """Entries that two processes write and copy while a third loads them."""
    place, positions = Path("zoo"), [tiny_position(seed) for seed in (1, 2)]
    for random in campaign.rounds(2):
        entry(1, place)
        (place / "entry" / "notes.txt").write_text("the user's own")
        children = []
        for seed in (1, 2):
            child = os.fork()
            if not child:
                status = 1
                try:
                    for _ in range(random.randint(15, 25)):
                        entry(seed, place)
                        write_text(place / "text", f"{seed}" * 9999)
                        pull(str(place / "entry"), "copy", place)
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        while children:
            campaign.offer(
                "an entry beside its writers", partial(load_folder, place / "entry"), NEVER, partial(one_of, positions)
            )
            if not (place / "entry" / "notes.txt").is_file():
                campaign.fault("lost", "the user's notes beside writers", "not there")
            text = (place / "text").read_text() if (place / "text").is_file() else "1" * 9999
            if len(text) != 9999 or len(set(text)) != 1:
                campaign.fault("torn", "a text beside its writers", text[:50])
            for child in list(children):
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    children.remove(child)
                    if status:
                        campaign.fault("crashes", "a writer beside another", f"status {status}")
        left = [path.name for path in place.iterdir() if path.name.startswith(".")]
        if left:
            campaign.fault("lost", "two writers", f"leave {left}")


def one_of(positions: list[PositionMLP], got: PositionMLP) -> str | None:
    return None if any(same(got, position) for position in positions) else "neither of the two"


def test_appending_together(campaign: Campaign) -> None:
    """Several processes append to one journal, some are killed: nothing is lost that was told to be written."""
    for random in campaign.rounds(4):
        path = Path(f"journal{campaign.round}.jsonl")
        told = Path(f"told{campaign.round}")
        told.mkdir()
        children = []
        for writer in range(3):
            child = os.fork()
            if not child:
                try:
                    for number in range(200):
                        Journal(path, Line).append([{"id": f"{writer}-{number}", "arms": None, "alpha": 0.5}])
                        (told / f"{writer}-{number}").touch()
                finally:
                    os._exit(0)
            children.append(child)
        for child in children:
            time.sleep(Random.random(random) * 0.03)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            campaign.counts["kills"] += 1
        found = {record["id"] for record in Journal(path, Line).recover()} if path.exists() else set()
        if lost := {each.name for each in told.iterdir()} - found:
            campaign.fault("lost", "a journal of three writers", f"{sorted(lost)[:9]}")
