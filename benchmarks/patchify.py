"""Quadtree and patches against the obvious recursion, which is how the paper's released code does it.

Run as ``python benchmarks/patchify.py``.
"""

import torch
import torch.nn.functional as F
from _report import PHOTOGRAPHS, machine, milliseconds, picture, summarise, table, write_section
from torch import Tensor

from qlip import Quadtree, patchify
from qlip.core import compiled
from qlip.images.eight_bit import EightBitImage

P = 14
SIZES = [(336, 336), (448, 448), (672, 672), (672, 1008), (1008, 1008), (1344, 1344)]
ALPHAS = [0.1, 0.3, 0.7, 1.5, 3.0]  # out of the paper's sweep
WANTED = 20

Leaf = tuple[int, int, int]


def recursive_leaves(image: Tensor, alpha: float) -> list[Leaf]:
    """Leaves ``(row, col, size)`` in patches, block by block: torch for the score of a block, Python for the tree."""
    h, w = image.shape[-2] // P, image.shape[-1] // P
    side = 2 ** max(min(h, w).bit_length() - 2, 0)
    rows, cols = -(-h // side), -(-w // side)  # roots that cover the image stick out of it
    top, left = (h - rows * side) // 2, (w - cols * side) // 2
    leaves: list[Leaf] = []

    def visit(row: int, col: int, size: int) -> None:
        if row + size <= 0 or col + size <= 0 or row >= h or col >= w:
            return
        if row >= 0 and col >= 0 and row + size <= h and col + size <= w:
            block = image[:, row * P : (row + size) * P, col * P : (col + size) * P]
            if size == 1 or (block[:, 1:, 1:] - block[:, :-1, :-1]).max().item() < alpha:
                leaves.append((row, col, size))
                return
        half = size // 2
        for r, c in ((0, 0), (0, half), (half, 0), (half, half)):
            visit(row + r, col + c, half)

    for i in range(rows):
        for j in range(cols):
            visit(top + i * side, left + j * side, side)
    return sorted(leaves)


def recursive_patches(image: Tensor, leaves: list[Leaf]) -> Tensor:
    """Patches ``(N, 3, p, p)``, one leaf after the other."""
    patches = torch.zeros(len(leaves), 3, P, P)
    for i, (row, col, size) in enumerate(leaves):
        block = image[:, row * P : (row + size) * P, col * P : (col + size) * P]
        if size > 1:
            block = F.interpolate(block[None], size=(P, P), mode="bilinear", antialias=True)[0]
        patches[i] = block
    return patches


def compare(image: EightBitImage, alpha: float) -> tuple[float, ...]:
    """Leaves of an image, and milliseconds of the recursion, of our tree and patches as tensors, and of the compiled loops.

    Raises:
        RuntimeError: if they do not agree.
    """
    tree = Quadtree(alpha)
    expected = recursive_leaves(image.floats, alpha)
    patches = recursive_patches(image.floats, expected)
    ways = {
        "tensors": (lambda: tree(image.floats), lambda: patchify(image.floats, leaves)),
        "compiled": (lambda: image.leaves(tree), lambda: image.patches(leaves)),
    }
    took = [milliseconds(lambda: recursive_patches(image.floats, recursive_leaves(image.floats, alpha)), 5)]
    for name, (find, cut) in ways.items():
        leaves = find()
        got = list(zip(leaves.row.tolist(), leaves.col.tolist(), leaves.size.tolist(), strict=True))
        if got != expected or not torch.allclose(cut(), patches, atol=1e-5):
            raise RuntimeError(f"{name}: the two ways disagree at {tuple(image.pixels.shape)}, alpha {alpha}")
        took += [milliseconds(find, 30), milliseconds(cut, 30)]
    return (len(expected), *took)


def main() -> None:
    """Measure everything and write the section."""
    if compiled.kernels() is None:
        raise SystemExit('benchmarks/patchify.py compares with compiled loops: pip install "qlip[fast]"')
    torch.set_num_threads(1)  # as a DataLoader worker does
    header = ["pixels", "alpha", "leaves", "recursion", *2 * ["tree", "patches", "ratio"], "of tensors"]
    rows, ratios = [], []
    for height, width in SIZES:
        images = [picture(name, height, width) for name in PHOTOGRAPHS]
        for alpha in ALPHAS:
            results = torch.tensor([compare(image, alpha) for image in images], dtype=torch.float64)
            leaves, slow, *took = results.mean(0).tolist()
            tensors, loops = sum(took[:2]), sum(took[2:])
            ratios.append((slow / tensors, slow / loops, tensors / loops))
            ms = [f"{one:.2f}" for one in took]
            rows.append([f"{height} x {width}", f"{alpha}", f"{leaves:.0f}", f"{slow:.1f}"])
            by = [f"{ratio:.1f}x" for ratio in ratios[-1]]
            rows[-1] += [*ms[:2], by[0], *ms[2:], by[1], by[2]]
            print(*rows[-1], sep="\t", flush=True)
    reached = [sum(ratio[way] >= WANTED for ratio in ratios) for way in (0, 1)]
    least, *_, most = sorted(ratio[2] for ratio in ratios)
    text = TEXT.format(
        machine(), ", ".join(PHOTOGRAPHS), table(header, rows), len(rows), *reached, f"{least:.1f}", f"{most:.1f}"
    )
    write_section("patchify", text)
    for way, name in enumerate(("tensors", "compiled")):
        low, *_, high = values = sorted(ratio[way] for ratio in ratios)
        reach = f"{low:.1f} to {high:.1f} times as fast, median {values[len(values) // 2]:.1f}; {reached[way]} of {len(rows)}"
        summarise(
            (
                f"leaves and patches of an image, {name}",
                "",
                "a recursion in Python",
                reach,
                f"{WANTED} times in half of the rows",
            )
        )


TEXT = """## Quadtree and patches

`python benchmarks/patchify.py` ({}; one thread, as in a DataLoader worker)

Milliseconds of processor time an image, mean over scikit-image's {}, scaled to the size. The recursion in
`benchmarks/patchify.py` visits one block after the other and resamples one leaf after the other, with as little around
that as Python allows; the paper's released code does the same with more around it (a node object a block, a
torchvision resize a leaf, a tensor of patch numbers a leaf to sort them). Left, tensors of normalised floats, which is what runs
without numba, on a GPU, and for criteria other than `derivative`; right, loops over the bytes of the picture, which numba compiles
(`pip install "qlip[fast]"`) and which need no floats. Every row checks that the leaves and patches of both equal the recursion's.

{}

Of {} rows, {} reach the 20x we want with tensors, and {} with compiled loops, which are {} to {} times as fast as tensors.
The recursion pays some 20 microseconds a leaf and little a pixel, we pay by the pixel. So the gain is
largest where leaves are many; at alpha 3 nearly everything merges, a recursion of a few dozen calls has next to nothing to
be slow at, and both sides spend their time on reading every pixel once for its score and once to resample it.
On a machine with other work on its cores single figures move by a third from run to run, ours more than the recursion's,
which waits for Python and not for memory.
"""


if __name__ == "__main__":
    main()
