"""What a budget costs while a picture is prepared: one tree by alpha, one that is pruned, and one at the size at which alpha fits.

Run as ``python benchmarks/fits.py``.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from _report import machine, summarise, table, write_section
from preprocess import each, least, small_files

from qlip import QlipImageProcessor, Quadtree
from qlip.images.read import to_pixels

SIZES = {"336": 336, "672": 672, "1344": 1344, "their own": None}
BUDGETS = (64, 288, 576)
ALPHA = 0.3


def row(name: str, budget: int, pictures: Sequence[torch.Tensor], repeats: int) -> list[str]:
    """Milliseconds a picture of each way at one size and budget, and those with a budget over the one without."""
    size = SIZES[name]
    processors = {
        "alpha": QlipImageProcessor(size, quadtree=Quadtree(ALPHA)),
        "prune": QlipImageProcessor(size, quadtree=Quadtree(max_tokens=budget)),
        "scale": QlipImageProcessor(size, quadtree=Quadtree(ALPHA, max_tokens=budget), fit="scale"),
    }
    took = least({way: partial(each, made.cut, pictures) for way, made in processors.items()}, repeats)
    ms = {way: total / len(pictures) for way, total in took.items()}
    ratios = [f"{ms[way] / ms['alpha']:.2f}x" for way in ("prune", "scale")]
    made = [name, f"{budget}", f"{ms['alpha']:.1f}", f"{ms['prune']:.1f}", ratios[0], f"{ms['scale']:.1f}", ratios[1]]
    print(*made, sep="\t", flush=True)
    return made


def main() -> None:
    """Measure everything and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    pictures = [to_pixels(data) for data in small_files()]
    rows = [row(name, budget, pictures, repeats) for name in SIZES for budget in BUDGETS]
    header = ["shortest edge", "budget", "by alpha, ms", "prune, ms", "ratio", "scale, ms", "ratio"]
    write_section("fits", TEXT.format(machine(), ALPHA, table(header, rows)))
    ratios = sorted(float(row[-1][:-1]) for row in rows)
    summarise(
        (
            'A budget by fit="scale"',
            f"{rows[1][-2]} ms at {rows[1][0]} px",
            f"one tree, {rows[1][2]} ms",
            f"{ratios[0]:.2f}x to {ratios[-1]:.2f}x",
            "2x",
        )
    )


TEXT = """## Budgets

`python benchmarks/fits.py` ({}; one thread, processor time, least of several turns)

Milliseconds a picture, from decoded pixels to the leaves, mean over scikit-image's photographs: a tree by alpha {}, without a budget; a budget by
`fit="prune"`, which builds one tree at the same size; and by `fit="scale"`, which counts the leaves of a pyramid of smaller pictures, and builds the tree at the size at which
they fit. Wanted: at most 2x.

{}
"""


if __name__ == "__main__":
    main()
