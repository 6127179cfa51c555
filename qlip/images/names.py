"""The names that options of the preprocessing take; a command line offers them without torch."""

from typing import Literal

Crop = Literal["patch", "square", "units"]
Pad = Literal["square"]
Fit = Literal["prune", "scale"]
Resample = Literal["bilinear", "bicubic"]
