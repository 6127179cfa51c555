"""The names that options of an evaluation take; a command line offers them without torch."""

from typing import Literal

from qlip.core.names import TableMode

Baseline = Literal["own", "crop", "pad"]
Dtype = Literal["float32", "bfloat16", "float16"]
Style = Literal["llava", "vlmevalkit", "lmms"]
Scoring = Literal["letters", "likelihood"]
BiasPosition = Literal["mlp", TableMode]
