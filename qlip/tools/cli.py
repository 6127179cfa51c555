"""The verbs ``compare`` and ``demo``. Every option is a field of a dataclass, and its help is the field's docstring."""

import importlib.util
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings
from rich.console import Console

from qlip.evaluation.cell import Cell, Run
from qlip.options import take, underscored
from qlip.structured import check_configs
from qlip.tools.config import CompareConfig, DemoConfig

# what `compare` sets itself, or does not take
_SET = {"benchmark", "baseline", "max_tokens", "seed", "prompt_style", "scoring", "hub", "data_revision"}
_PLACES = {"data", "out"}


def compare(options: Namespace) -> None:
    """Put your own questions to a model, stock and converted, and show the answers side by side; a stopped run goes on where it stopped."""
    from qlip.tools.compare import run_compare  # here, because the demo does without
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


VERBS: dict[str, Callable[[Namespace], None]] = {"compare": compare, "demo": demo}


def build_parser(prog: str) -> ArgumentParser:
    """The parser of the verbs."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog=prog, exit_on_error=False)
    verbs = parser.add_subcommands(dest="verb")
    for name, function in VERBS.items():
        one = ArgumentParser(description=function.__doc__, exit_on_error=False)
        one.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options.")
        if function is compare:
            _add_compare(one)
        else:
            one.add_class_arguments(DemoConfig)
        verbs.add_subcommand(name, one)
    return parser


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
