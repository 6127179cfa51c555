"""What figure 4 draws, on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from qlip.core.names import Weighting
from qlip.core.rules import shown
from qlip.evaluation.names import BiasPosition
from qlip.structured import DamagedFileError, check_fields, is_a, read_json

BIAS = "bias.json"
EACH = ("cosines", "interpolation_biases")  # fields with a value of each picture


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
        cosines, interpolation_biases: The same two of each picture, in one order at every point; empty where only means were kept.
    """

    size: int
    position: str
    quadtree: bool
    cosine: float
    interpolation_bias: float | None
    tokens: float
    weighting: Weighting = "once"
    cosines: tuple[float, ...] = ()
    interpolation_biases: tuple[float, ...] = ()


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
    kinds = {**get_type_hints(BiasPoint), "position": BiasPosition, **dict.fromkeys(EACH, list)}
    added = {name: kinds.pop(name) for name in ("weighting", *EACH)}  # qlip 0.1 had none of them
    fields = check_fields(row, where, kinds, added)
    for name in EACH:
        for value in fields.get(name, ()):
            if not is_a(value, float):
                raise DamagedFileError(f"{where}: {name}: got {shown(value)}; takes numbers")
    point = BiasPoint(**{**fields, **{name: tuple(fields.get(name, ())) for name in EACH}})
    if (point.interpolation_bias is None) != (point.position == "zero"):
        raise DamagedFileError(
            f"{where}: interpolation_bias: got {point.interpolation_bias}; takes null for 'zero' alone"
        )
    return point
