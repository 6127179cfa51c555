"""From JPEG bytes to patches in a DataLoader worker, part by part; and whole batches cut on a GPU.

Run as ``python benchmarks/preprocess.py``.
"""

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from _report import PHOTOGRAPHS, machine, milliseconds, photograph, seconds, summarise, table, write_section
from _ways import WAYS, each, large_file, least, small_files, using, with_way
from PIL import Image
from transformers import CLIPImageProcessor

from qlip import PatchBatch, QlipImageProcessor, Quadtree
from qlip.images.read import to_pixels
from qlip.images.resize import normalise
from qlip.images.worker import keep_memory

SETTINGS = {
    "336 px, alpha 0.1": QlipImageProcessor(336, quadtree=Quadtree(0.1)),
    "672 px, alpha 0.1": QlipImageProcessor(672, quadtree=Quadtree(0.1)),
    "672 px, alpha 0.7": QlipImageProcessor(672, quadtree=Quadtree(0.7)),
    "672 px, 576 tokens": QlipImageProcessor(672, quadtree=Quadtree(max_tokens=576, cover="full")),
    "1344 px, alpha 0.1": QlipImageProcessor(1344, quadtree=Quadtree(0.1)),
    "560 px, random 0.1 (training)": QlipImageProcessor(560, quadtree=Quadtree(0.1, "random")),
}
PARTS = ("decoding", "resizing", "normalising", "quadtree", "resampling")
WANTED = {"tensors": 15, "compiled": 10}  # per cent for the quadtree
RATIO = {"tensors": "1.25x", "compiled": "1x"}  # to Hugging Face's default; large files 0.7x

SIZES = (336, 672, 1344)
LARGE = ((4000, 3000), (11_548, 8_660))  # pixels: 12 and 100 million


def parts(data: bytes, processor: QlipImageProcessor, repeats: int) -> list[float]:
    """Milliseconds of each of `PARTS`, one after the other on what the one before made, and of all of them in one call."""
    tree, picture = processor.quadtree, to_pixels(data)
    seen = processor.seen(picture)
    leaves = seen.leaves(tree)
    seen.patches(leaves)
    normalised = "floats" in vars(seen)  # where either of them needs floats
    steps: list[Callable[[], object]] = [
        lambda: to_pixels(data),
        lambda: processor.seen(picture),
        (lambda: normalise(seen.pixels, seen.mean, seen.std)) if normalised else lambda: None,
        lambda: seen.leaves(tree),
        lambda: seen.patches(leaves),
        lambda: processor(data),
    ]
    return [milliseconds(step, repeats) for step in steps]


def in_a_worker(way: str, repeats: int) -> list[list[str]]:
    """A row for each setting: images a second, patches an image, and the share of each part."""
    data, rows = small_files(), []
    for name, processor in SETTINGS.items():
        with using(way):
            took = torch.tensor([parts(file, processor, repeats) for file in data], dtype=torch.float64).mean(0)
        tokens = sum(processor(file).mask.shape[1] for file in data) / len(data)
        shares = 100 * took[:-1] / took[:-1].sum()
        split = (f"{ms:.1f} ({share:.0f} %)" for ms, share in zip(took[:-1], shares, strict=True))
        rows.append([name, f"{tokens:.0f}", f"{1000 / took[-1]:.1f}", *split])
        print(way, *rows[-1], sep="\t", flush=True)
    return rows


def stock(size: int) -> Callable[[bytes], object]:
    """Hugging Face's default for CLIP, without its crop to a square; it cuts nothing."""
    processor = CLIPImageProcessor(size={"shortest_edge": size}, do_center_crop=False)
    return lambda data: processor(Image.open(BytesIO(data)), return_tensors="pt")


def against_stock(repeats: int) -> list[list[str]]:
    """A row for each kind of file and size: milliseconds an image of Hugging Face's default and of ours, and their ratio."""
    rows = []
    for name, files in (("300 to 1400 px", small_files()), ("12 million px", [large_file(LARGE[0])])):
        for size in SIZES:
            ours = partial(each, QlipImageProcessor(size, quadtree=Quadtree(0.3)))
            ways = {way: partial(with_way, way, ours, files) for way in WAYS}
            took = least({"theirs": partial(each, stock(size), files), **ways}, repeats)
            theirs, *ms = [total / len(files) for total in took.values()]
            rows.append(
                [name, f"{size}", f"{theirs:.1f}", *(x for one in ms for x in (f"{one:.1f}", f"{one / theirs:.2f}x"))]
            )
            print(*rows[-1], sep="\t", flush=True)
    return rows


