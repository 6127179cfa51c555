"""The verbs of evaluation, ``vqa``, ``bias``, ``sweep`` and ``report``.

Every option is a field of a dataclass, and its help is the field's docstring.
"""

import dataclasses
import importlib.util
from collections.abc import Callable
from functools import partial

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from qlip.configs import find
from qlip.core.rules import shown
from qlip.evaluation.cell import Cell, Run, Vision
from qlip.evaluation.config import BiasConfig, ReportConfig, SweepConfig
from qlip.evaluation.report.report import write_report
from qlip.evaluation.run.bias import run_bias
from qlip.evaluation.run.sweep import Runner, run_here, run_sweep
from qlip.evaluation.run.vqa import run_vqa
from qlip.options import parse_verb, take, verbs_parser


def vqa(options: Namespace) -> None:
    """Ask a benchmark's questions and score the answers; a stopped run goes on where it stopped."""
    cell = take(Cell, options)
    _refuse_idle_options(cell)
    result = run_vqa(cell, take(Run, options))
    headline = result["scores"].get(result["primary"])
    scored = "no right answers to score by"
    if headline:
        scored = f"{headline['value']:.1f} (95 % {headline['low']:.1f} to {headline['high']:.1f})"
    Console().print(
        f"{options.benchmark} {result['primary']}: {scored}, {result['tokens']['percent']:.0f} % of the tokens, "
        f"{100 * result['unparsed']:.1f} % not understood",
        highlight=False,
        soft_wrap=True,
    )


def _refuse_idle_options(cell: Cell) -> None:
    """Raise where an option is set that has no effect on the stock model.

    A sweep may set them for all of its cells, baselines included.
    """
    idle = Vision.__dataclass_fields__.keys() - {"baseline", "seed"}
    given = [name for name in sorted(idle) if getattr(cell, name) != Cell.__dataclass_fields__[name].default]
    if cell.baseline == "own":
        given = [name for name in given if name != "max_tokens"]  # families of free resolution are scaled down to it
    if cell.baseline and given:
        raise ValueError(
            f"baseline: got {shown(cell.baseline)} with {', '.join(given)}; the stock model takes none of them. Leave them out"
        )


def bias(options: Namespace) -> None:
    """Measure interpolation and mesoscopic bias over image sizes, as figure 4 does, on a folder of images."""
    config = take(BiasConfig, options)
    run_bias(config)
    Console().print(f"{config.out}: bias.json, bias.csv, bias.png; tensorboard --logdir {config.out}", soft_wrap=True)


def _on_ray(config: SweepConfig) -> Runner:
    """The runner of ``--ray``.

    Raises:
        ValueError: if Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError(
            f"ray: got {shown(config.ray)}, but Ray is not installed; pip install 'qlip[ray]', or leave --ray out"
        )
    from qlip.evaluation.run.ray_sweep import run_on_ray  # here, because Ray is an extra

    return partial(run_on_ray, address=str(config.ray), gpus=config.gpus)


def sweep(options: Namespace) -> None:
    """Measure every cell of a sweep; those that are done are skipped, those that were stopped go on."""
    config = take(SweepConfig, options)
    config = dataclasses.replace(config, sweep=find(config.sweep, "sweep"))
    done = run_sweep(config, _on_ray(config) if config.ray else run_here)
    console = Console()
    for name in [*(cell.folder for cell, _ in done.open), *(["bias"] if done.open_bias else [])]:
        console.print(f"open: {name}", highlight=False, soft_wrap=True)
    for why in done.damaged.values():
        console.print(f"damaged: {why}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"{len(done.cells) - len(done.open)} of {len(done.cells)} cells done", highlight=False)


def report(options: Namespace) -> None:
    """Draw the paper's tables and figures from finished runs, as one HTML page, markdown and CSV."""
    Console().print(f"{write_report(take(ReportConfig, options))}", highlight=False, soft_wrap=True)


def _options(*kinds: type, positional: bool = False) -> Callable[[ArgumentParser], None]:
    """What adds the fields of dataclasses to a parser; if ``positional``, those without a default stand without a name."""

    def add(parser: ArgumentParser) -> None:
        for kind in kinds:
            parser.add_class_arguments(kind, as_positional=positional)

    return add


VERBS = {
    "bias": (bias, _options(BiasConfig, positional=True)),
    "vqa": (vqa, _options(Cell, Run)),
    "sweep": (sweep, _options(SweepConfig, positional=True)),
    "report": (report, _options(ReportConfig, positional=True)),
}


def build_parser(prog: str) -> ArgumentParser:
    """The parser of all verbs."""
    return verbs_parser(prog, VERBS)


def run(args: list[str], prog: str) -> None:
    """Run one of the verbs.

    Args:
        args: The verb and its options.
        prog: Name of the program in messages.

    Raises:
        OSError: if something is not there or cannot be written.
        ValueError: if an option is not taken.
        argparse.ArgumentError: if an argument is unknown, missing or of the wrong type.
    """
    verb, options = parse_verb(build_parser(prog), args)
    VERBS[verb][0](options)
