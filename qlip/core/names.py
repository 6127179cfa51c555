"""The names that options of the core take, apart from the code they stand for: a command line offers them without torch."""

from typing import Literal

TableMode = Literal["bicubic", "bilinear", "nearest", "zero"]
Cover = Literal["roots", "full"]
Weighting = Literal["once", "area"]
