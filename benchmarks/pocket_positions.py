"""Which position is best as images grow: tables against solved and trained MLPs, on the pocket pair.

python benchmarks/pocket_positions.py      writes a section of docs/pocket.md; a quarter of an hour on two cores, can be stopped

Fits an MLP for pocket-clip with each of the variants below (a zoo entry each; those that are there are kept), then asks
vstar-pocket through whole grids of several sizes, and writes what came out.
"""

import subprocess
import sys
from pathlib import Path

import _report
import torch

import qlip
from qlip.evaluation.report.tables import delta, number
from qlip.evaluation.results import find_results, group_results
from qlip.evaluation.run.sweep import SweepConfig, run_sweep
from qlip.evaluation.statistics import compare
from qlip.towers.load import load_clip, position_table
from qlip.zoo.config import ZooConfig
from qlip.zoo.solve import solved_position
from qlip.zoo.store import save

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "qlip/configs/sweeps/pocket-positions.yaml"
SIGMAS = (0.25, 1.0, 2.0)  # the default is 8 / 16
SHORT = ["--trainer.max_epochs=2"]
BARE = ["--trainer.callbacks=[]"]  # without the projection
TRAINED = {
    "trained": [],
    "unprojected": BARE,
    "random-start": ["--model.mlp.init=random", *BARE],
    "merge-0": ["--data.merge=0"],
    "merge-0-to-0.5": ["--data.merge=[0,0.5]"],
}
SHOWN = {
    "bicubic": "table, bicubic",
    "bilinear": "table, bilinear",
    "zero": "no position",
    "solve": "MLP, solved (sigma 0.5, the default)",
    "pocket-sigma-0.25": "MLP, solved, sigma 0.25",
    "pocket-sigma-1": "MLP, solved, sigma 1",
    "pocket-sigma-2": "MLP, solved, sigma 2",
    "pocket-trained-last": "MLP, solved, trained and projected (half a quickstart)",
    "pocket-merge-0-last": "the same, merging 0",
    "pocket-merge-0-to-0.5-last": "the same, merging 0 to 0.5",
    "pocket-unprojected-last": "MLP, solved, trained, not projected",
    "pocket-random-start-last": "MLP, random start, trained, not projected",
}


def make_positions() -> None:
    """Solve and train what is not in the zoo yet."""
    table = position_table(load_clip("pocket-clip"))
    for sigma in SIGMAS:
        target = Path("checkpoints") / f"pocket-sigma-{sigma:g}"
        if not target.is_dir():
            position = solved_position(table, sigma=sigma)
            metrics = {"R": position.residual(table)[0].item(), "offgrid": position.offgrid(table)}
            save(position, target, ZooConfig.of(position, backbone="pocket-clip", patch_size=14, metrics=metrics))
    for name, options in TRAINED.items():
        if not (Path("checkpoints") / f"pocket-{name}-last").is_dir():
            command = [sys.executable, "train.py", "fit", "--config", "qlip/configs/quickstart.yaml", *SHORT, *options]
            subprocess.run([*command, f"--export.name=pocket-{name}"], cwd=ROOT, check=True)


def off_grid(position: str, table: torch.Tensor) -> tuple[str, str]:
    """R and off-grid error of an MLP, as text."""
    if position in ("bicubic", "bilinear", "zero"):
        return "", ""
    mlp = solved_position(table) if position == "solve" else qlip.load(position)
    return f"{mlp.residual(table)[0]:.1g}", f"{mlp.offgrid(table):.2g}"


def main() -> None:
    """Measure and write."""
    make_positions()
    run_sweep(SweepConfig(sweep=SWEEP))
    (group,) = group_results(find_results(Path("results/pocket-positions")))
    table = position_table(load_clip("pocket-clip"))
    cells = {(cell.config["position"], cell.config["size"]): cell for cell in group.cells}
    sizes = sorted({size for _, size in cells})
    rows = []
    for position in sorted({position for position, _ in cells}, key=list(SHOWN).index):
        row = [SHOWN[position], *off_grid(position, table)]
        for size in sizes:
            if (position, size) not in cells:
                row += ["", ""]
                continue
            cell, bicubic = cells[position, size], cells["bicubic", size]
            side = cell.values["scores"]["relative_position"]
            gap = compare(group.benchmark, cell.records, bicubic.records)["relative_position"]
            row.append(f"{side['value']:.1f}" if position == "bicubic" else f"{side['value']:.1f} ({delta(gap)})")
            row.append(number(cell.score))
        rows.append(row)
    head = ["position", "R", "off-grid"]
    for size in sizes:
        head += [f"{size} px, side and height (to bicubic)", f"{size} px, all"]
    text = (
        f"Whole grids, no quadtree; vstar-pocket, {group.cells[0].values['data']['questions']} questions, two fifths of them about side and height.\n\n"
        + _report.table(head, rows)
    )
    _report.write_section("positions", text, ROOT / "docs/pocket.md")


if __name__ == "__main__":
    main()
