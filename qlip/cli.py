"""The one command line: ``qlip VERB``, and what ``train.py`` and ``evaluate.py`` show of it.

A verb's module is imported once the verb is known, and never for help, which is kept as text in `qlip.help`. To add a
verb, name its module in `VERBS`, give that module a ``run(args, prog)``, and run ``python -m qlip.help.write``.
"""

import errno
import logging
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from importlib import import_module

from qlip._version import __version__
from qlip.help import overview, read_help

TRAINING = {verb: "qlip.training.cli" for verb in ("fit", "validate", "test", "predict")}
EVALUATION = {verb: "qlip.evaluation.cli" for verb in ("vqa", "bias", "sweep", "report")}
ZOO = {verb: "qlip.zoo.cli" for verb in ("zoo list", "zoo show", "zoo pull", "zoo push")}
TOOLS = {verb: "qlip.tools.cli" for verb in ("show", "tune", "compare", "demo")}
VERBS = {**TOOLS, **TRAINING, **EVALUATION, **ZOO}
PROGRAMS = {"qlip": VERBS, "train.py": TRAINING, "evaluate.py": EVALUATION}

HELP = {"-h", "--help"}
_CHATTER = (  # of Lightning, by the way: an advertisement, a device nobody asked for, a line that tears the progress bar
    "litlogger",
    "TPU available",
    "`Trainer.fit` stopped",
)
_NOISE = (  # messages that no user of these verbs can do anything about
    "Found .* module.* in eval mode",  # the frozen CLIP is meant to be
    ".*isinstance\\(treespec, LeafSpec\\)",
    ".*does not have many workers",
    "You are using a custom batch sampler",
    "You're resuming from a checkpoint that ended before the epoch ended",  # our sampler knows its place
    "LightningCLI's args parameter is intended to run from within Python",
)


def main(args: Sequence[str] | None = None, prog: str = "qlip") -> None:
    """Run a verb; what the user can put right is one line on stderr.

    Args:
        args: What follows the program's name; taken from the command line if not given.
        prog: Name of the program: ``qlip``, or the script whose verbs are offered.

    Raises:
        SystemExit: with status 1 and the line if something is not there, damaged or not taken; with status 2 if the command
            line cannot be understood.
    """
    words = list(sys.argv[1:] if args is None else args)
    verbs = PROGRAMS[prog]
    verb = next((verb for verb in verbs if words[: len(verb.split())] == verb.split()), None)
    if words == ["--version"]:
        print(f"qlip {__version__}")
    elif verb and HELP.intersection(words):
        print(read_help(verb, prog), end="")
    elif HELP.intersection(words):
        print(overview([verb for verb in verbs if verb.split()[0] == words[0]] or list(verbs), prog), end="")
    elif verb:
        _run(verbs[verb], words, prog, verb)
    elif prog == "train.py" and words and words[0].startswith("-"):  # Lightning takes --config before the verb too
        _run(TRAINING["fit"], words, prog, "fit")
    else:
        got = f"got {' '.join(words[:2])!r}" if words else "no verb given"
        _refuse(f"{prog}: {got}; takes {', '.join(verbs)}. See {prog} --help")


def _run(module: str, words: list[str], prog: str, verb: str) -> None:
    """Import the verb's module and run it, its errors in one line."""
    loaded = import_module(module)  # before our handler: Lightning, which would print beside it, then keeps to its own
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_handler()])
    logging.getLogger("qlip").setLevel(logging.INFO)
    chatter = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    chatter.addFilter(lambda record: not any(words in record.getMessage() for words in _CHATTER))
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    try:
        loaded.run(words, prog)
    except ArgumentError as error:
        from qlip.structured import config_files

        read = config_files(words)  # a parser does not say which file it is that it does not take
        where = f" (options of {', '.join(read)} among them)" if read else ""
        _refuse(f"{prog}: {_short(str(error))}{where}. See {prog} {verb} --help")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            from qlip.core.rules import shown

            sys.exit(f"{prog}: {shown(error.filename)} is too long for a name of a file; give a shorter one")
        sys.exit(f"{prog}: {_short(str(error))}")


def _short(message: str) -> str:
    """A message that can be read and printed: a value that was given may be of any length, and hold anything."""
    cut = message if len(message) <= 3000 else f"{message[:2000]} ... {message[-500:]}"
    return cut.encode(errors="backslashreplace").decode()


def _handler() -> logging.Handler:
    from rich.logging import RichHandler  # not for --help and --version

    return RichHandler(show_path=False)


def _refuse(message: str) -> None:
    """Say what is wrong with the command line itself."""
    print(message, file=sys.stderr)
    sys.exit(2)
