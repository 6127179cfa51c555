"""How large a position may be that a file describes: it is built before its weights are looked at."""

from collections.abc import Mapping
from typing import Any

from qlip.core.rules import shown
from qlip.structured import is_a

LIMITS = {  # a billion layers would take for ever
    "dim": 2**16,
    "grid": 2**12,
    "hidden": 2**16,
    "depth": 2**8,
    "fourier": 2**14,
    "patch_size": 2**12,
    "image_size": 2**24,
    "sigma": 1e6,
}


def check_limits(values: Mapping[str, Any]) -> None:
    """Check those numbers that `LIMITS` knows.

    Raises:
        ValueError: naming the number that is not positive, whole where it should be, or beyond its limit.
    """
    for name, most in LIMITS.items():
        value = values.get(name, 1)
        if not is_a(value, float if name == "sigma" else int) or not 0 < value <= most:
            kind = "number" if name == "sigma" else "integer"
            raise ValueError(f"{name}: got {shown(value)}; takes a positive {kind} of at most {most:,.15g}")
