"""What the benchmarks share: photographs, a stopwatch, and a section each in a page of docs/."""

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import skimage.data
import torch
from PIL import Image
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from qlip.images.eight_bit import EightBitImage
from qlip.images.read import to_pixels
from qlip.images.resize import centre_crop

REPORT = Path(__file__).parents[1] / "docs" / "performance.md"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")  # those that come inside scikit-image's wheel, in colour


def picture(name: str, height: int, width: int) -> EightBitImage:
    """One of `PHOTOGRAPHS`, scaled to fill ``height x width`` and cropped."""
    image = Image.fromarray(getattr(skimage.data, name)())
    scale = max(height / image.height, width / image.width)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    pixels = centre_crop(to_pixels(image), height, width)
    return EightBitImage(pixels, tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD))


def photograph(name: str, height: int, width: int) -> Tensor:
    """The same, normalised: ``(3, H, W)``."""
    return picture(name, height, width).floats


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    """Processor time of a call, best of ``repeats``, after one call to warm up.

    Unlike the clock on the wall it does not count the time that other programs took; with one thread and an idle
    machine the two are the same.
    """
    function()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return 1000 * best


def seconds(step: Callable[[], object], device: str, repeats: int) -> float:
    """Seconds of a step, best of ``repeats``; on a CPU of processor time. A step ends by reading its loss."""
    if device == "cpu":
        return milliseconds(step, repeats) / 1000
    best = float("inf")
    for _ in range(1 + repeats):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return best


def machine(device: str = "cpu") -> str:
    """The machine in words."""
    where = f"{os.cpu_count()} CPU cores" if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{where}, torch {torch.__version__.split('+')[0]}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; every column but the first is aligned right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def write_section(name: str, text: str, page: Path = REPORT) -> None:
    """Replace the section between ``<!-- name -->`` and ``<!-- /name -->`` of a page, or append it."""
    section = f"<!-- {name} -->\n{text.strip()}\n<!-- /{name} -->"
    report = page.read_text() if page.exists() else "# Performance\n"
    report, found = re.subn(f"<!-- {name} -->.*?<!-- /{name} -->", lambda _: section, report, flags=re.DOTALL)
    page.parent.mkdir(exist_ok=True)
    page.write_text(report if found else f"{report.rstrip()}\n\n{section}\n")
    print(f"{text.strip()}\n\nwritten to {page.relative_to(page.parents[1])}")


def summarise(*rows: tuple[str, str, str, str, str]) -> None:
    """Put rows into the table on top of the page, each in place of the one of the same name.

    Args:
        rows: What was measured, ours, what it is compared with, ours as parts of that, and what is wanted.
    """
    page = REPORT.read_text()
    block = re.search("<!-- summary -->(.*?)<!-- /summary -->", page, flags=re.DOTALL)
    lines = block[1].strip().splitlines()[2:] if block else []
    held = {cells[0]: cells for cells in ([cell.strip() for cell in line.strip()[1:-1].split("|")] for line in lines)}
    held |= {row[0]: list(row) for row in rows}
    text = table(["", "ours", "compared with", "ratio", "wanted"], list(held.values()))
    section = f"<!-- summary -->\n{text}\n<!-- /summary -->"
    if block is None:
        title, _, rest = page.partition("\n")
        page = f"{title}\n\n{section}\n{rest}"
    REPORT.write_text(page.replace(block[0], section) if block else page)


def write_for(device: str, name: str, text: str) -> None:
    """Write a section for this kind of machine; the other kind keeps its own, or says that there is none yet."""
    report = REPORT.read_text() if REPORT.exists() else ""
    for kind in ("cpu", "cuda"):
        if kind == device:
            write_section(f"{name}_{kind}", text)
        elif f"<!-- {name}_{kind} -->" not in report:
            title = text.strip().splitlines()[0].rsplit(",", 1)[0]
            where = "CPU" if kind == "cpu" else "GPU"
            write_section(
                f"{name}_{kind}", f"{title}, {where}\n\nNot measured yet: `python benchmarks/{name}.py` there."
            )
