"""What figure 4 draws, on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from qlip.core.names import Weighting
from qlip.evaluation.names import BiasPosition
from qlip.structured import DamagedFileError, check_fields, read_json

BIAS = "bias.json"


@dataclass(frozen=True)
class BiasPoint:
    """One point of figure 4; ``bias.json`` lists them under ``rows``.

    Attributes:
        size: Side of the image in pixels.
        position: Name of the position.
        quadtree: Whether blocks were merged.
        cosine: cos of the [CLS] token and that at the training size; for ``zero`` both are encoded without positions, which
            makes it the mesoscopic measure.
        interpolation_bias: The measure of eq. 1; None for ``zero``.
        tokens: Mean number of patches of an image.
        weighting: How leaves counted in the attention.
    """

    size: int
    position: str
    quadtree: bool
    cosine: float
    interpolation_bias: float | None
    tokens: float
    weighting: Weighting = "once"


def read_points(path: Path) -> list[BiasPoint]:
    """The points of a ``bias.json``.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged, naming the row and the field.
    """
    held = read_json(path)
    rows = held.get("rows") if isinstance(held, dict) else None
    if not isinstance(rows, list) or not rows:
        raise DamagedFileError(f"{path}: has no rows; delete it and measure it anew")
    return [_point(row, f"{path}: row {number}") for number, row in enumerate(rows, start=1)]


def _point(row: object, where: str) -> BiasPoint:
    kinds = {**get_type_hints(BiasPoint), "position": BiasPosition}
    added = {"weighting": kinds.pop("weighting")}  # qlip 0.1 had one alone
    point = BiasPoint(**check_fields(row, where, kinds, added))
    if (point.interpolation_bias is None) != (point.position == "zero"):
        raise DamagedFileError(
            f"{where}: interpolation_bias: got {point.interpolation_bias}; takes null for 'zero' alone"
        )
    return point
