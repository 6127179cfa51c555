"""How processor time and memory grow with pixels, pictures in a batch, and tokens, against copying the same bytes.

Run as ``python benchmarks/growth.py``; on Linux, where a process can tell its peak of memory. Each point is measured in a process
of its own.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
import torch
from _report import REPORT, machine, summarise, table, write_section
from matplotlib.figure import Figure
from PIL import Image

from qlip import QlipImageProcessor, Quadtree
from qlip.images.read import to_rgb
from qlip.images.worker import keep_memory

PLOT = REPORT.parent / "images" / "growth.png"
LIMIT = 1.1  # largest slope where the work is linear
UNIT = 14
MEGAPIXELS = (0.1, 0.3, 1, 3, 10, 30, 100)
SHOWN = (0.1, 0.3, 1, 3, 10, 16)  # what is prepared at most is 16.7 million pixels
BATCHES = (1, 2, 4, 8, 16, 32, 64)
TOKENS = (64, 256, 1024, 4096, 16384)


@dataclass(frozen=True)
class Series:
    """A line of the figure.

    Attributes:
        name: What is done.
        unit: What grows, on the axis.
        sizes: Of what grows.
        make: For a size, what is measured, ready to be called.
        bytes: For a size, what is read and written at the least.
    """

    name: str
    unit: str
    sizes: Sequence[float]
    make: Callable[[float], Callable[[], object]]
    bytes: Callable[[float], float]


def picture(megapixels: float) -> Image.Image:
    """A square photograph of so many pixels."""
    side = round((megapixels * 1e6) ** 0.5)
    return Image.fromarray(skimage.data.astronaut()).resize((side, side), Image.Resampling.BILINEAR)


def scaled(megapixels: float) -> Callable[[], object]:
    """A picture to 672 pixels, at most 576 tokens."""
    processor = QlipImageProcessor(672, "units", Quadtree(max_tokens=576))
    given = to_rgb(picture(megapixels))
    return lambda: processor(given)


def own_size(megapixels: float) -> Callable[[], object]:
    """A picture at its own size, half of its tokens."""
    given = to_rgb(picture(megapixels))
    processor = QlipImageProcessor(None, "units", Quadtree(max_tokens=given.width * given.height // UNIT**2 // 2))
    return lambda: processor(given)


def batch(count: float) -> Callable[[], object]:
    """Pictures of 0.5 megapixels at their own size."""
    processor, given = QlipImageProcessor(None, "units", Quadtree(0.3)), [to_rgb(picture(0.5))] * int(count)
    return lambda: processor(given)


def tokens(count: float) -> Callable[[], object]:
    """A picture of so many patches, none merged."""
    side = round(count**0.5) * UNIT
    given = picture(1).resize((side, side))
    processor = QlipImageProcessor(None, "units", Quadtree(criterion="uniform"))
    return lambda: processor(given)


def kept(count: float) -> Callable[[], object]:
    """A picture of 4 megapixels, ever more of its tokens kept."""
    processor, given = QlipImageProcessor(None, "units", Quadtree(max_tokens=int(count))), to_rgb(picture(4))
    return lambda: processor(given)


PIXEL = 3 + 3 * 4  # bytes: read as it comes, written in floats
SERIES = (
    Series("scaled to 672 px", "megapixels", MEGAPIXELS, scaled, lambda n: 3e6 * n),
    Series("at its own size", "megapixels", SHOWN, own_size, lambda n: PIXEL * 1e6 * n),
    Series("pictures in a batch", "pictures", BATCHES, batch, lambda n: PIXEL * 5e5 * n),
    Series("tokens, none merged", "tokens", TOKENS, tokens, lambda n: PIXEL * UNIT**2 * n),
    Series("tokens kept of 4 megapixels", "tokens", TOKENS, kept, lambda n: PIXEL * 4e6),
)


def _memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def _in_a_child(make: Callable[[float], Callable[[], object]], size: float, repeats: int, results: object) -> None:
    torch.set_num_threads(1)
    keep_memory()
    work = make(size)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    work()
    peak = _memory("VmHWM") - before
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    results.put((1000 * best, peak / 1e6))  # type: ignore[attr-defined]


def measure(series: Series, repeats: int) -> tuple[list[float], list[float]]:
    """Milliseconds of processor time, and megabytes at the peak above what was there before, at each size."""
    found = []
    context = multiprocessing.get_context("fork")
    for size in series.sizes:
        results = context.Queue()
        child = context.Process(target=_in_a_child, args=(series.make, size, repeats, results))
        child.start()
        found.append(results.get())
        child.join()
        print(series.name, size, *(f"{value:.1f}" for value in found[-1]), sep="\t", flush=True)
    took, peaks = zip(*found, strict=True)
    return list(took), list(peaks)


def copying() -> float:
    """Milliseconds of copying a gigabyte: read once, written once."""
    source = np.ones(2**27, dtype=np.uint8)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        np.copyto(target, source)
        best = min(best, time.process_time() - start)
    return 1000 * best * 1e9 / (2 * source.nbytes)


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The exponent of growth, of the larger half of the sizes: the smaller ones are fixed costs."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0])


def draw(measured: dict[str, tuple[list[float], list[float]]], gigabyte: float) -> Figure:
    """Time above, memory below, a column for each thing that grows."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    for column, unit in enumerate(("megapixels", "pictures", "tokens")):
        time_axis, memory_axis = axes[:, column]
        for series in (each for each in SERIES if each.unit == unit):
            took, peaks = measured[series.name]
            (line,) = time_axis.loglog(
                series.sizes, took, "o-", label=f"{series.name}, slope {slope(series.sizes, took):.2f}"
            )
            copies = [series.bytes(size) / 1e9 * gigabyte for size in series.sizes]
            time_axis.loglog(series.sizes, copies, ":", color=line.get_color(), label="copying its bytes")
            memory_axis.loglog(series.sizes, np.maximum(peaks, 0.1), "o-", color=line.get_color(), label=series.name)
        time_axis.set(title=f"over {unit}", ylabel="processor time, ms")
        memory_axis.set(xlabel=unit, ylabel="memory at the peak, MB")
        for axis in (time_axis, memory_axis):
            axis.grid(alpha=0.3)
            low, high = axis.get_ylim()
            axis.set_ylim(low, high * (high / low) ** 0.6)  # room for the legend
            axis.legend(fontsize=8, loc="upper left")
    return figure


