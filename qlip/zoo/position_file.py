"""A position as one file that says what it is: the weights of a zoo entry, or ``qlip.safetensors`` beside a model.

It is a safetensors file. Its metadata has, under the key ``qlip``, a JSON object with the ``type`` of the position and what
rebuilds it without its tensors, and their ``sha256``. Zoo entries written by qlip 0.1 lack the key; their ``config.json``
says the same. What else 0.1 wrote lacks the checksum.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from qlip.core.position import Position, PositionMLP, TablePosition
from qlip.files import open_regular, write_bytes
from qlip.structured import DamagedFileError, parse_json
from qlip.zoo.limits import check_limits

POSITION_FILE = "qlip.safetensors"
MAX_BYTES = 2**33
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_writable(position: Position) -> PositionMLP | TablePosition:
    """The position, if it can be written.

    Raises:
        TypeError: if it is a function of the user's own.
    """
    if not isinstance(position, PositionMLP | TablePosition):
        raise TypeError(
            f"position: got {type(position).__name__}; takes a PositionMLP or TablePosition. A function cannot be saved: "
            f"save the original model (qlip.restore) and convert it again after loading"
        )
    return position


def describe(position: PositionMLP | TablePosition) -> dict[str, Any]:
    """What rebuilds a position without its tensors, in values that JSON can hold."""
    if isinstance(position, TablePosition):
        return {"type": "TablePosition", "mode": position.mode}
    return {
        "type": "PositionMLP",
        "dim": position.dim,
        "grid": position.grid,
        "hidden": position.readout.in_features,
        "depth": len(position.hidden),
        "fourier": len(position.frequencies),
        "sigma": float(position.sigma),
    }


def write_position(path: str | Path, position: Position) -> Path:
    """Write a position to ``path``, whole or not at all, and return the path.

    Raises:
        TypeError: see `check_writable`.
    """
    position = check_writable(position)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in position.state_dict().items()}
    notes = {**describe(position), "sha256": tensors_digest(tensors)}
    metadata = {"qlip": json.dumps(notes)}  # one key: safetensors writes several in a random order
    write_bytes(path, safetensors.torch.save(tensors, metadata=metadata))
    return Path(path)


def read_position(path: str | Path, described: Mapping[str, Any] | None = None) -> PositionMLP | TablePosition:
    """Read what `write_position` wrote. Strict: every tensor must be there, none more, each of its shape and dtype.

    Args:
        path: The file.
        described: What somebody else says of the position, as `describe` would. A file that describes itself must agree;
            one of a zoo entry of qlip 0.1, which does not, is read by it.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged or something else; says what is wrong with it.
    """
    tensors, notes = _read(path)
    written = notes.pop("sha256", None) if notes else None
    description = _description(path, notes, described)
    try:
        position = _build(tensors, description)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except TypeError:  # an argument that is not known, or described by something other than a number
        position = None
    if position is None or describe(position) != description:  # they differ where an argument is missing
        raise ValueError(f"{path}: {dict(description)!r} describes no position that this qlip knows; a newer one may")
    if written is not None and written != tensors_digest(tensors):
        raise ValueError(
            f"{path}: damaged, its tensors are not those that were written (sha256); fetch or save it again"
        )
    return position


def saved_position(folder: str | Path) -> PositionMLP | TablePosition | None:
    """The position that was saved beside the model in ``folder``, or None if there is no such file or folder.

    Raises:
        ValueError: as `read_position`.
    """
    path = Path(folder) / POSITION_FILE
    return read_position(path) if path.is_file() else None


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors: names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """All tensors, and what the file says of itself; None if it says nothing."""
    try:
        open_regular(path, MAX_BYTES).close()  # a pipe would never end
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error}); fetch or save it again") from error
    if "qlip" not in metadata:
        return tensors, None
    notes = parse_json(metadata["qlip"], f"{path}: its description")
    if not isinstance(notes, dict):
        raise DamagedFileError(f"{path}: its description: damaged, it is no object; fetch or save the file again")
    return tensors, notes


def _description(
    path: str | Path, own: Mapping[str, Any] | None, described: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """What the file says of its position, or else what is said elsewhere; the two must agree where both are there."""
    if own is None:
        if described is None:
            raise ValueError(f"{path}: not written by qlip; takes the {POSITION_FILE} that a converted model saves")
        return described
    other = own if described is None else described
    for key in sorted(own.keys() | other):
        if own.get(key) != other.get(key):
            raise ValueError(
                f"{path}: {key} is {own.get(key)!r} by its own description and {other.get(key)!r} by config.json; they "
                f"belong to two positions"
            )
    return own


def _build(tensors: dict[str, Tensor], description: Mapping[str, Any]) -> PositionMLP | TablePosition | None:
    """The position that is described, or None if its type is not known."""
    arguments = {key: value for key, value in description.items() if key != "type"}
    if description.get("type") == "PositionMLP":
        return _mlp(tensors, arguments)
    if description.get("type") == "TablePosition":
        return _table(tensors, arguments)
    return None


def _mlp(tensors: dict[str, Tensor], arguments: dict[str, Any]) -> PositionMLP:
    check_limits(arguments)
    with torch.device("meta"):  # shapes alone, and no draw from the caller's random state
        position = PositionMLP(**arguments)
    expected = position.state_dict()
    _check_names(tensors, set(expected))
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, expected[name].shape, tensors["frequencies"].dtype)
    position.load_state_dict(tensors, assign=True)
    return position


def _table(tensors: dict[str, Tensor], arguments: dict[str, Any]) -> TablePosition:
    _check_names(tensors, {"table"})
    table = tensors["table"]
    _check_tensor("table", table, table.shape, table.dtype)  # its shape is for TablePosition to check
    return TablePosition(table, **arguments)


def _check_names(found: Mapping[str, Tensor], expected: set[str]) -> None:
    for problem, names in (("missing", expected - found.keys()), ("unknown", found.keys() - expected)):
        if names:
            raise ValueError(f"{problem} tensors {', '.join(sorted(names))}")


def _check_tensor(name: str, tensor: Tensor, shape: torch.Size, dtype: torch.dtype) -> None:
    """The shape that the description asks for, and one dtype for all tensors, a floating one."""
    dtype = dtype if dtype in _DTYPES else torch.float32
    if (tensor.shape, tensor.dtype) != (shape, dtype):
        raise ValueError(
            f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; it should be {dtype} of shape {tuple(shape)}"
        )
    if not tensor.isfinite().all():
        raise ValueError(f"{name} holds values that are not finite; fetch or save it again")
