"""Many cells from one YAML file: those that are done are skipped, those that were stopped go on."""

import dataclasses
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from qlip.core.rules import shown
from qlip.evaluation.cell import Cell, Run
from qlip.evaluation.config import BiasConfig, SweepConfig
from qlip.evaluation.results import RESULT, read_cell
from qlip.evaluation.run.bias import is_measured, run_bias
from qlip.evaluation.run.vqa import run_vqa
from qlip.structured import check_fields, read_yaml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)

KEYS = ("out", "common", "grid", "run", "bias")
Runner = Callable[[Sequence[tuple[Cell, Run]]], dict[str, str]]
Config = TypeVar("Config", bound="DataclassInstance")


@dataclass(frozen=True)
class Sweep:
    """The cells of a sweep, in order.

    Attributes:
        cells: What is measured, each with where and on what.
        out: Folder that gets the results.
        bias: The measurement of figure 4 that goes with them, if the sweep has one.
    """

    cells: list[tuple[Cell, Run]]
    out: Path
    bias: BiasConfig | None = None

    @property
    def open(self) -> list[tuple[Cell, Run]]:
        """The cells without a result, those with a damaged one included."""
        damaged = self.damaged
        return [(cell, run) for cell, run in self.cells if cell.folder in damaged or not is_done(cell, run)]

    @property
    def damaged(self) -> dict[str, str]:
        """What is wrong with results that cannot be read, by folder."""
        found = {}
        for cell, run in self.cells:
            try:
                is_done(cell, run)
            except (OSError, ValueError) as error:
                found[cell.folder] = str(error)
        return found

    @property
    def open_bias(self) -> BiasConfig | None:
        """Figure 4, if it is still to be measured."""
        return None if self.bias is None or is_measured(self.bias) else self.bias


def read_sweep(config: SweepConfig) -> Sweep:
    """Read a sweep's file and make its cells.

    Raises:
        OSError: if there is no such file.
        ValueError: if it names an unknown key, or a value that is not taken; the message names it.
    """
    values = read_yaml(config.sweep)
    unknown = sorted(set(map(str, values)) - set(KEYS)) if isinstance(values, dict) else ["no mapping"]
    if unknown or "grid" not in values:
        raise ValueError(
            f"sweep: {config.sweep} has {', '.join(unknown) or 'no grid'}; takes {', '.join(KEYS)}, grid at least"
        )
    kinds = {"out": str, "common": dict, "run": dict, "bias": dict}
    check_fields(values, f"sweep: {config.sweep}", {"grid": list}, kinds)
    for number, entry in enumerate(values["grid"], start=1):
        if not isinstance(entry, dict) or not all(isinstance(name, str) for name in entry):
            raise ValueError(
                f"sweep: {config.sweep}: entry {number} of grid is {shown(entry)}; takes names of options with values"
            )
    common = dict(values.get("common", {})) | ({"model": config.model} if config.model else {})
    out = config.out or Path(values.get("out", f"results/{config.sweep.stem}"))
    cells: list[tuple[Cell, Run]] = []
    for fields in expand(values["grid"]):
        cell = _typed(Cell, common | fields, config.sweep)
        data = {"data": str(config.data / cell.benchmark)} if config.data else {}
        run = _typed(Run, {**values.get("run", {}), **data, "out": str(out / cell.folder)}, config.sweep)
        cells.append((cell, run))
    unique = {run.out: (cell, run) for cell, run in cells}  # grids may overlap
    bias = _typed(BiasConfig, {"out": str(out / "bias"), **values["bias"]}, config.sweep) if "bias" in values else None
    return Sweep(list(unique.values()), out, bias)


def expand(grid: Sequence[Mapping[str, object]]) -> Iterator[dict[str, object]]:
    """Every combination of the values of each entry; a value that is no list stands for itself."""
    for entry in grid:
        names = list(entry)
        values = [value if isinstance(value, list) else [value] for value in entry.values()]
        for combination in itertools.product(*values):
            yield dict(zip(names, combination, strict=True))


