"""Configurations that come with the package, found by name: recipes of `qlip fit` here, sweeps in ``sweeps/``."""

import os
from pathlib import Path
from typing import Literal

Kind = Literal["recipe", "sweep"]
FOLDER = Path(__file__).parent
_FOLDERS: dict[Kind, Path] = {"recipe": FOLDER, "sweep": FOLDER / "sweeps"}
_OPTIONS: dict[Kind, str] = {"recipe": "config", "sweep": "sweep"}  # what the user gives it to
_BEFORE: dict[Kind, Path] = {
    "recipe": Path("configs"),
    "sweep": Path("configs/sweeps"),
}  # in a clone, up to version 0.1


def names(kind: Kind) -> list[str]:
    """Names of the recipes or sweeps that come with the package, sorted."""
    return sorted(path.stem for path in _FOLDERS[kind].glob("*.yaml"))


def find(name: str | Path, kind: Kind) -> Path:
    """The file that a recipe or sweep is read from.

    Args:
        name: A file, the name of one that comes with the package, such as ``quickstart`` or ``pocket``, or the path that
            this one had before it came with the package: ``configs/quickstart.yaml``, ``configs/sweeps/pocket.yaml``. A file
            that is there is taken before a name.
        kind: Whether a recipe or a sweep is sought.

    Raises:
        FileNotFoundError: if there is no such file and no such name; the message lists the names.
    """
    path = Path(name)
    if os.path.exists(path) and not path.is_dir():  # a pipe is as good as a file
        return path
    is_name = path.suffix in ("", ".yaml") and path.parent in (Path(), _BEFORE[kind])
    if is_name and path.stem in names(kind):
        return _FOLDERS[kind] / f"{path.stem}.yaml"
    raise FileNotFoundError(
        f"{_OPTIONS[kind]}: got {str(name)!r}, which is no file; takes a YAML file, or the name of one that comes with "
        f"qlip: {', '.join(names(kind))}"
    )
