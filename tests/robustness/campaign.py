"""What a campaign counts: bad inputs and what came of them, kills and what they left.

An input is refused well if the error is a ValueError, TypeError or OSError that our own code raised, in a few lines, and that
names the argument or the file. Anything else that is no result is a crash; a result that is not the right one is silently wrong.
"""

import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import qlip

PACKAGE = Path(qlip.__file__).parent
TESTS = 55  # of tests/robustness, which share the time
PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# of each test, of those of the whole campaign; 0 for the small campaign of every CI run
SECONDS = float(os.environ.get("QLIP_CAMPAIGN_SECONDS", "0")) * PROCESSES / TESTS
SEED = int(os.environ.get("QLIP_CAMPAIGN_SEED", "0"))
HANG = 20  # seconds
PEAK = 2**30  # bytes above the size of what was handed over
FAULTS = ("crashes", "wrong", "hangs", "peaks", "executions", "lost", "torn")
COUNTED = ("inputs", "refused", *FAULTS[:5], "kills", *FAULTS[5:])
MESSAGE = 4000  # characters of an error at most


class Hang(BaseException):
    """It took too long; no handler of ours may catch this."""


class Campaign:
    """One test's part of the campaign.

    Args:
        name: Of the test; with the seed, it decides what is drawn.
        marker: A file that what is hidden in inputs would make if it were run.
    """

    def __init__(self, name: str, marker: Path) -> None:
        self.name, self.marker = name, marker
        self.counts: Counter[str] = Counter()
        self.faults: dict[str, str] = {}  # the first of each kind and place

    def rounds(self, count: int) -> Iterator[Random]:
        """Sources of chance, one for each round: ``count`` of them, or as many as there is time for."""
        start, number = time.monotonic(), 0
        while time.monotonic() - start < SECONDS if SECONDS else number < count:
            self.round = number
            yield Random(f"{SEED} {self.name} {number}")
            number += 1

    def offer(
        self,
        what: str,
        call: Callable[[], Any],
        names: Sequence[str] = (),
        right: Callable[[Any], str | None] = lambda value: None,
        own: int = 0,
    ) -> Any:
        """Hand an input over and count what comes of it.

        Args:
            what: The input, for the list of faults.
            call: Hands it over.
            names: Words of which an error must have one: the argument, the file.
            right: Says what is wrong with a result, or None.
            own: Bytes that the input itself takes when it is read.

        Returns:
            The result, or None.
        """
        self.counts["inputs"] += 1
        before, start = _resident(), time.monotonic()
        signal.signal(signal.SIGALRM, _hang)
        signal.setitimer(signal.ITIMER_REAL, HANG)
        value = None
        try:
            value = call()
            signal.setitimer(signal.ITIMER_REAL, 0)
            if complaint := right(value):
                self.fault("wrong", what, complaint)
        except Hang:
            self.fault("hangs", what, f"took more than {HANG} s")
        except (ValueError, TypeError, OSError) as error:
            self.counts["refused"] += 1
            if complaint := _bad_message(error, names):
                self.fault("crashes", what, complaint)
        except BaseException as error:  # whatever else: that is what is sought
            self.fault("crashes", what, _shown(error))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if time.monotonic() - start > HANG:
            self.fault("hangs", what, f"took {time.monotonic() - start:.0f} s")
        if (peak := _peak() - before - own) > PEAK:
            self.fault("peaks", what, f"took {peak:,} bytes")
        if self.marker.exists():
            self.marker.unlink()
            self.fault("executions", what, "ran what was hidden in the input")
        return value

    def fault(self, kind: str, what: str, complaint: str) -> None:
        """Count a fault and keep what is needed to see it again."""
        self.counts[kind] += 1
        place = f"{kind} {complaint.rpartition(' (')[2]}"
        self.faults.setdefault(
            place, f"{kind}, QLIP_CAMPAIGN_SEED={SEED}, round {self.round}: {what[:300]}\n    {complaint[:1500]}"
        )


def table(counts: dict[str, Counter[str]]) -> list[str]:
    """Lines with the counts of each test, and their sums."""
    width = max(map(len, counts), default=0)
    rows = [*sorted(counts.items()), ("all", sum(counts.values(), Counter[str]()))]
    head = " ".join(f"{name:>10}" for name in COUNTED)
    return [
        f"{'':{width}} {head}",
        *(f"{name:{width}} " + " ".join(f"{row[each]:>10,}" for each in COUNTED) for name, row in rows),
    ]


def _bad_message(error: Exception, names: Sequence[str]) -> str | None:
    """What is wrong with an error, or None if it is as all of ours are."""
    text = str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if not Path(frame.filename).is_relative_to(PACKAGE):
        return f"not raised by qlip: {_shown(error)}"
    if names and not any(name in text for name in names):
        return f"names none of {', '.join(names)}: {_shown(error)}"
    if len(text) > MESSAGE:
        return f"is {len(text)} characters long: {text[:200]}"
    return None


def _shown(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = next((frame for frame in reversed(frames) if Path(frame.filename).is_relative_to(PACKAGE)), frames[-1])
    return f"{type(error).__name__}: {str(error)[:600]} ({Path(ours.filename).name}:{ours.lineno}, {ours.name})"


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang


def _resident() -> int:
    """Bytes of memory in use; the peak starts anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # no Linux: peaks are not seen
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), 0)