def main() -> None:
    """Measure every line, draw the figure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    QlipImageProcessor(UNIT)(to_rgb(picture(0.001)))  # numba is loaded here, so that no child counts it
    gigabyte = copying()
    measured = {series.name: measure(series, repeats) for series in SERIES}
    rows = []
    for series in SERIES:
        took, peaks = measured[series.name]
        ends = [f"{values[i]:,.0f}" for values in (took, peaks) for i in (0, -1)]
        copies = series.bytes(series.sizes[-1]) / 1e9 * gigabyte
        least, most = (f"{size:g}" for size in (series.sizes[0], series.sizes[-1]))
        rows.append(
            [
                series.name,
                f"{least} to {most} {series.unit}",
                *ends,
                f"{slope(series.sizes, took):.2f}",
                f"{took[-1] / copies:.0f}x",
            ]
        )
    steep = [row[0] for row in rows if float(row[-2]) > LIMIT]
    verdict = f"steeper: {', '.join(steep)}" if steep else "no line is steeper"
    PLOT.parent.mkdir(exist_ok=True)
    draw(measured, gigabyte).savefig(PLOT, dpi=110)
    header = ["", "grows", "ms, first", "ms, last", "MB, first", "MB, last", "slope", "copies"]
    write_section("growth", TEXT.format(machine(), repeats, table(header, rows), LIMIT, verdict))
    steepest = max(rows, key=lambda row: float(row[-2]))
    summarise(("steepest growth of time", steepest[0], "linear", f"exponent {steepest[-2]}", f"{LIMIT}"))


TEXT = """## Growth

`python benchmarks/growth.py` ({}; one thread, processor time, best of {}; each point in a process of its own
that keeps the memory it frees, as the workers of our DataLoaders do)

From decoded pictures to patches. MB is what the process adds at its peak to the decoded picture; the slope is the exponent of growth, 1 for linear, over the
larger half of the sizes; copies says how many times as long as copying the bytes that must be read and written the last point takes.

{}

Wanted: at most {}; {}.

![Time and memory over pixels, pictures and tokens](images/growth.png)
"""


if __name__ == "__main__":
    main()
