"""The settings of a processor on disk, ``qlip.json``: which fields it has, and of what types."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qlip.structured import check_fields, read_json

# what a file must have; other fields came later and have defaults
_IMAGES = {"size": int | None, "crop": str, "quadtree": dict, "mean": list, "std": list}
_QUADTREE = {"alpha": float, "criterion": str, "max_tokens": int | None, "patch_size": int}


def read_settings(path: str | Path, images: Iterable[str], quadtree: Iterable[str]) -> dict[str, Any]:
    """What is under ``images`` in a file, checked but for the rules of the options.

    Args:
        path: The file.
        images: Names of all settings.
        quadtree: Names of all fields of the quadtree in them.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged, naming it and the field.
    """
    held = check_fields(read_json(path), str(path), {"images": dict}, {"qlip_version": str})
    found = check_fields(held["images"], f"{path}: images", _IMAGES, _later(images, _IMAGES))
    check_fields(found["quadtree"], f"{path}: images: quadtree", _QUADTREE, _later(quadtree, _QUADTREE))
    return found


def _later(names: Iterable[str], first: Iterable[str]) -> dict[str, Any]:
    return dict.fromkeys(set(names) - set(first), object)
