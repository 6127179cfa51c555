"""What ``--help`` shows, as text: parsing the verbs' options needs torch and Lightning, which take seconds to import.

`qlip.help.write` makes the texts from the parsers; a test compares them.
"""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
LIGHTNING = "lightning.txt"  # options that Lightning itself brings, the same for all of its verbs
WIDTH = 80


def read_help(verb: str, prog: str) -> str:
    """The help of a verb, such as ``fit`` or ``zoo list``, for the program of that name."""
    text = _read(file_of(verb))
    if LIGHTNING in text:
        text = text.replace(f"{LIGHTNING}\n", _read(LIGHTNING))
    return text.replace("{prog}", prog)


def overview(verbs: Sequence[str], prog: str) -> str:
    """The verbs of a program, each with the first sentence of its help."""
    indent = 4 + max(map(len, verbs))
    lines = [f"usage: {prog} VERB [options]", ""]
    for verb in verbs:
        lines += textwrap.wrap(
            _summary(verb), WIDTH, initial_indent=f"  {verb}".ljust(indent), subsequent_indent=" " * indent
        )
    lines += ["", f"{prog} VERB --help lists the options of a verb, {prog} --version prints the version."]
    return "\n".join(lines) + "\n"


def file_of(verb: str) -> str:
    """Name of the file that holds the help of a verb."""
    return f"{verb.replace(' ', '-')}.txt"


def _summary(verb: str) -> str:
    """The paragraph below the usage."""
    return re.sub(r"\s+", " ", _read(file_of(verb)).split("\n\n")[1])


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
