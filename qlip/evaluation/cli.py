"""The verbs of evaluation, ``vqa``, ``bias``, ``sweep`` and ``report``.

Every option is a field of a dataclass, and its help is the field's docstring.
"""

import dataclasses
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings
from rich.console import Console

from qlip.configs import find
from qlip.evaluation.cell import Cell, Run
from qlip.evaluation.config import BiasConfig, ReportConfig, SweepConfig
from qlip.evaluation.report.report import write_report
from qlip.evaluation.run.bias import run_bias
from qlip.evaluation.run.sweep import Runner, run_here, run_sweep
from qlip.evaluation.run.vqa import run_vqa
from qlip.structured import check_configs


def vqa(options: Namespace) -> None:
    """Ask a benchmark's questions and score the answers; a stopped run goes on where it stopped."""
    cell = _take(Cell, options)
    _refuse_idle_options(cell)
    result = run_vqa(cell, _take(Run, options))
    headline = result["scores"][result["primary"]]
    Console().print(
        f"{options.benchmark} {result['primary']}: {headline['value']:.1f} "
        f"(95 % {headline['low']:.1f} to {headline['high']:.1f}), {result['tokens']['percent']:.0f} % of the tokens, "
        f"{100 * result['unparsed']:.1f} % not understood",
        highlight=False,
        soft_wrap=True,
    )


def _refuse_idle_options(cell: Cell) -> None:
    """Raise where an option is set that has no effect on the stock model.

    A sweep may set them for all of its cells, baselines included.
    """
    idle = ("position", "size", "crop", "alpha", "max_tokens", "criterion", "cover", "fit")
    given = [name for name in idle if getattr(cell, name) != Cell.__dataclass_fields__[name].default]
    if cell.baseline == "own":
        given = [name for name in given if name != "max_tokens"]  # families of free resolution are scaled down to it
    if cell.baseline and given:
        raise ValueError(
            f"baseline: got {cell.baseline!r} with {', '.join(given)}; the stock model takes none of them. Leave them out"
        )


def bias(options: Namespace) -> None:
    """Measure interpolation and mesoscopic bias over image sizes, as figure 4 does, on a folder of images."""
    config = _take(BiasConfig, options)
    run_bias(config)
    Console().print(f"{config.out}: bias.json, bias.csv, bias.png; tensorboard --logdir {config.out}", soft_wrap=True)


def _on_ray(config: SweepConfig) -> Runner:
    """The runner of ``--ray``.

    Raises:
        ValueError: if Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError(
            f"ray: got {config.ray!r}, but Ray is not installed; pip install 'qlip[ray]', or leave --ray out"
        )
    from qlip.evaluation.run.ray_sweep import run_on_ray  # here, because Ray is an extra

    return partial(run_on_ray, address=str(config.ray), gpus=config.gpus)


def sweep(options: Namespace) -> None:
    """Measure every cell of a sweep; those that are done are skipped, those that were stopped go on."""
    config = _take(SweepConfig, options)
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
    Console().print(f"{write_report(_take(ReportConfig, options))}", highlight=False, soft_wrap=True)


VERBS: dict[str, tuple[Callable[[Namespace], None], tuple[type, ...]]] = {
    "bias": (bias, (BiasConfig,)),
    "vqa": (vqa, (Cell, Run)),
    "sweep": (sweep, (SweepConfig,)),
    "report": (report, (ReportConfig,)),
}
POSITIONAL = (bias, sweep, report)  # their required options stand without a name


def _take(kind: type[Any], options: Namespace) -> Any:
    """A dataclass from the options of its own names."""
    return kind(**{field.name: options[field.name] for field in dataclasses.fields(kind)})


def _underscored(argument: str) -> str:
    """``--max-tokens=9`` to ``--max_tokens=9``: both spellings are taken."""
    name, equals, value = argument.partition("=")
    return (name.replace("-", "_").replace("__", "--", 1) if name.startswith("--") else name) + equals + value


def build_parser(prog: str) -> ArgumentParser:
    """The parser of all verbs."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog=prog, exit_on_error=False)
    verbs = parser.add_subcommands(dest="verb")
    for name, (function, kinds) in VERBS.items():
        one = ArgumentParser(description=function.__doc__, exit_on_error=False)
        one.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options.")
        for kind in kinds:
            one.add_class_arguments(kind, as_positional=function in POSITIONAL)
        verbs.add_subcommand(name, one)
    return parser


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
    check_configs(args)
    options = build_parser(prog).parse_args([_underscored(arg) for arg in args])
    VERBS[options.verb][0](options[options.verb])
