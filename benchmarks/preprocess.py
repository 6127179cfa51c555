"""From JPEG bytes to patches in a DataLoader worker, part by part; and whole batches cut on a GPU.

Run as ``python benchmarks/preprocess.py``.
"""

import argparse
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import torch
from _report import PHOTOGRAPHS, machine, milliseconds, photograph, seconds, table, write_section
from PIL import Image

from qlip import PatchBatch, QlipImageProcessor, Quadtree
from qlip.data.sources import find_pictures
from qlip.images.read import normalise, to_rgb

SETTINGS = {
    "336 px, alpha 0.1": QlipImageProcessor(336, quadtree=Quadtree(0.1)),
    "672 px, alpha 0.1": QlipImageProcessor(672, quadtree=Quadtree(0.1)),
    "672 px, alpha 0.7": QlipImageProcessor(672, quadtree=Quadtree(0.7)),
    "672 px, 576 tokens": QlipImageProcessor(672, quadtree=Quadtree(max_tokens=576, cover="full")),
    "1344 px, alpha 0.1": QlipImageProcessor(1344, quadtree=Quadtree(0.1)),
    "560 px, random 0.1 (training)": QlipImageProcessor(560, quadtree=Quadtree(0.1, "random")),
}
PARTS = ("decoding", "resizing", "normalising", "quadtree", "resampling")
WANTED = 15  # per cent for the quadtree


def jpeg(path: Any) -> bytes:
    """A photograph of scikit-image as the bytes of a JPEG file."""
    out = BytesIO()
    with Image.open(path) as image:
        to_rgb(image).save(out, "JPEG", quality=90)
    return out.getvalue()


def decode(data: bytes) -> Image.Image:
    """Upright and RGB."""
    with Image.open(BytesIO(data)) as image:
        return to_rgb(image)


def parts(data: bytes, processor: QlipImageProcessor, repeats: int) -> list[float]:
    """Milliseconds of each of `PARTS`, one after the other on what the one before made, and of all of them in one call."""
    tree, picture = processor.quadtree, decode(data)
    view = processor.view(picture)
    image = normalise(view, processor.mean, processor.std)
    leaves = tree.batch(image[None])[0]
    steps: list[Callable[[], object]] = [
        lambda: decode(data),
        lambda: processor.view(picture),
        lambda: normalise(view, processor.mean, processor.std),
        lambda: tree.batch(image[None]),
        lambda: PatchBatch.from_image(image, leaves),
        lambda: processor(decode(data)),
    ]
    return [milliseconds(step, repeats) for step in steps]


def in_a_worker(repeats: int) -> list[list[str]]:
    """A row for each setting: images a second, patches an image, and the share of each part."""
    splits, rows = find_pictures("samples"), []
    data = [jpeg(path) for path in splits.train + splits.val]
    for name, processor in SETTINGS.items():
        took = torch.tensor([parts(each, processor, repeats) for each in data], dtype=torch.float64).mean(0)
        tokens = sum(processor(decode(each)).mask.shape[1] for each in data) / len(data)
        shares = 100 * took[:-1] / took[:-1].sum()
        rows.append([name, f"{tokens:.0f}", f"{1000 / took[-1]:.1f}", *(f"{share:.0f} %" for share in shares)])
        print(*rows[-1], sep="\t", flush=True)
    return rows


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
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)  # as a DataLoader worker does
    rows = in_a_worker(repeats)
    over = [row[0] for row in rows if float(row[-2].split()[0]) > WANTED]
    header = ["shortest edge, quadtree", "tokens", "images/s", *PARTS]
    verdict = f"above it: {'; '.join(over)}" if over else "no row is above it"
    write_section("preprocess", TEXT.format(machine(), table(header, rows), WANTED, verdict, on_a_gpu(repeats)))


TEXT = """## Preprocessing

`python benchmarks/preprocess.py` ({}; one thread, as in a DataLoader worker, processor time)

Images a second on one core, from the bytes of a JPEG file (quality 90) to a `PatchBatch`, mean time over the photographs that
scikit-image ships (300 to 1400 pixels), and the share of each part measured by itself. Resizing includes the crop to whole patches;
resampling is the cutting and scaling of the leaves.

{}

Wanted for the quadtree: at most {} %; {}. What is slowest is PIL's: decoding and bicubic scaling, which LLaVA's and CLIP's own
preprocessing have too.

On a GPU, a batch of 32 images of 672 x 672 pixels, cut together, milliseconds an image. Wanted: 0.3.

{}
"""


if __name__ == "__main__":
    main()
