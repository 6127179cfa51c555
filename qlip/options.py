"""What the parsers of the verbs have in common: options are the fields of dataclasses, spelt with hyphens or underscores."""

import dataclasses
from typing import Any

from jsonargparse import Namespace


def underscored(argument: str) -> str:
    """``--max-tokens=9`` to ``--max_tokens=9``: both spellings are taken."""
    name, equals, value = argument.partition("=")
    return (name.replace("-", "_").replace("__", "--", 1) if name.startswith("--") else name) + equals + value


def take(kind: type[Any], options: Namespace) -> Any:
    """A dataclass from the options of its own names."""
    return kind(**{field.name: options[field.name] for field in dataclasses.fields(kind)})
