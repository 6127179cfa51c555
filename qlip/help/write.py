"""Write the texts of ``--help`` from the parsers: ``python -m qlip.help.write``, after any change of an option."""

import re
import textwrap
import types
from argparse import Action, ArgumentParser
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import capture_parser

import qlip
from qlip import configs
from qlip.core.criteria import CRITERIA
from qlip.evaluation import cli as evaluation
from qlip.evaluation.benchmarks import BENCHMARKS
from qlip.evaluation.names import BiasPosition
from qlip.files import write_text
from qlip.help import FOLDER, LIGHTNING, WIDTH, file_of
from qlip.tools import cli as tools
from qlip.training import cli as training
from qlip.zoo import cli as zoo
from qlip.zoo.resolve import PositionName

INDENT = 24
LIGHTNINGS = ("checkpoint", "trainer", "optimizer", "lr_scheduler")  # in this order, after what is ours
DESCRIPTIONS = {
    "fit": "Train the coordinate MLP of a frozen CLIP; without options this is the paper's training, projected.",
    "validate": "Measure a checkpoint on the validation photographs.",
    "test": "Measure a checkpoint on the validation photographs, logged under the name of a test.",
    "predict": "Compute the [CLS] outputs of the validation photographs with a checkpoint.",
}
_HELP = "Show this help and exit."
_PRINT = (
    "Print the configuration that all other options make, and exit; with =skip_default only what differs from defaults."
)
_TRAINED = (
    f"YAML file, or the name of one that comes with qlip: {', '.join(configs.names('recipe'))}. Later options win."
)
_RESUMED = (
    "Checkpoint to go on from or to measure: a path, or last for the newest resumable one under lightning_logs. Its own "
    "hyperparameters hold; options of the model that differ from them are refused."
)
TEXTS = {  # what the parsers do not say about their own options, or say at length
    "help": _HELP,
    "print_config": _PRINT,
    "training config": _TRAINED,
    "config": "YAML file with any of these options.",
    "ckpt_path": _RESUMED,
    "weights_only": "Whether to load tensors and plain values alone from the checkpoint, which is all that ours hold.",
    "verbose": "Whether to print the results.",
    "return_predictions": "Whether to keep the predictions; null decides by the strategy.",
    "seed_everything": "Seed of all random numbers; true draws one, false leaves them alone.",
}
NAMES = {  # what an option of a free type takes, from where the program itself looks it up
    "benchmark": f"One of {', '.join(BENCHMARKS)}.",
    "criterion": f"One of {', '.join(CRITERIA)}.",
    "position": f"One of {', '.join(get_args(PositionName))}, or what qlip.load takes.",
    "positions": f"Any of {', '.join(get_args(BiasPosition))}.",
    "sweep": f"Or the name of one that comes with qlip: {', '.join(configs.names('sweep'))}.",
}


def texts() -> dict[str, str]:
    """All texts by the names of their files."""
    found = {}
    for verb, parser in _parsers().items():
        options = [action for action in parser._actions if not action.dest.endswith(".help") and _is_value(action)]
        theirs = [action for action in options if action.dest.split(".")[0] in LIGHTNINGS]
        ours = [action for action in options if action not in theirs]
        usage = [f"{name} {_kind(action)}" if name else _kind(action) for action, name in _required(ours)]
        lines = [
            *textwrap.wrap(f"usage: {{prog}} {' '.join([verb, *usage])} [options]", WIDTH),
            "",
            *textwrap.wrap(_clean(DESCRIPTIONS.get(verb) or parser.description or ""), WIDTH),
        ]
        lines += [line for title, group in _groups(parser, ours, verb) for line in _section(title, group, verb)]
        found[file_of(verb)] = "\n".join([*lines, *(["", LIGHTNING] if theirs else [])]) + "\n"
        if theirs:
            found[LIGHTNING] = _lightning(theirs)
    return found


