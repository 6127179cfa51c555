"""What a zoo entry says about itself: every field needed to rebuild the position, and how it came to be."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlip._version import __version__
from qlip.core.rules import shown
from qlip.files import write_json
from qlip.structured import DamagedFileError, read_json
from qlip.zoo.limits import check_limits

if TYPE_CHECKING:  # an entry can be read and listed without torch
    from qlip.core.position import PositionMLP
    from qlip.core.quadtree import Quadtree

_ARCHITECTURE = ("dim", "grid", "hidden", "depth", "fourier", "sigma")


class EntryError(ValueError):
    """A zoo entry is damaged, incomplete, or not what it should be."""


@dataclass(frozen=True)
class ZooConfig:
    """The content of an entry's ``config.json``.

    Attributes:
        backbone: Hub id, folder, or ``random:<width>x<layers>`` of the CLIP that the position is for.
        backbone_revision: Its commit on the Hub, if known.
        grid: Side n of the backbone's grid.
        patch_size: Its patch side in pixels.
        image_size: Side in pixels of the square image that its table is for.
        dim, hidden, depth, fourier, sigma: Arguments of the `PositionMLP`.
        quadtree: Fields of the one used in training, see `quadtree_fields`; empty if there was no training.
        training: Whatever else describes the training, in plain values (what JSON can hold); empty if there was none.
        metrics: Numbers measured; the model card explains ``R``, ``R2``, ``offgrid`` and ``cos_cls_<pixels>``.
        qlip_version: The version that wrote the entry.
    """

    backbone: str
    backbone_revision: str | None
    grid: int
    patch_size: int
    image_size: int
    dim: int
    hidden: int
    depth: int
    fourier: int
    sigma: float
    quadtree: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, float]
    qlip_version: str

    def __post_init__(self) -> None:
        try:
            check_limits(vars(self))
        except ValueError as error:
            raise EntryError(str(error)) from error
        if self.backbone_revision is not None and not isinstance(self.backbone_revision, str):
            raise EntryError(f"backbone_revision: got {shown(self.backbone_revision)}; takes a commit, or null")
        for name in ("backbone", "qlip_version"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise EntryError(f"{name}: got {shown(getattr(self, name))}; takes a name")
        for name in ("quadtree", "training", "metrics"):
            object.__setattr__(self, name, _plain(name, getattr(self, name)))

    @classmethod
    def of(
        cls,
        position: "PositionMLP",
        *,
        backbone: str,
        patch_size: int,
        metrics: Mapping[str, float],
        quadtree: "Quadtree | None" = None,
        training: Mapping[str, Any] | None = None,
        backbone_revision: str | None = None,
    ) -> "ZooConfig":
        """Describe a position; the architecture is read off it, the rest is as in the attributes.

        Raises:
            EntryError: if a value cannot be written down.
        """
        from qlip.zoo.position_file import describe  # needs torch

        return cls(
            **{key: value for key, value in describe(position).items() if key != "type"},
            backbone=backbone,
            backbone_revision=backbone_revision,
            patch_size=patch_size,
            image_size=position.grid * patch_size,
            quadtree=quadtree_fields(quadtree) if quadtree else {},
            training=dict(training or {}),
            metrics={name: float(value) for name, value in metrics.items()},
            qlip_version=__version__,
        )

    @classmethod
    def read(cls, path: Path) -> "ZooConfig":
        """Read a ``config.json``.

        Raises:
            EntryError: if it is missing, no JSON object, or has unknown or missing keys, which are named.
        """
        try:
            data = read_json(path)
        except FileNotFoundError as error:
            raise EntryError(f"{path}: not there, so {path.parent} is no zoo entry") from error
        except (OSError, DamagedFileError) as error:
            raise EntryError(f"{error}; fetch or export the entry again") from error
        if not isinstance(data, dict):
            raise EntryError(f"{path}: holds a {type(data).__name__}; takes an object of named fields")
        if "model_type" in data:
            raise EntryError(
                f"{path}: describes a {data['model_type']!r} model; solve:{path.parent} solves one for a CLIP"
            )
        known = {field.name for field in fields(cls)}
        for problem, names in (("unknown", set(data) - known), ("missing", known - set(data))):
            if names:
                raise EntryError(
                    f"{path}: {problem} keys {', '.join(sorted(names))}; written by qlip "
                    f"{data.get('qlip_version', '(version not given)')}, read by {__version__}"
                )
        try:
            return cls(**data)
        except EntryError as error:
            raise EntryError(f"{path}: {error}") from error

    def write(self, path: Path) -> None:
        """Write as indented JSON, whole or not at all."""
        write_json(path, asdict(self))

    @property
    def description(self) -> dict[str, Any]:
        """What `qlip.zoo.position_file.describe` gives for the entry's position."""
        return {"type": "PositionMLP", **{name: getattr(self, name) for name in _ARCHITECTURE}}


def quadtree_fields(quadtree: "Quadtree") -> dict[str, Any]:
    """A quadtree in plain values; a user's own criterion by its name."""
    values = {field.name: getattr(quadtree, field.name) for field in fields(quadtree) if field.name != "score"}
    if not isinstance(values["criterion"], str):
        criterion = values["criterion"]
        values["criterion"] = getattr(criterion, "__name__", type(criterion).__name__)
    return values


def _plain(name: str, values: Any) -> dict[str, Any]:
    """A copy of a mapping as JSON gives it back, so that what is written is what is read.

    Raises:
        EntryError: naming the key whose value JSON cannot hold.
    """
    if not isinstance(values, Mapping):
        raise EntryError(f"{name}: got {shown(values)}; takes an object of named values")
    plain = {}
    for key, value in values.items():
        try:
            plain[str(key)] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise EntryError(
                f"{name}[{shown(key)}]: got {shown(value)}; takes a finite number, text, true, false, null, or lists of them"
            ) from error
        if name == "metrics" and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise EntryError(f"{name}[{shown(key)}]: got {shown(value)}; takes a number")
    return plain
