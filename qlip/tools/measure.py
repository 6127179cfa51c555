"""What one picture loses under each of several settings, and under plain downscaling: the work of ``qlip tune``'s processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from qlip.images.processor import QlipImageProcessor
from qlip.images.read import read_image
from qlip.tools.loss import downscale, edges_kept, fine_edges, grey, similarity, words, words_kept
from qlip.viz import rebuild

PLAIN = "plain downscaling"
MEASURES = ("ssim", "edges", "words")
MAX_MEASURED = 2**20  # pixels: a screen of 1288 x 812, whose text can still be read
FEWEST_WORDS = 10  # of a picture whose words are worth counting


@dataclass(frozen=True)
class Pictures(Dataset[dict[str, Any]]):
    """Pictures as what they lose, for a loader with processes of its own.

    Attributes:
        files: The pictures.
        arms: The settings, by name.
        pixels: Pixels of the plain grid that they are compared with.
        read: Of how many pictures, from the first, words are read.
    """

    files: Sequence[Path]
    arms: Mapping[str, QlipImageProcessor]
    pixels: int
    read: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record of a picture: its ``id``, and its ``arms`` as `measure` gives them, or the ``error`` of an unreadable one."""
        file = self.files[index]
        try:
            picture = bounded(read_image(file))
            return {"id": str(file), "arms": measure(picture, self.arms, self.pixels, index < self.read)}
        except (OSError, ValueError) as error:
            return {"id": str(file), "error": str(error)}


def bounded(picture: Image.Image) -> Image.Image:
    """The picture, scaled down to `MAX_MEASURED` pixels if it has more."""
    return picture.resize(bounded_size(*picture.size), Image.Resampling.BICUBIC, reducing_gap=3)


def bounded_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a picture after `bounded`."""
    factor = min((MAX_MEASURED / (width * height)) ** 0.5, 1)
    return max(int(width * factor), 1), max(int(height * factor), 1)


def measure(
    picture: Image.Image, arms: Mapping[str, QlipImageProcessor], pixels: int, read: bool
) -> dict[str, dict[str, float | None]]:
    """Tokens and measures of every arm, and of plain downscaling: None where a picture has no strong edges or no words.

    Args:
        picture: What all pictures are compared with.
        arms: The settings, by name.
        pixels: Pixels that plain downscaling leaves.
        read: Whether words are read.
    """
    original = grey(picture)
    edges = fine_edges(original)
    text = words(picture) if read else None
    if text is not None and text.total() < FEWEST_WORDS:
        text = None

    def losses(other: Image.Image) -> dict[str, float | None]:
        seen = grey(other)
        return {
            "ssim": similarity(original, seen),
            "edges": edges_kept(edges, seen),
            "words": None if text is None else words_kept(text, words(other)),
        }

    found: dict[str, dict[str, float | None]] = {PLAIN: losses(downscale(picture, pixels))}
    for name, settings in arms.items():
        view, leaves = settings.view_and_leaves(picture)
        held = rebuild(view, leaves).resize(picture.size, Image.Resampling.BICUBIC)
        found[name] = {"tokens": len(leaves), **losses(held)}
    return found
