"""The names that options of the preprocessing take; a command line offers them without torch."""

from typing import Literal

Crop = Literal["patch", "square"]
Pad = Literal["square"]
