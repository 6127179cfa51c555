"""qlip: visual tokens for multimodal models, spent where the picture has content.

Names are imported when they are first asked for, so that ``import qlip`` and the command line start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qlip._version import __version__

if TYPE_CHECKING:
    from qlip.conversion import convert, from_pretrained, restore
    from qlip.core.patches import PatchBatch, patchify
    from qlip.core.position import PositionMLP, TablePosition
    from qlip.core.quadtree import Leaves, Quadtree
    from qlip.encoder import QlipVisionModel
    from qlip.images.processor import QlipImageProcessor
    from qlip.towers.load import load_clip, load_tower
    from qlip.viz import draw_leaves, rebuild
    from qlip.zoo.load import load

_HOME = {
    "Leaves": "qlip.core.quadtree",
    "PatchBatch": "qlip.core.patches",
    "PositionMLP": "qlip.core.position",
    "QlipImageProcessor": "qlip.images.processor",
    "QlipVisionModel": "qlip.encoder",
    "Quadtree": "qlip.core.quadtree",
    "TablePosition": "qlip.core.position",
    "convert": "qlip.conversion",
    "draw_leaves": "qlip.viz",
    "from_pretrained": "qlip.conversion",
    "load": "qlip.zoo.load",
    "load_clip": "qlip.towers.load",
    "load_tower": "qlip.towers.load",
    "patchify": "qlip.core.patches",
    "rebuild": "qlip.viz",
    "restore": "qlip.conversion",
}
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
    "draw_leaves",
    "from_pretrained",
    "load",
    "load_clip",
    "load_tower",
    "patchify",
    "rebuild",
    "restore",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qlip' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
