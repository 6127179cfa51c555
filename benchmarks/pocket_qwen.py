"""pocket-qwen at equal tokens: the picture scaled down by the stock processor, and a quadtree; over drawn backgrounds and photographs.

python benchmarks/pocket_qwen.py      runs the sweep pocket-qwen, which goes on where it stopped, and writes a section of docs/pocket.md
"""

from pathlib import Path

import _report
import numpy as np

from qlip.evaluation.config import SweepConfig
from qlip.evaluation.results import Group, Result, find_results, group_results
from qlip.evaluation.run.sweep import run_sweep
from qlip.evaluation.statistics import Estimate, compare

ROOT = Path(__file__).parents[1]
SWEEP, RESULTS = ROOT / "qlip/configs/sweeps/pocket-qwen.yaml", ROOT / "results/pocket-qwen"
BENCHMARKS = ("vstar-pocket", "vstar-photo", "pope-pocket", "pope-photo")
HEADER = ["benchmark", "tokens", "scaled down, stock", "prune", "less stock", "scale", "less stock"]


def interval(value: Estimate, sign: str = "") -> str:
    """A number and its 95 % interval; differences have a sign."""
    return f"{value.value:{sign}.1f} [{value.low:{sign}.1f}, {value.high:{sign}.1f}]"


def mean_tokens(run: Result) -> float:
    """Mean image tokens of a question."""
    return float(np.mean([record["tokens"] for record in run.records]))


def rows(group: Group) -> list[list[str]]:
    """Lines of the table about one benchmark: the whole picture first, then one for each budget."""
    whole = group.baselines["own"]
    name = f"{group.benchmark.name}, {group.benchmark.primary}"
    made = [[name, f"{mean_tokens(whole):.0f}, all", interval(whole.score), "", "", "", ""]]
    for budget in sorted({run.cell.max_tokens for run in group.cells if run.cell.max_tokens}):
        stock = group.baselines[f"own, {budget} tokens"]
        line, spent = [interval(stock.score)], [mean_tokens(stock)]
        for fit in ("prune", "scale"):
            (run,) = (run for run in group.cells if (run.cell.max_tokens, run.cell.fit) == (budget, fit))
            gap = compare(group.benchmark, run.records, stock.records)[run.primary]
            line += [interval(run.score), interval(gap, "+")]
            spent.append(mean_tokens(run))
        made.append([name, f"{budget}: {', '.join(f'{count:.0f}' for count in spent)}", *line])
    return made


def main() -> None:
    """Measure and write."""
    run_sweep(SweepConfig(sweep=SWEEP))
    groups = {group.benchmark.name: group for group in group_results(find_results(RESULTS))}
    questions = {group.baselines["own"].data["questions"] for group in groups.values()}
    table = _report.table(HEADER, [row for name in BENCHMARKS for row in rows(groups[name])])
    asked = f"{' or '.join(map(str, sorted(questions)))} questions of each; tokens: the budget, and what stock, prune and scale spend of it."
    _report.write_section("qwen", f"{asked}\n\n{table}", ROOT / "docs/pocket.md")


if __name__ == "__main__":
    main()