def _parsers() -> dict[str, ArgumentParser]:
    """The parser of every verb."""
    trained: Any = capture_parser(lambda: training.run(["fit"], "{prog}"))
    zoos: Any = capture_parser(lambda: zoo.run(["zoo", "list"], "{prog}"))
    found = {**_verbs(trained)}
    for part in (tools, evaluation):
        parser: Any = part.build_parser("{prog}")
        found |= _verbs(parser)
    return found | {f"zoo {verb}": parser for verb, parser in _verbs(_verbs(zoos)["zoo"]).items()}


def _verbs(parser: Any) -> dict[str, ArgumentParser]:
    return dict(parser._subparsers._group_actions[0].choices)


def _is_value(action: Action) -> bool:
    """Whether an option sets a value; not one that reads a part of the configuration from a file."""
    return type(action).__name__ != "_ActionConfigLoad"


def _required(actions: list[Action]) -> Iterator[tuple[Action, str]]:
    for action in actions:
        if action.required:
            yield action, (action.option_strings or [""])[0]


def _groups(parser: ArgumentParser, ours: list[Action], verb: str) -> Iterator[tuple[str, list[Action]]]:
    """Our options with a title over each group; what every verb has comes last, but first where checkpoints are with it."""
    groups: dict[str, list[Action]] = {}
    general: list[Action] = []
    for group in parser._action_groups:
        title = "Options" if group.title in ("positional arguments", "options") else group.title or ""
        for action in group._group_actions:
            if action in ours and action.dest in TEXTS:
                general.append(action)
            elif action in ours:
                groups.setdefault(title, []).append(action)
    if verb in training.VERBS:
        yield "Options", general
        yield from ((_with_prefix(title, group), group) for title, group in groups.items())
    elif len(groups) == 1:
        yield "Options", [*next(iter(groups.values())), *general]
    else:
        yield from [*groups.items(), ("Options", general)]


def _with_prefix(title: str, group: list[Action]) -> str:
    """The title of a group whose options share a prefix begins with it."""
    prefix, dot, _ = group[0].dest.rpartition(".")
    return f"{prefix}: {title}" if dot else title


def _section(title: str, actions: list[Action], verb: str = "") -> Iterator[str]:
    """A title and the options under it, those that must be given first."""
    yield ""
    yield from textwrap.wrap(f"{_clean(title).rstrip('.')}:", WIDTH)
    for action in sorted(actions, key=lambda action: not action.required):
        yield from _entry(action, _text(action, verb))


def _entry(action: Action, text: str) -> Iterator[str]:
    """One option: how it is written, and beside or below it what it means."""
    taken = "" if action.dest in ("help", "print_config") else _kind(action)
    head = "  " + ", ".join(name for name in action.option_strings if not name.endswith("+"))
    head = f"{head} {taken}".rstrip() if action.option_strings else f"  {taken}"
    lines = textwrap.wrap(
        text, WIDTH - INDENT, break_on_hyphens=False, break_long_words=False
    )  # ids and paths are there to be copied
    if len(head) + 2 > INDENT:
        yield head
    else:
        yield head.ljust(INDENT) + lines.pop(0)
    yield from (" " * INDENT + line for line in lines)


def _text(action: Action, verb: str) -> str:
    """What an option means, what it takes where its kind does not say so, and its default."""
    own = TEXTS.get(f"training {action.dest}" if verb in training.VERBS else "") or TEXTS.get(action.dest)
    parts = [
        own or _clean(action.help or ""),
        NAMES.get(action.dest, "") if verb in {**tools.VERBS, **evaluation.VERBS} else "",
    ]
    if action.required:
        parts.append("(required)")
    elif action.dest not in ("help", "print_config", "config"):
        parts.append(f"(default: {_default(action.default)})")
    return " ".join(filter(None, parts))