def batches(memory: str, repeats: int) -> list[list[str]]:
    """Milliseconds an image of 672 pixels, one at a time and in batches of 8 and 32."""
    files, processor = [large_file((500, 375))] * 32, QlipImageProcessor(672, quadtree=Quadtree(0.3))
    ways = {(way, n): partial(with_way, way, processor, files[:n]) for way in WAYS for n in (1, 8, 32)}
    took = {key: ms / key[1] for key, ms in least(ways, repeats).items()}
    return [[memory, way, *(f"{took[way, n]:.1f}" for n in (1, 8, 32))] for way in WAYS]


def megabytes(who: str, data: bytes) -> float:
    """What one file adds at its peak to the memory of a process that does nothing else, on Linux."""
    torch.set_num_threads(1)
    Image.MAX_IMAGE_PIXELS = None  # Hugging Face's would warn
    ours = QlipImageProcessor(672, quadtree=Quadtree(0.3))
    way = stock(672) if who == "theirs" else partial(with_way, who, ours)
    way(large_file((500, 375)))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _held("VmRSS")
    way(data)
    return (_held("VmHWM") - before) / 1024


def peaks() -> list[list[str]]:
    """Megabytes at the peak for a file of 12 and of 100 million pixels at 672 px, Hugging Face's and ours."""
    rows = []
    for size in LARGE if Path("/proc/self/clear_refs").exists() else ():
        data = large_file(size)
        with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as new:
            theirs, *ours = new.map(megabytes, ("theirs", *WAYS), [data] * 3)
        compared = (x for mb in ours for x in (f"{mb:.0f}", f"{mb / theirs:.2f}x"))
        rows.append([f"{size[0]} x {size[1]}", f"{theirs:.0f}", *compared])
        print(*rows[-1], sep="\t", flush=True)
    return rows


def at_its_own_size(way: str, repeats: int) -> float:
    """Milliseconds from the decoded pixels of 100 million to patches, scaled down to what is taken at most."""
    torch.set_num_threads(1)
    picture, processor = to_pixels(large_file(LARGE[1])), QlipImageProcessor(None, quadtree=Quadtree(0.3))
    return least({"whole": partial(with_way, way, processor, picture)}, repeats)["whole"]


def with_pages(huge: bool, way: str, repeats: int) -> float:
    """The same in a process of its own, whose torch asks the system for large pages or does not."""
    told = {"THP_MEM_ALLOC_ENABLE": str(int(huge))}  # read by torch when it starts
    with patch.dict(os.environ, told), ProcessPoolExecutor(1, get_context("spawn")) as new:
        return new.submit(at_its_own_size, way, repeats).result()


def first_call() -> tuple[float, float]:
    """Seconds that the first picture of a process takes longer for compiled loops than a second one, and megabytes that they add."""
    picture, processor = large_file((500, 375)), QlipImageProcessor(672, quadtree=Quadtree(0.3))
    with_way("tensors", processor, picture)
    marks, before = [time.perf_counter()], _held("RssAnon")
    for _ in range(2):
        with_way("compiled", processor, picture)
        marks.append(time.perf_counter())
    return (marks[1] - marks[0]) - (marks[2] - marks[1]), (_held("RssAnon") - before) / 1024


def first_calls() -> list[float]:
    """Those seconds in a process that has to compile and in a later one, and the later one's megabytes."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, NUMBA_CACHE_DIR=folder):
        found = []
        for _ in range(2):
            with ProcessPoolExecutor(1, get_context("spawn")) as new:
                found.append(new.submit(first_call).result())
        return [found[0][0], *found[1]]


def _held(name: str) -> int:
    """Kilobytes that this process holds, by a name of Linux; 0 elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def synchronised(function: Callable[[], object], repeats: int) -> float:
    """Milliseconds of a call, until the GPU is done with it."""
    return 1000 * seconds(lambda: (function(), torch.cuda.synchronize()), "cuda", repeats)


def on_a_gpu(repeats: int) -> str:
    """Milliseconds an image of 672 px, 32 at a time: the tree, and the patches."""
    if not torch.cuda.is_available():
        return "Not measured yet: `python benchmarks/preprocess.py` on a machine with a GPU."
    images = torch.stack([photograph(PHOTOGRAPHS[i % len(PHOTOGRAPHS)], 672, 672) for i in range(32)]).cuda()
    rows = []
    for alpha in (0.1, 0.7):
        tree = Quadtree(alpha)
        leaves = tree.batch(images)

        ways = (partial(tree.batch, images), partial(PatchBatch.from_images, images, leaves))
        took = [synchronised(way, repeats) / len(images) for way in ways]
        rows.append([f"{alpha}", f"{sum(map(len, leaves)) / 32:.0f}", *(f"{ms:.3f}" for ms in (*took, sum(took)))])
        print(*rows[-1], sep="\t", flush=True)
    header = ["alpha", "leaves", "tree", "patches", "together"]
    return f"({machine('cuda')}; best of {repeats})\n\n{table(header, rows)}"


