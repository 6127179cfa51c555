"""Reading the structured files of ours, JSON and YAML, strictly: what is in them may come from anywhere.

Size, depth and number of values are limited, numbers are finite, no key comes twice, and whatever is wrong is one error that
names the file and the field.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from qlip.core.rules import shown
from qlip.files import open_regular

MAX_BYTES = {"JSON": 2**26, "YAML": 2**17}  # YAML is read by Python, a thousand times more slowly
MAX_DEPTH = 32
_SURROGATES = re.compile("[\ud800-\udfff]")  # JSON can write them, and no file can hold them
MAX_VALUES = 2_000_000


class DamagedFileError(ValueError):
    """A file of ours does not hold what it should; the message names the file and the field."""


def read_json(path: Path | str) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: if it cannot be read, or is too large.
        DamagedFileError: if it is no JSON, or not as strict as ours; see the module.
    """
    return parse_json(_text(path, "JSON"), str(path))


def parse_json(text: str | bytes, name: str) -> Any:
    """The value of a JSON text; ``name`` is what an error calls it."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{name}: damaged, it is no JSON of ours ({_why(error)})") from error
    _check_extent(value, name)
    return value


def read_yaml(path: Path | str) -> Any:
    """The value in a YAML file, of plain types.

    Raises:
        OSError: as `read_json`.
        DamagedFileError: as `read_json`; also for anchors that multiply into very many values.
    """
    text = _text(path, "YAML")
    depths = accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", text))
    if (
        max(depths, default=0) > 10 * MAX_DEPTH
    ):  # which the parser takes seconds to find; texts in quotes may hold a few
        raise DamagedFileError(f"{path}: damaged, it is no YAML of ours (nested too deep)")
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            _check_nodes(node, str(path))  # before anchors are merged, which may multiply them
            value = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except DamagedFileError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFileError(f"{path}: damaged, it is no YAML of ours ({_why(error)})") from error
    _check_extent(value, str(path))
    return value


def check_configs(args: Sequence[str]) -> None:
    """Read every file that a command line names with ``--config``, so that its parser meets none that is damaged.

    Raises:
        OSError: as `read_yaml`.
        DamagedFileError: as `read_yaml`.
    """
    for name in config_files(args):
        held = read_yaml(name)
        if held is not None and not (isinstance(held, dict) and all(isinstance(key, str) for key in held)):
            raise DamagedFileError(f"{name}: holds {shown(held)}; takes names of options with values")


def config_files(args: Sequence[str]) -> list[str]:
    """The files that a command line names with ``--config``, where they are there."""
    found = []
    for before, arg in zip(["", *args], args, strict=False):
        name = arg.removeprefix("--config=") if arg.startswith("--config=") else arg
        if (name is not arg or before in ("-c", "--config")) and os.path.exists(name):
            found.append(name)
    return found


def check_fields(
    values: object, where: str, needed: Mapping[str, Any], optional: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The fields of an object, each of its type; the number 1 is a float too, and True is no number.

    Args:
        values: What should be an object.
        where: The file, and the field within it, for errors.
        needed: Type of each field that must be there, as ``isinstance`` takes it.
        optional: Those that may be missing. Any other field is refused.

    Raises:
        DamagedFileError: naming the field that is missing, unknown or of another type.
    """
    if not isinstance(values, dict):
        raise DamagedFileError(f"{where}: holds a {type(values).__name__}; takes an object of named fields")
    known = {**needed, **(optional or {})}
    for problem, names in (("unknown", values.keys() - known), ("missing", needed.keys() - values)):
        if names:
            raise DamagedFileError(f"{where}: {problem} {', '.join(sorted(map(str, names)))}; takes {', '.join(known)}")
    for name, value in values.items():
        if not is_a(value, known[name]):
            raise DamagedFileError(f"{where}: {name}: got {shown(value)}; takes {_name(known[name])}")
    return values


def is_a(value: object, kind: Any) -> bool:
    """Whether a value of a file is of a type, or of one of several."""
    if get_origin(kind) in (UnionType, Union):
        return any(is_a(value, one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind in (bool, object) or not isinstance(value, bool))


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) in (UnionType, Union):
        return " or ".join(map(_name, get_args(kind)))
    names = {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        dict: "an object",
        list: "a list",
    }
    return names.get(kind, "null")


def _text(path: Path | str, kind: str) -> str:
    try:
        with open_regular(path, MAX_BYTES[kind]) as file:
            return file.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{path}: damaged, it is no text in UTF-8 ({error.reason})") from error
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise OSError(f"{path}: cannot be read: {_why(error)}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key comes twice")
    return values


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _check_extent(value: Any, name: str) -> None:
    """Depth, number of values, and whether all numbers are finite."""
    level, count = [value], 0
    for _ in range(MAX_DEPTH):
        count += len(level)
        for one in level:
            if isinstance(one, float) and not math.isfinite(one):
                raise DamagedFileError(f"{name}: holds {one}; takes finite numbers")
            for text in one if isinstance(one, dict) else (one,):
                if isinstance(text, str) and _SURROGATES.search(text):
                    raise DamagedFileError(f"{name}: holds {text!r:.80}, half a character; takes text of Unicode")
        if count > MAX_VALUES:
            raise DamagedFileError(f"{name}: holds more than {MAX_VALUES:,} values")
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
        if not level:
            return
    raise DamagedFileError(f"{name}: nested more than {MAX_DEPTH} deep")


def _check_nodes(root: yaml.Node | None, name: str) -> None:
    """Depth and number of values with every anchor written out; nothing is written out to count them."""
    level, count = {id(root): (root, 1)}, 0
    for _ in range(MAX_DEPTH):
        inner: dict[int, tuple[yaml.Node | None, int]] = {}
        for node, times in level.values():
            count += times
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            if isinstance(node, yaml.MappingNode):
                _check_keys(node, name)
            for part in parts:
                for one in part if isinstance(part, tuple) else (part,):
                    inner[id(one)] = (one, times + inner.get(id(one), (one, 0))[1])
        if count > MAX_BYTES["YAML"]:
            raise DamagedFileError(f"{name}: its anchors make more than {MAX_BYTES['YAML']:,} values")
        if not inner:
            return
        level = inner
    raise DamagedFileError(f"{name}: nested more than {MAX_DEPTH} deep, or within itself")


def _check_keys(node: yaml.MappingNode, name: str) -> None:
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise DamagedFileError(f"{name}: line {node.start_mark.line + 1}: {twice} comes twice")


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