def _lightning(actions: list[Action]) -> str:
    """The options of ModelCheckpoint, Trainer and the optimisers, in the first words of Lightning's own texts."""
    titles = {
        "checkpoint": "checkpoint: Lightning's ModelCheckpoint",
        "trainer": "trainer: Lightning's Trainer",
        "optimizer": "optimizer, lr_scheduler: another optimiser than Adam with a warm-up and a cosine",
    }
    lines = []
    for part, title in titles.items():
        names = ("optimizer", "lr_scheduler") if part == "optimizer" else (part,)
        group = [action for action in actions if action.dest.split(".")[0] in names]
        lines += ["", *textwrap.wrap(f"{title}:", WIDTH)]
        for action in group:
            lines += _entry(action, _shortened(action))
    closing = (
        f"The options of checkpoint, trainer, optimizer and lr_scheduler are those of lightning {version('lightning')}. Where "
        "an option takes a CLASS, --trainer.callbacks.help CLASS lists that class's own options, and --trainer.callbacks+ CLASS "
        "adds one to those there are."
    )
    return "\n".join([*lines[1:], "", *textwrap.wrap(closing, WIDTH)]) + "\n"


def _shortened(action: Action) -> str:
    """The first two sentences of a text of Lightning's, and the default that holds here."""
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z\"`'])", _clean(action.help or ""))
    theirs = next((s.removeprefix("Default: ").strip("`.") for s in sentences if s.startswith("Default: ")), None)
    kept = [s for s in sentences if not re.match("Default|Example|Defaults to", s)][:2]
    if action.default is None and theirs:
        default = {"None": "null", "True": "true", "False": "false"}.get(theirs, theirs)
    else:
        default = _default(action.default)
    return f"{' '.join(kept)} (default: {default})"


def _kind(action: Action) -> str:
    """What stands for the value of an option: its choices, or what kind of value it is."""
    if not action.option_strings:
        return action.dest.upper() + ("..." if action.nargs == "+" else "")
    if action.dest in NAMES:
        return "NAME"
    hint = getattr(action, "_typehint", None)
    if action.nargs == 0:  # given or not
        return ""
    if hint is None:
        return "FILE"
    kind = _kind_of(hint)
    return kind if len(kind) <= WIDTH - 40 else "VALUE"


def _kind_of(hint: Any) -> str:
    """The kind of a type hint: ``INT``, ``{a,b}``, ``[INT,INT]``, ``INT|null``."""
    simple = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: "{true,false}", type(None): "null"}
    if hint in simple:
        return simple[hint]
    if get_origin(hint) is Literal:
        choices = [str(choice) for choice in get_args(hint)]
        return choices[0] if len(choices) == 1 else "{" + ",".join(choices) + "}"
    if get_origin(hint) in (Union, types.UnionType):
        kinds = {_kind_of(part) for part in get_args(hint)}  # sorted, as typing's cache gives them in any order
        return "|".join(sorted(kinds, key=lambda kind: (kind == "null", kind == "CLASS", kind)))
    if get_origin(hint) in (tuple, list):
        return "[" + ",".join("..." if part is ... else _kind_of(part) for part in get_args(hint)) + "]"
    return "CLASS"


def _default(value: Any) -> str:
    """A default as it would be typed, the same on every machine."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_default, value))}]"
    if isinstance(value, Path) and value.is_relative_to(Path(qlip.__file__).parent):
        return f"{value.name}, which comes with qlip"
    if value in ("cpu", "cuda"):
        return "cuda where there is a GPU, else cpu"
    name = value.get("class_path") if isinstance(value, Mapping) or hasattr(value, "get") else None
    return name.rpartition(".")[2] if name else str(value)


def _clean(text: str) -> str:
    """A docstring as plain text on one line."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text.replace("``", "`"))
    return re.sub(r"\s+", " ", text).strip()


def main() -> None:
    """Write all texts, and delete those of verbs that are gone."""
    found = texts()
    for path in FOLDER.glob("*.txt"):
        if path.name not in found:
            path.unlink()
    for name, text in found.items():
        write_text(FOLDER / name, text)


if __name__ == "__main__":
    main()
