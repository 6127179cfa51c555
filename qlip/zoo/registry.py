"""Positions known by name. To publish one, add one line to the list below."""

import os
import re
from dataclasses import dataclass
from typing import Literal

SOLVE = "solve:"


@dataclass(frozen=True)
class Entry:
    """One registered position.

    Attributes:
        name: What `qlip.load` takes; letters, digits, ``.``, ``-`` and ``_``.
        source: ``solve:<clip id>`` (computed from CLIP's own weights, nothing of ours is downloaded), or a Hub id.
        description: One line.
        revision: Commit or tag on the Hub, of the entry or of the CLIP.
        sha256: Of ``model.safetensors``; required of everything that is not solved.
    """

    name: str
    source: str
    description: str
    revision: str | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(
                f"name: got {self.name!r}; takes letters, digits, '.', '-' and '_', a letter or digit first"
            )
        if self.kind == "hub" and not is_hub_id(self.source):
            raise ValueError(f"source: got {self.source!r}; takes solve:<clip id> or a Hub id")
        if (self.kind == "solve") != (self.sha256 is None):
            raise ValueError(f"sha256: got {self.sha256!r} for {self.source}; takes a checksum, and none for solve:")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256: got {self.sha256!r}; takes 64 hexadecimal digits, lower case")

    @property
    def kind(self) -> Literal["solve", "hub"]:
        """Where the weights come from."""
        return "solve" if self.source.startswith(SOLVE) else "hub"


def is_name(name: str) -> bool:
    """Whether ``name`` can be a folder of the zoo and nothing else: no path, nothing hidden."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None


def is_hub_id(name: str) -> bool:
    """Whether ``name`` reads as ``owner/model`` and is no folder here.

    The rules are those of ``huggingface_hub.utils.validate_repo_id``, whose import takes longer than a list of the zoo.
    """
    plain = re.fullmatch(r"\b[\w.-]{1,96}\b/\b[\w.-]{1,96}\b", name, re.ASCII) is not None
    return plain and "--" not in name and ".." not in name and not name.endswith(".git") and not os.path.exists(name)


def split_revision(source: str) -> tuple[str, str | None]:
    """``owner/name@revision`` in two, the revision None if there is none; a path that is there stays whole."""
    name, _, revision = source.partition("@")
    return (source, None) if os.path.exists(source) else (name, revision or None)


_ENTRIES = [
    Entry("clip-vit-base-patch32", "solve:openai/clip-vit-base-patch32", "CLIP B/32 at 224 px, 7 x 7 grid"),
    Entry("clip-vit-base-patch16", "solve:openai/clip-vit-base-patch16", "CLIP B/16 at 224 px, 14 x 14 grid"),
    Entry("clip-vit-large-patch14", "solve:openai/clip-vit-large-patch14", "CLIP L/14 at 224 px, 16 x 16 grid"),
    Entry(
        "clip-vit-large-patch14-336",
        "solve:openai/clip-vit-large-patch14-336",
        "CLIP L/14 at 336 px, 24 x 24 grid: the tower of LLaVA-1.5",
    ),
    Entry(
        "CLIP-ViT-H-14-laion2B-s32B-b79K",
        "solve:laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        "OpenCLIP H/14 at 224 px, 16 x 16 grid",
    ),
    Entry("pocket-clip", "solve:pocket-clip", "the small CLIP that comes with qlip, 112 px, 8 x 8 grid: no download"),
]
REGISTRY: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