def main() -> None:
    """Measure everything and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=12)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)  # as a DataLoader worker does
    rows = {way: in_a_worker(way, repeats) for way in WAYS}
    memory, default, alone = peaks(), against_stock(repeats), batches("by default", repeats)
    largest = [[with_pages(huge, way, repeats) for way in WAYS] for huge in (False, True)]
    keep_memory()
    kept, together = against_stock(repeats), batches("kept", repeats)
    header = ["shortest edge, quadtree", "tokens", "images/s", *PARTS]
    sides = ["files", "shortest edge", "theirs, ms", *(name for way in WAYS for name in (f"{way}, ms", "ratio"))]
    sections = [
        *(text for way in WAYS for text in (table(header, rows[way]), WANTED[way], over(rows[way], WANTED[way], way))),
        table(sides, default), table(sides, kept),
        table(["memory", "way", "1", "8", "32"], alone + together),
        *(f"{value:.{digits}f}" for value, digits in zip(first_calls(), (1, 1, 0), strict=True)),
        table(["pixels", "theirs, MB", *(name for way in WAYS for name in (f"{way}, MB", "ratio"))], memory),
        *(f"{ms:.0f}" for both in largest for ms in both), on_a_gpu(repeats),
    ]  # fmt: skip
    write_section("preprocess", TEXT.format(machine(), *sections))
    for i, way in enumerate(WAYS):
        at = 3 + 2 * i
        wanted = [RATIO[way]] * len(SIZES) + ["0.7x"] * len(SIZES)
        summarise(
            *(
                (
                    f"JPEG to patches, {way}, {row[0]}, {row[1]} px",
                    f"{row[at]} ms",
                    f"Hugging Face's default, {row[2]} ms",
                    row[at + 1],
                    limit,
                )
                for row, limit in zip(default, wanted, strict=True)
            ),
            *(
                (
                    f"memory at the peak, {way}, {row[0]} pixels",
                    f"{row[at - 1]} MB",
                    f"Hugging Face's default, {row[1]} MB",
                    row[at],
                    "0.33x",
                )
                for row in memory
            ),
            (
                f"100 million px at its own size, {way}, after decoding",
                f"{largest[0][i]:.0f} ms",
                "500 ms",
                f"{largest[0][i] / 500:.2f}x",
                "1x",
            ),
        )


def over(rows: list[list[str]], wanted: int, way: str) -> str:
    """Which rows, those with a budget where loops are compiled, have a larger share of the quadtree than wanted, in words."""
    judged = [row for row in rows if way == "tensors" or "tokens" in row[0]]
    above = [row[0] for row in judged if float(row[-2].split("(")[1].split()[0]) > wanted]
    return f"above it: {'; '.join(above)}" if above else "none is above it"


TEXT = """## Preprocessing

`python benchmarks/preprocess.py` ({}; one thread, as in a DataLoader worker, processor time)

Images a second on one core, from the bytes of a JPEG file (quality 90) to a `PatchBatch`, mean time over the photographs that
scikit-image ships (300 to 1400 pixels), and milliseconds of each part measured by itself. Resizing includes the crop to whole
patches; resampling is the cutting and scaling of the leaves. With tensors, which is what runs without numba:

{}

Wanted for the quadtree: at most {} %; {}.

With compiled loops (`pip install "qlip[fast]"`), which read the bytes. Nothing is normalised but what is cut:

{}

Wanted for the quadtree with a budget: at most {} %; {}.

The same files, and one of 12 million pixels that is a photograph scaled up, against Hugging Face's default processor for CLIP on
torchvision at the same output size, which cuts nothing: milliseconds an image with alpha 0.3, least of several turns. Its pixels
and ours are equal to 1e-6 (`tests/images/test_read.py`). Wanted: 1.25x with tensors, 1x with compiled loops, and 0.7x for large files.

{}

The same with `qlip.images.worker.keep_memory`, which our own DataLoaders call when a worker starts:

{}

It saves page faults; what they cost hangs on the machine and on what else it does. Milliseconds an image of 672 pixels, one at a time and in batches of 8 and 32. In a DataLoader of
your own, `DataLoader(..., worker_init_fn=keep_memory)`.

{}

The first picture waits {} seconds for numba to compile the loops; the first one of a later process waits {}, for they are kept. They
add {} MB to a process, besides libraries that processes share.

Megabytes that one file adds at the peak at 672 pixels. Wanted: a third of theirs.

{}

The larger one at its own size, which is scaled down to the 16.8 million pixels that are taken at most, takes {} ms from decoded pixels to patches with tensors, {} ms with compiled loops. Wanted: 500. With
`THP_MEM_ALLOC_ENABLE=1` in the environment, by which torch asks Linux for large pages, it takes {} and {} ms.

On a GPU, a batch of 32 images of 672 x 672 pixels, cut together, milliseconds an image. Wanted: 0.3.

{}
"""


if __name__ == "__main__":
    main()