def _typed(config: type[Config], fields: Mapping[str, object], source: Path) -> Config:
    """A dataclass from plain values, checked as the command line checks them."""
    known = [field.name for field in dataclasses.fields(config)]
    unknown = sorted(fields.keys() - set(known))
    if unknown:
        raise ValueError(f"sweep: {source} has {', '.join(unknown)}; takes {', '.join(known)}")
    try:
        make: Callable[..., Config] = config
        return make(**{name: _checked(config, name, json.dumps(value)) for name, value in fields.items()})
    except (ArgumentError, TypeError, ValueError) as error:
        raise ValueError(f"sweep: {source}: {str(error)[:1000]}") from error


@cache  # thousands of cells share a handful of values
def _checked(config: type, name: str, value: str) -> object:
    """The value of one field, given as JSON."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{name}", type=get_type_hints(config)[name])
    return parser.parse_object({name: json.loads(value)})[name]


def take_shard(cells: Sequence[tuple[Cell, Run]], shard: str) -> list[tuple[Cell, Run]]:
    """Every n-th cell from the i-th, for a ``shard`` written "i/n".

    Raises:
        ValueError: if the shard is written otherwise, or i is not below n.
    """
    first, slash, count = shard.partition("/")
    if not (slash and first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise ValueError(f"cells: got {shown(shard)}; takes i/n with i from 0 to n - 1, for example 0/8")
    return list(cells[int(first) :: int(count)])


def is_done(cell: Cell, run: Run) -> bool:
    """Whether a cell has its result.

    Raises:
        ValueError: if the result that is there does not describe a cell.
    """
    path = (run.out or Path("results") / cell.folder) / RESULT
    return path.is_file() and read_cell(path) == cell


def run_here(cells: Sequence[tuple[Cell, Run]]) -> dict[str, str]:
    """Measure cells one after the other in this process; what failed and why, by folder.

    A cell that fails does not stop the others; one that the user stops does.
    """
    failed = {}
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(
        logging.WARNING
    )  # accelerators, for every cell anew
    started = time.monotonic()
    for number, (cell, run) in enumerate(cells, start=1):
        log.info("cell %d of %d%s: %s", number, len(cells), _left(number - 1, len(cells), started), cell.folder)
        try:
            run_vqa(cell, run)
        except Exception as error:  # whatever it is, the other cells are worth their hours
            log.exception("cell %s failed; the next one goes on", cell.folder)
            failed[cell.folder] = f"{type(error).__name__}: {error}"
    return failed


def _left(done: int, count: int, started: float) -> str:
    """``, 12 min left`` at the pace so far; nothing before the first cell is done."""
    if not done:
        return ""
    minutes = (time.monotonic() - started) / done * (count - done) / 60
    return f", {minutes:.0f} min left" if minutes >= 1 else ", under a minute left"


def run_sweep(config: SweepConfig, runner: Runner = run_here) -> Sweep:
    """Measure what is left of a shard of a sweep; figure 4 comes last, and belongs to shard 0.

    Raises:
        OSError: if cells failed, naming them; run again to try them again.
        ValueError: if figure 4's images are not there or an option is not taken.
    """
    whole = read_sweep(config)
    bias = whole.bias if config.cells.startswith("0/") else None
    sweep = Sweep(take_shard(whole.cells, config.cells), whole.out, bias)
    if config.dry_run:
        return sweep
    damaged = sweep.damaged
    failed = damaged | runner([(cell, run) for cell, run in sweep.open if cell.folder not in damaged])
    if failed:
        listed = "\n".join(f"  {name}: {why}" for name, why in failed.items())
        raise OSError(f"{len(failed)} of {len(sweep.cells)} cells failed; the same command tries them again\n{listed}")
    if sweep.open_bias:
        run_bias(sweep.open_bias)
    return sweep
