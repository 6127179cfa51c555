"""Pictures that are read line by line: a tree whose lines each end with a token, for LLaVA-NeXT after the whole picture, small."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from qlip.core.quadtree import Leaves, Quadtree
from qlip.core.roots import OverBudgetError
from qlip.families.image_processor import LeafImageProcessor
from qlip.images.eight_bit import EightBitImage
from qlip.images.pixels import Pair, pack
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import ImageLike, to_pixels
from qlip.images.resize import resize


def line_lengths(rows: Tensor) -> list[int]:
    """Leaves of each line: a new one begins where the reading order goes down. ``rows (N,)`` of the leaves, in order."""
    return rows.unique_consecutive(return_counts=True)[1].tolist()


class LinedImages(LeafImageProcessor):
    """For families that end each line of an image with a token, which a budget bounds together with the leaves."""

    def encode(self, settings: QlipImageProcessor, image: ImageLike) -> Any:
        """The pair of the tree."""
        return pack(*self.cut(settings, image), settings.unit)

    def count(self, settings: QlipImageProcessor, image: ImageLike) -> int:
        """Leaves and lines of the tree."""
        return _tokens(self.cut(settings, image)[1])

    def most(self, height: int, width: int) -> int:
        """The same where nothing merges."""
        return height * (width + 1)

    def cut(self, settings: QlipImageProcessor, image: ImageLike) -> tuple[EightBitImage, Leaves]:
        """The prepared picture and its leaves, as many as fit the budget with the ends of their lines.

        A further split makes three leaves more and at most one line, so the count is at most 3 under the budget.

        Raises:
            ValueError: if the budget holds no leaf and the end of its line, see also `QlipImageProcessor.fitted`.
        """
        picture, limit = to_pixels(image), settings.quadtree.max_tokens
        if limit is None:
            return settings.cut(picture)
        for budget in (limit, max(limit // 2, 1)):  # half of it in leaves leaves room for as many lines
            fitted = settings.with_options(max_tokens=budget).fitted(picture)
            prepared = fitted.seen(picture)
            leaves = _leaves_and_lines(fitted.tree_of(*picture.shape[1:]), prepared, limit)
            if leaves is not None:
                return prepared, leaves
        raise ValueError(f"max_tokens: got {limit}; takes at least 2, a leaf and the token after its line")


def _leaves_and_lines(tree: Quadtree, image: EightBitImage, limit: int) -> Leaves | None:
    """The most leaves of an image that fit a budget with the ends of their lines; None if there are none.

    Splits are made in a fixed order, so fewer leaves have no more lines: those whose ends fit too are an interval.
    """
    best = image.leaves(replace(tree, max_tokens=limit))
    if _tokens(best) <= limit:
        return best
    low, high, fitting = max(limit - len(line_lengths(best.row)) - 1, 0), limit, None
    while high - low > 1:
        middle = (low + high) // 2
        try:
            leaves = image.leaves(replace(tree, max_tokens=middle))
        except OverBudgetError:  # fewer than the image can have
            low = middle
            continue
        if _tokens(leaves) <= limit:
            low, fitting = middle, leaves
        else:
            high = middle
    return fitting


class WholeAndTree(LinedImages):
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
        picture = to_pixels(image)
        small = resize(picture, self.side, self.side, settings.resample)
        whole = EightBitImage(small, settings.mean, settings.std)
        every = Quadtree(criterion="uniform", patch_size=settings.quadtree.patch_size)
        return [pack(whole, whole.leaves(every)), super().encode(settings, picture)]


def _tokens(leaves: Leaves) -> int:
    return len(leaves) + len(line_lengths(leaves.row))


def whole_side(images: Any) -> int:
    """Side of the small picture that the original image processor makes, in pixels."""
    size = images.size
    return size.get("shortest_edge") or min(size["height"], size["width"])
