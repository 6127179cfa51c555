"""What each option takes: one table, asked wherever an option is given, in Python, on a command line or in a file.

An option has one meaning under its name everywhere, so that one rule is enough. Numbers are finite; a boolean is no number.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, get_args

from qlip.core.names import Cover, Weighting


@dataclass(frozen=True)
class Number:
    """A finite number from ``low`` to ``high``, both taken; whole unless ``fraction``; None where ``none`` says what it means."""

    low: float
    high: float
    fraction: bool = False
    none: str = ""
    unit: str = ""

    def check(self, value: object) -> object:
        """The value as a plain Python number; raise ValueError with what is taken."""
        if value is None and self.none:
            return None
        if isinstance(value, bool) or not isinstance(value, Real if self.fraction else Integral):
            raise ValueError(str(self))
        number: Any = value
        if not self.low <= number <= self.high:  # nor is NaN
            raise ValueError(str(self))
        return int(number) if isinstance(value, Integral) else float(number)

    def __str__(self) -> str:
        kind = "a number" if self.fraction else "a whole number"
        unit = f" of {self.unit}" if self.unit else ""
        return f"{kind}{unit} from {self.low:,.15g} to {self.high:,.15g}" + (
            f", or None {self.none}" if self.none else ""
        )


@dataclass(frozen=True)
class Choice:
    """One of several names, or None where ``none`` says what it means."""

    names: tuple[str, ...]
    none: str = ""

    def check(self, value: object) -> object:
        """The value; raise ValueError with what is taken."""
        if value is None and self.none:
            return None
        if not isinstance(value, str) or value not in self.names:
            raise ValueError(f"{self}{suggestion(value, self.names)}")
        return value

    def __str__(self) -> str:
        return ", ".join(map(repr, self.names)) + (f", or None {self.none}" if self.none else "")


_PIXELS = 100_000  # no side of a picture is longer
BUDGET = Number(1, 10_000_000)
SIDE = Number(1, _PIXELS, unit="pixels")
RULES: Mapping[str, Number | Choice] = {
    # the quadtree
    "alpha": Number(0, 1e9, fraction=True),
    "max_tokens": Number(1, 10_000_000, none="to use alpha"),
    "patch_size": Number(1, 4096, unit="pixels"),
    "cover": Choice(get_args(Cover)),
    "weighting": Choice(get_args(Weighting), none="for the family's own"),
    # the preprocessing
    "size": Number(1, _PIXELS, none="for native", unit="pixels"),
    "unit": Number(1, 64, unit="patches"),
    "crop": Choice(("patch", "square", "units")),
    "resample": Choice(("bilinear", "bicubic")),
    "pad": Choice(("square",), none="to leave the shape alone"),
    "fit": Choice(("prune", "scale")),
    # a tuning
    "budget": Number(1, 10_000_000, none="to give a share"),
    "share": Number(0.001, 1000, fraction=True, none="to give a budget"),
    # an evaluation
    "batch_size": Number(1, 1_000_000),
    "workers": Number(0, 4096),
    "limit": Number(1, 10**12, none="for all"),
    "max_new_tokens": Number(1, 10_000_000, none="for the benchmark's own"),
    "seed": Number(0, 2**64 - 1),
    "gpus": Number(0, 4096, fraction=True),
    # a training
    "max_size": SIDE,
    "val_limit": Number(1, 10**12),
    "repeats": Number(1, 10**9),
    "tokens_at_once": Number(1, 10**9, none="for no limit", unit="tokens"),
    "every_n_steps": Number(0, 10**9),
    "min_gain": Number(0, 1, fraction=True),
}


def check(name: str, value: Any) -> Any:
    """The value of an option, if its rule takes it; a number of NumPy's becomes Python's own.

    Raises:
        ValueError: naming the option, what it got and what it takes.
    """
    try:
        return RULES[name].check(value)
    except ValueError as error:
        raise ValueError(f"{name}: got {shown(value)}; takes {error}") from None


def numbers(values: object, rule: Number, count: int | None = None) -> tuple[Any, ...] | None:
    """Several values, each as a rule of numbers takes it, as Python's own; None if they are anything else.

    Args:
        values: What was given for an option that takes several numbers.
        rule: What each of them may be.
        count: How many they must be; at least one if None.
    """
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable):
        return None
    try:
        checked = tuple(rule.check(value) for value in values)
    except (TypeError, ValueError):  # the former of an array without axes
        return None
    return checked if len(checked) == (count or len(checked)) and checked else None


def shown(value: object) -> str:
    """A value in at most a line, for errors; Python refuses to write out a very large integer."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of the user's own class, or a large integer inside
        return f"a {type(value).__name__}"
    return _in_a_line(text)


def listed(names: Iterable[str]) -> str:
    """Names with commas between them, in at most a line, for errors."""
    return _in_a_line(", ".join(names))


def _in_a_line(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."


def check_fields(options: object, *names: str) -> None:
    """Check fields of a frozen dataclass of options, each by the rule of its name.

    Raises:
        ValueError: as `check`.
    """
    for name in names:
        object.__setattr__(options, name, check(name, getattr(options, name)))


def check_names(what: str, given: Iterable[str], taken: Iterable[str]) -> None:
    """Check that options are known by their names.

    Raises:
        TypeError: listing those that are not, with the most alike of those that are.
    """
    taken = list(taken)
    unknown = sorted(set(given) - set(taken))
    if unknown:
        hint = suggestion(unknown[0], taken)
        raise TypeError(f"{what}: got {listed(unknown)}; takes {', '.join(taken)}{hint}")


def suggestion(value: object, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` where one of the known names is much like the value, or nothing."""
    alike = get_close_matches(value, list(known), n=1) if isinstance(value, str) else []
    return f"; did you mean {alike[0]!r}?" if alike else ""
