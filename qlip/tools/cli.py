"""The verbs ``show``, ``tune``, ``compare`` and ``demo``. Every option is a field of a dataclass, and its help is the field's docstring."""

import importlib.util
from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from qlip.evaluation.cell import Cell, Run
from qlip.options import parse_verb, take, verbs_parser
from qlip.tools.config import CompareConfig, DemoConfig, ShowConfig, TuneConfig

GRID = "Draw leaves alone, in one sheet: size times 1, 1.5 and 2 by alpha (0.1 if not given) times 1, 3, 10 and 20."
# what `compare` sets itself, or does not take
_SET = {"benchmark", "baseline", "max_tokens", "seed", "prompt_style", "scoring", "hub", "data_revision"}
_PLACES = {"data", "out"}


def show(options: Namespace) -> None:
    """Draw what tokens hold: the leaves over a picture, the picture rebuilt from them, and plain downscaling at the same price."""
    from qlip.tools.show import run_show  # here and below, because no verb needs what another loads

    for line in run_show(options.images, take(ShowConfig, options), options.grid):
        Console().print(line, highlight=False, soft_wrap=True, markup=False)


def tune(options: Namespace) -> None:
    """Find the settings at which a folder of pictures loses least for its tokens; a stopped run goes on where it stopped."""
    from qlip.tools.tune import run_tune

    run_tune(take(TuneConfig, options), Console())


def compare(options: Namespace) -> None:
    """Put your own questions to a model, stock and converted, and show the answers side by side; a stopped run goes on where it stopped."""
    from qlip.tools.compare import run_compare
    from qlip.tools.compare_page import lines, write_page

    asked = {field.name: options[field.name] for field in fields(Cell) if field.name not in _SET}
    used = {field.name: options[field.name] for field in fields(Run) if field.name not in _PLACES}
    cell, run = Cell(benchmark="local", **asked), Run(data=options.folder, **used)
    comparison, out = run_compare(options.folder, options.questions, cell, run, take(CompareConfig, options))
    for line in [*lines(comparison), f"written to {write_page(comparison, out)}"]:
        Console().print(line, highlight=False, soft_wrap=True, markup=False)


def demo(options: Namespace) -> None:
    """Serve a page to try a model on: upload a picture, move the sliders, see the leaves and what they hold, and ask a question."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("demo: Gradio is not installed; pip install 'qlip[demo]'")
    from qlip.tools.demo_page import serve  # here, because Gradio is an extra

    serve(take(DemoConfig, options))


def _add_show(parser: ArgumentParser) -> None:
    """Pictures, and how they are shown."""
    parser.add_argument("images", nargs="+", type=Path, help="Files of pictures.")
    parser.add_argument("--grid", action="store_true", help=GRID)
    parser.add_class_arguments(ShowConfig)


def _add_tune(parser: ArgumentParser) -> None:
    """A folder, and what is asked of it."""
    parser.add_class_arguments(TuneConfig, as_positional=True)


def _add_compare(parser: ArgumentParser) -> None:
    """The options of ``vqa`` that a comparison takes, and its own."""
    parser.add_argument("folder", type=Path, help="Folder of pictures.")
    parser.add_argument(
        "questions",
        type=Path,
        help="CSV file in UTF-8 with a header. Its columns are image, a path below the folder; question; and, where it is known, "
        "answer: a right answer of a word or two, several with | between them. Options may be written under a question as lines "
        "that begin with A. and so on; the answer is then a letter. Other columns are ignored.",
    )
    parser.add_class_arguments(CompareConfig)
    parser.add_class_arguments(Cell, skip=_SET)
    parser.add_class_arguments(Run, skip=_PLACES)


def _add_demo(parser: ArgumentParser) -> None:
    """The page."""
    parser.add_class_arguments(DemoConfig)


VERBS = {
    "show": (show, _add_show),
    "tune": (tune, _add_tune),
    "compare": (compare, _add_compare),
    "demo": (demo, _add_demo),
}


def build_parser(prog: str) -> ArgumentParser:
    """The parser of the verbs."""
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
