"""The verbs ``show`` and ``tune``. Every option is a field of a dataclass, and its help is the field's docstring."""

from pathlib import Path

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings
from rich.console import Console

from qlip.options import take, underscored
from qlip.structured import check_configs
from qlip.tools.config import ShowConfig, TuneConfig


def show(options: Namespace) -> None:
    """Draw what tokens hold: the leaves over a picture, the picture rebuilt from them, and plain downscaling at the same price."""
    from qlip.tools.show import run_show  # here and below, because the one does not need what the other loads

    for line in run_show(options.images, take(ShowConfig, options), options.grid):
        Console().print(line, highlight=False, soft_wrap=True, markup=False)


def tune(options: Namespace) -> None:
    """Find the settings at which a folder of pictures loses least for its tokens; a stopped run goes on where it stopped."""
    from qlip.tools.tune import run_tune

    run_tune(take(TuneConfig, options), Console())


GRID = "Draw leaves alone, in one sheet: size times 1, 1.5 and 2 by alpha (0.1 if not given) times 1, 3, 10 and 20."
VERBS = {"show": show, "tune": tune}


def build_parser(prog: str) -> ArgumentParser:
    """The parser of both verbs."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog=prog, exit_on_error=False)
    verbs = parser.add_subcommands(dest="verb")
    for name, function in VERBS.items():
        one = ArgumentParser(description=function.__doc__, exit_on_error=False)
        one.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options.")
        if function is show:
            one.add_argument("images", nargs="+", type=Path, help="Files of pictures.")
            one.add_argument("--grid", action="store_true", help=GRID)
            one.add_class_arguments(ShowConfig)
        else:
            one.add_class_arguments(TuneConfig, as_positional=True)
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
    options = build_parser(prog).parse_args([underscored(arg) for arg in args])
    VERBS[options.verb](options[options.verb])
