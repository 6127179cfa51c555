"""qlip: visual tokens for CLIP-based multimodal models, spent where the picture has content."""

from qlip._version import __version__
from qlip.convert import convert, restore
from qlip.core.patches import PatchBatch, patchify
from qlip.core.position import PositionMLP, TablePosition
from qlip.core.quadtree import Leaves, Quadtree
from qlip.models.clip import QlipVisionModel
from qlip.models.processing import QlipImageProcessor
from qlip.zoo.load import load

__all__ = [
    "Leaves",
    "PatchBatch",
    "PositionMLP",
    "QlipImageProcessor",
    "QlipVisionModel",
    "Quadtree",
    "TablePosition",
    "__version__",
    "convert",
    "load",
    "patchify",
    "restore",
]
