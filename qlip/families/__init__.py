"""Whole models of transformers, one small file each, and what is common to them.

Importing the package imports every file in it, so that each family registers itself (`FAMILIES`).
"""

from importlib import import_module
from pkgutil import iter_modules

from qlip.families.base import FAMILIES, Converted
from qlip.families.processor import ConvertedProcessor

__all__ = ["FAMILIES", "Converted", "ConvertedProcessor"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
