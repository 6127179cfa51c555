"""Ways to damage bytes and to bend structured values."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml

EXTREMES = (
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x00" * 8,
    b"\xff" * 8,
    b"\x80\x00",
    b"\r\n",
    b'"',
)


def damaged(data: bytes, random: Random) -> bytes:
    """The bytes after one to eight changes, anywhere or near the front, where headers are."""
    changed = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 8])):
        reach = random.choice([len(changed), len(changed), min(len(changed), 128)])
        at = random.randrange(max(reach, 1))
        span = random.choice([1, 4, 64, max(len(changed) // 3, 1)])
        match random.randrange(8):
            case 0 | 1:
                changed[at : at + 1] = bytes([changed[at] ^ 1 << random.randrange(8)]) if changed else b"x"
            case 2:
                extreme = random.choice(EXTREMES)
                changed[at : at + len(extreme)] = extreme
            case 3:
                del changed[at : at + span]
            case 4:
                changed[at:at] = changed[at : at + span] * random.choice([1, 3])
            case 5:
                changed[at:at] = random.randbytes(min(span, 64))
            case 6:
                del changed[at:]
            case 7:
                other = random.randrange(len(changed) + 1)
                changed[at : at + span] = changed[other : other + span]
    return bytes(changed)


def deep(depth: int, inside: Any = 0) -> Any:
    """Lists within lists."""
    for _ in range(depth):
        inside = [inside]
    return inside


def odd_values(random: Random) -> Any:
    """A value that few places take."""
    numbers = [-1, 0, 1, 2, 0.5, -0.0, 1e-320, 1e308, 2**31, 2**63, 2**70, -(2**63), float("nan"), float("inf")]
    texts = [
        "",
        " ",
        "x",
        "nan",
        "1",
        "../../up",
        "/",
        "a\x00b",
        "\ud800",
        "𝔘ñ\u202e",
        "x" * 5000,
        "{}",
        "null",
        "!!python/name:os.system",
    ]
    others = [None, True, False, [], {}, [[]], [1, "x", None], {"x": {}}, {"": 1}, deep(40), [0] * 3000]
    return copy.deepcopy(random.choice(random.choice([numbers, texts, others])))


def bent(value: Any, random: Random) -> Any:
    """A structured value with one to three of its parts replaced, dropped, renamed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        places = list(_places(value))
        if not places:
            return odd_values(random)
        holder, key = random.choice(places)
        match random.randrange(6):
            case 0 | 1 | 2:
                holder[key] = odd_values(random)
            case 3:
                del holder[key]
            case 4 if isinstance(holder, dict):
                holder[random.choice(["", "x", f"{key} ", str(key).upper(), "__class__"])] = holder.pop(key)
            case _:
                other, where = random.choice(places)
                holder[key] = copy.deepcopy(other[where]) if where in other or isinstance(other, list) else None
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def spoiled_text(value: Any, kind: str, random: Random, marker: Path) -> bytes:
    """JSON or YAML of a value that was bent, or whose text was damaged, or something else that is hidden behind the name."""
    write = json.dumps if kind == "JSON" else yaml.safe_dump
    text = write(value).encode()
    match random.randrange(12):
        case 0 | 1 | 2 | 3 | 4 | 5:
            return write(bent(value, random)).encode()
        case 6 | 7 | 8:
            return damaged(text, random)
        case 9:
            return pickled(marker, random)
        case 10:
            return random.choice(
                [
                    b"",
                    b"[" * 100_000,
                    b'{"a":' * 50_000,
                    b"\xef\xbb\xbf" + text,
                    text.decode().encode("utf-16"),
                    b"1" * 100_000,
                    text + text,
                    b"\x00" * 1000,
                ]
            )
        case _:
            run = f"!!python/object/apply:os.system ['touch {marker}']"
            return random.choice(
                [run, f"a: {run}", f"config: {run}\n{text.decode()}", text.decode() + f"\nx: {run}"]
            ).encode()


class _Hidden:
    """What a pickle would run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def pickled(marker: Path, random: Random) -> bytes:
    """A pickle that makes the marker when it is loaded: bare, or as torch saves it."""
    import io
    import pickle

    hidden = random.choice([_Hidden(marker), {"state_dict": _Hidden(marker), "hyper_parameters": {}}])
    file = io.BytesIO()
    match random.randrange(3):
        case 0:
            pickle.dump(hidden, file)
        case 1:
            torch.save(hidden, file)
        case _:
            torch.save(hidden, file, _use_new_zipfile_serialization=False)
    return file.getvalue()
