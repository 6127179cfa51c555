"""The solved readout on CLIP-like tables: how long it takes, how exact it is, and how smooth between the grid's points.

Run as ``python benchmarks/fit.py``.
"""

import torch
from _report import machine, milliseconds, table, write_section
from torch import Tensor

from qlip import PositionMLP
from qlip.towers.synthetic import smooth_table

GRIDS = (7, 14, 16, 24)
DIM = 1024


def new_mlp(grid: int) -> PositionMLP:
    """The paper's network, the same at every call."""
    torch.manual_seed(0)
    return PositionMLP(DIM, grid)


def min_norm(mlp: PositionMLP, entries: Tensor) -> PositionMLP:
    """The smallest readout that satisfies the grid's equations: what solving gives without the term between them."""
    with torch.no_grad():
        for parameter in mlp.readout.parameters():
            parameter.zero_()
    return mlp.project_(entries)


def quality(mlp: PositionMLP, entries: Tensor) -> list[str]:
    """R, R2 and the error off the grid, in words."""
    with torch.no_grad():
        first, second = mlp.residual(entries)
    return [f"{first:.1e}", f"{second:.1e}", f"{mlp.offgrid(entries):.3f}"]


def main() -> None:
    """Measure every grid and write the section."""
    torch.set_num_threads(1)
    rows = []
    for grid in GRIDS:
        entries, mlp = smooth_table(grid, DIM), new_mlp(grid)
        seconds = milliseconds(lambda m=mlp, e=entries: m.solve_(e), 3) / 1000
        solved, smallest = quality(mlp, entries), quality(min_norm(new_mlp(grid), entries), entries)
        rows.append([f"{grid} x {grid}", f"{mlp.sigma:.2f}", f"{seconds:.2f}", *solved, *smallest])
        print(*rows[-1], sep="\t", flush=True)
    header = ["grid", "sigma", "seconds", "R", "R2", "off grid", "R, min-norm", "R2, min-norm", "off grid, min-norm"]
    write_section("fit", TEXT.format(machine(), DIM, table(header, rows)))


TEXT = """## Solved readout

`python benchmarks/fit.py` ({}; one thread, seconds of processor time, best of three)

Tables of width {}, smooth with noise and with CLIP's standard deviation 0.014 (`qlip.towers.synthetic.smooth_table`);
the paper's 4 x 1024 network, solved in float64 and rounded to float32. R and R2 are the mean absolute and mean squared
difference on the grid (the paper's target: R < 5e-7); off grid is the relative rms difference from bicubic interpolation
between its points. Both solutions satisfy the grid's equations; min-norm leaves out the term that asks for bicubic between
them, and R does not show what that costs.

{}
"""


if __name__ == "__main__":
    main()
