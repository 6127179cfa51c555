"""Vision transformers of transformers, one small file each, and what is common to them.

Importing the package imports every file in it, so that each adapter registers itself (`qlip.towers.base.TOWERS`).
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
