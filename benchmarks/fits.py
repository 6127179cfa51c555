"""What a budget and a criterion cost while a picture is prepared.

A budget: one tree by alpha, one that is pruned, and one at the size at which alpha fits. A criterion: a tree by each. Run as ``python benchmarks/fits.py``.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from _report import PHOTOGRAPHS, machine, milliseconds, photograph, summarise, table, write_section
from _ways import WAYS, each, least, small_files, using

from qlip import QlipImageProcessor, Quadtree
from qlip.core.criteria import CRITERIA
from qlip.images.read import to_pixels

SIZES = {"336": 336, "672": 672, "1344": 1344, "their own": None}
BUDGETS = (64, 288, 576)
ALPHA = 0.3
EDGES = (336, 672, 1344)  # pixels of the squares that criteria are timed on


def row(name: str, budget: int, pictures: Sequence[torch.Tensor], way: str, repeats: int) -> list[str]:
    """Milliseconds a picture of each fit at one size and budget, and those with a budget over the one without."""
    size = SIZES[name]
    processors = {
        "alpha": QlipImageProcessor(size, quadtree=Quadtree(ALPHA)),
        "prune": QlipImageProcessor(size, quadtree=Quadtree(max_tokens=budget)),
        "scale": QlipImageProcessor(size, quadtree=Quadtree(ALPHA, max_tokens=budget), fit="scale"),
    }
    with using(way):
        took = least({fit: partial(each, made.cut, pictures) for fit, made in processors.items()}, repeats)
    ms = {fit: total / len(pictures) for fit, total in took.items()}
    ratios = [f"{ms[fit] / ms['alpha']:.2f}x" for fit in ("prune", "scale")]
    made = [name, f"{budget}", f"{ms['alpha']:.1f}", f"{ms['prune']:.1f}", ratios[0], f"{ms['scale']:.1f}", ratios[1]]
    print(way, *made, sep="\t", flush=True)
    return made


def by_criterion(repeats: int) -> list[list[str]]:
    """A row for each criterion that looks at a picture: milliseconds of a tree by alpha at three sizes, mean over photographs."""
    took = {}
    for edge in EDGES:
        pictures = [photograph(name, edge, edge)[None] for name in PHOTOGRAPHS]
        for name in CRITERIA.keys() - {"random", "uniform"}:
            tree = Quadtree(ALPHA, name)
            took[name, edge] = sum(milliseconds(partial(tree.batch, picture), repeats) for picture in pictures)
    return [
        [f"`{name}`", *(f"{took[name, edge] / len(PHOTOGRAPHS):.1f}" for edge in EDGES)]
        for name in CRITERIA
        if (name, EDGES[0]) in took
    ]


def main() -> None:
    """Measure everything and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    pictures = [to_pixels(data) for data in small_files()]
    rows = {way: [row(name, budget, pictures, way, repeats) for name in SIZES for budget in BUDGETS] for way in WAYS}
    header = ["shortest edge", "budget", "by alpha, ms", "prune, ms", "ratio", "scale, ms", "ratio"]
    edges = ["criterion", *(f"{edge} x {edge}, ms" for edge in EDGES)]
    criteria = table(edges, by_criterion(repeats))
    write_section(
        "fits", TEXT.format(machine(), ALPHA, *(table(header, rows[way]) for way in WAYS), len(PHOTOGRAPHS), criteria)
    )
    for way in WAYS:
        ratios, example = sorted(float(row[-1][:-1]) for row in rows[way]), rows[way][1]
        summarise(
            (
                f'A budget by fit="scale", {way}',
                f"{example[-2]} ms at {example[0]} px",
                f"one tree, {example[2]} ms",
                f"{ratios[0]:.2f}x to {ratios[-1]:.2f}x",
                "2x",
            )
        )


TEXT = """## Budgets and criteria

`python benchmarks/fits.py` ({}; one thread, processor time, least of several turns)

Milliseconds a picture, from decoded pixels to the leaves, mean over scikit-image's photographs: a tree by alpha {}, without a budget; a budget by
`fit="prune"`, which builds one tree at the same size; and by `fit="scale"`, which counts the leaves of a pyramid of smaller pictures, and builds the tree at the size at which
they fit. Wanted: at most 2x. With tensors:

{}

With compiled loops. A tree of a picture that is not scaled is so cheap then that scaling it, which both ways do alike, is most of what
a budget costs:

{}

The tree alone, by alpha, with tensors, mean over {} photographs:

{}
"""


if __name__ == "__main__":
    main()
