"""Pictures for LLaVA-NeXT: the whole one, small, then a tree of the large one, read line by line."""

from dataclasses import replace
from typing import Any

from PIL import Image
from torch import Tensor

from qlip.core.quadtree import Leaves, Quadtree
from qlip.families.image_processor import LeafImageProcessor
from qlip.images.pixels import Pair, pack
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import ImageLike, normalise, to_rgb


def line_lengths(rows: Tensor) -> list[int]:
    """Leaves of each line: a new one begins where the reading order goes down. ``rows (N,)`` of the leaves, in order."""
    return rows.unique_consecutive(return_counts=True)[1].tolist()


class WholeAndTree(LeafImageProcessor):
    """Makes two pairs of each image: of the whole picture, scaled to a small square, and of its tree.

    A budget is about the tree: its leaves, and a newline after each of its lines.

    Args:
        settings: The preprocessing of the large picture.
        side: Side of the small one in pixels.
    """

    def __init__(self, settings: QlipImageProcessor, side: int) -> None:
        super().__init__(settings)
        self.side = side

    def encode(self, settings: QlipImageProcessor, image: ImageLike) -> list[Pair]:
        """The pair of the whole and the pair of the tree."""
        picture = to_rgb(image)
        small = picture.resize((self.side, self.side), Image.Resampling.BICUBIC)
        whole = normalise(small, settings.mean, settings.std)
        every = Quadtree(criterion="uniform", patch_size=settings.quadtree.patch_size)
        return [pack(whole, every.batch(whole[None])[0]), pack(*self.cut(settings, picture))]

    def count(self, settings: QlipImageProcessor, image: ImageLike) -> int:
        """Leaves and newlines of the tree."""
        return _tokens(self.cut(settings, image)[1])

    def most(self, height: int, width: int) -> int:
        """The same where nothing merges."""
        return height * (width + 1)

    def cut(self, settings: QlipImageProcessor, image: ImageLike) -> tuple[Tensor, Leaves]:
        """The prepared picture ``(3, H, W)`` and its leaves, as many as fit the budget with their newlines.

        A further split makes three leaves more and at most one line, so the count is at most 3 under the budget.

        Raises:
            ValueError: if the budget is smaller than the fewest leaves and lines.
        """
        picture, limit = settings.prepare(image), settings.quadtree.max_tokens

        best = settings.quadtree.batch(picture[None])[0]
        if limit is None or _tokens(best) <= limit:
            return picture, best
        # Splits are made in a fixed order, so fewer leaves have no more lines: those whose newlines fit too are an interval.
        low, high, fitting = limit - len(line_lengths(best.row)) - 1, limit, None
        while high - low > 1:
            middle = (low + high) // 2
            try:
                leaves = replace(settings.quadtree, max_tokens=middle).batch(picture[None])[0]
            except ValueError:  # fewer than the picture can have
                low = middle
                continue
            if _tokens(leaves) <= limit:
                low, fitting = middle, leaves
            else:
                high = middle
        if fitting is None:
            raise ValueError(
                f"max_tokens: got {limit}; the fewest leaves of this picture are more, with a newline after each line. Raise "
                f"max_tokens, shrink the image, or set cover='full' if it is not"
            )
        return picture, fitting


def _tokens(leaves: Leaves) -> int:
    return len(leaves) + len(line_lengths(leaves.row))


def whole_side(images: Any) -> int:
    """Side of the small picture that the original image processor makes, in pixels."""
    size = images.size
    return size.get("shortest_edge") or min(size["height"], size["width"])
