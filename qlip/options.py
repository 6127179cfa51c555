"""What the parsers of the verbs have in common: options are the fields of dataclasses, spelt with hyphens or underscores."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings

from qlip.structured import check_configs

Verb = Callable[[Namespace], None]


def verbs_parser(prog: str, verbs: Mapping[str, tuple[Verb, Callable[[ArgumentParser], None]]]) -> ArgumentParser:
    """A parser of several verbs, whose helps are the docstrings of their functions and of the dataclasses' fields.

    Args:
        prog: Name of the program in messages.
        verbs: By name, what runs a verb, and what adds its options to a parser.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True, unset_sentinel=True)
    parser = ArgumentParser(prog=prog, exit_on_error=False)
    parsers = parser.add_subcommands(dest="verb")
    for name, (function, add_options) in verbs.items():
        one = ArgumentParser(description=function.__doc__, exit_on_error=False)
        one.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options.")
        add_options(one)
        parsers.add_subcommand(name, one)
    return parser


def parse_verb(parser: ArgumentParser, args: Sequence[str]) -> tuple[str, Namespace]:
    """The verb of a command line and its options.

    Raises:
        OSError: if a file of options cannot be read.
        ValueError: if one is damaged.
        argparse.ArgumentError: if an argument is unknown, missing or of the wrong type.
    """
    check_configs(args)
    try:
        options = parser.parse_args([underscored(arg) for arg in args])
    except OverflowError as error:
        longest = max(range(len(args)), key=lambda i: len(args[i]))
        option = args[longest] if args[longest].startswith("--") else args[max(longest - 1, 0)]
        raise ValueError(f"{option.partition('=')[0].lstrip('-')}: got a number that is too large ({error})") from error
    return options.verb, options[options.verb]


def underscored(argument: str) -> str:
    """``--max-tokens=9`` to ``--max_tokens=9``: both spellings are taken."""
    name, equals, value = argument.partition("=")
    return (name.replace("-", "_").replace("__", "--", 1) if name.startswith("--") else name) + equals + value


def take(kind: type[Any], options: Namespace) -> Any:
    """A dataclass from the options of its own names."""
    return kind(**{field.name: options[field.name] for field in dataclasses.fields(kind)})
