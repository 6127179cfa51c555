"""What a zoo is on disk: a folder of entries. Nothing here needs torch, so a list of them is there at once."""

import os
from functools import partial
from pathlib import Path

from qlip.core.rules import shown
from qlip.files import read_whole
from qlip.zoo.registry import REGISTRY

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)
DEFAULT_ROOT = Path("checkpoints")


class NotFoundError(OSError):
    """A position was sought and not found, here or on the Hub."""


class UnknownSourceError(NotFoundError):
    """What was given is not the name of anything that a position can be loaded from."""


def local_entries(root: Path | str = DEFAULT_ROOT) -> list[str]:
    """Names of the entries in ``root``, sorted; what is half written or no entry is left out."""
    root = Path(root)
    folders = sorted(root.iterdir()) if os.path.isdir(root) else []
    return [x.name for x in folders if not x.name.startswith(".") and all((x / f).is_file() for f in (CONFIG, WEIGHTS))]


def find_local(source: str, root: Path | str = DEFAULT_ROOT) -> Path | None:
    """The folder of an entry: ``source`` itself, or ``root/source``; None if neither is one.

    Raises:
        ValueError: if ``source`` is no text and no path, which a file of options may hold.
    """
    if not isinstance(source, str | Path):
        raise ValueError(f"source: got {shown(source)}; takes the name of an entry, or the path of its folder")
    candidates = [Path(source).expanduser(), Path(root) / source]
    return next((folder for folder in candidates if read_whole(folder, partial(os.path.isfile, folder / CONFIG))), None)


def not_found(what: str, root: Path | str = DEFAULT_ROOT, kind: type[NotFoundError] = NotFoundError) -> NotFoundError:
    """The error for something that is not there: what was sought, what there is, and what works without a network."""
    local = ", ".join(local_entries(root)) or "none"
    return kind(
        f"{what}. Entries in {root}/: {local}. Registered: {', '.join(REGISTRY)}. "
        f"Without a network: an entry of {root}/, solve:<folder of a CLIP>, or "
        f"`qlip fit --config quickstart`, which makes one"
    )
