"""Where the roots of a quadtree lie on an image, and what follows for its blocks and the number of its leaves."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qlip.core.names import Cover


class OverBudgetError(ValueError):
    """An image cannot be cut into as few leaves as its budget allows."""


@dataclass(frozen=True)
class Roots:
    """Where the roots lie on an image of ``h x w`` patches.

    They are ``rows x cols`` blocks of ``2^level`` patches whose corner is the patch ``(top, left)``, which is negative
    where the roots stick out of the image (``cover="full"``).
    """

    h: int
    w: int
    level: int
    rows: int
    cols: int
    top: int
    left: int

    @classmethod
    def of(cls, h: int, w: int, cover: Cover) -> "Roots":
        """The roots of an image of ``h x w`` patches."""
        level = max(min(h.bit_length(), w.bit_length()) - 2, 0)  # bit_length is floor(log2) + 1
        if cover == "full" and min(h, w) > 1:
            level = max(level, 1)  # the paper never merges in images of 2 or 3 patches; a budget may have to
        side = 1 << level
        rows, cols = (-(-h // side), -(-w // side)) if cover == "full" else (h // side, w // side)
        return cls(h, w, level, rows, cols, (h - rows * side) // 2, (w - cols * side) // 2)

    def crop(self, images: Tensor, patch_size: int) -> Tensor:
        """The pixels under the roots, the image's border repeated where they stick out."""
        side = patch_size << self.level
        top, left = self.top * patch_size, self.left * patch_size
        bottom, right = top + self.rows * side, left + self.cols * side
        inside = images[..., max(top, 0) : bottom, max(left, 0) : right]
        height, width = images.shape[-2:]
        over = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
        return F.pad(inside, over, mode="replicate") if any(over) else inside

    def force(self, scores: Tensor, level: int) -> Tensor:
        """Give blocks ``(B, rows, cols)`` of ``level`` that stick out of the image an infinite score: they must split."""
        if not self._stick_out():
            return scores
        rows_in = self._inside(scores.shape[1], self.top, self.h, level, scores.device)
        cols_in = self._inside(scores.shape[2], self.left, self.w, level, scores.device)
        return scores.masked_fill(~(rows_in[:, None] & cols_in), torch.inf)

    def _stick_out(self) -> bool:
        return self.rows << self.level > self.h or self.cols << self.level > self.w

    @staticmethod
    def _inside(blocks: int, offset: int, length: int, level: int, device: torch.device) -> Tensor:
        start = offset + (torch.arange(blocks, device=device) << level)
        return (start >= 0) & (start + (1 << level) <= length)

    def num_inside(self, level: int) -> int:
        """Number of blocks of ``level`` that lie inside the image."""
        rows, cols = (
            min(blocks << (self.level - level), (length - offset) >> level) - max(-(offset >> level), 0)
            for blocks, offset, length in ((self.rows, self.top, self.h), (self.cols, self.left, self.w))
        )
        return rows * cols

    def fewest_leaves(self) -> int:
        """The fewest leaves, whatever is in the image: each merging inside it turns four into one."""
        return self.h * self.w - 3 * sum(self.num_inside(level) for level in range(1, self.level + 1))

    def check_budget(self, budget: int, least: int | None = None) -> None:
        """Raise if an image has more leaves than a budget, however few blocks split.

        Args:
            budget: The most leaves.
            least: The fewest that it has; `fewest_leaves` if not given.

        Raises:
            OverBudgetError: if it has.
        """
        least = self.fewest_leaves() if least is None else least
        if least > budget:
            raise OverBudgetError(
                f"max_tokens: got {budget}, but an image of {self.h} x {self.w} patches has at least {least} leaves under "
                f"this criterion and cover; raise max_tokens or scale the image down, as QlipImageProcessor does"
            )

    def num_leaves(self, splits: Tensor) -> Tensor:
        """The number of leaves once so many blocks have split, among them all that stick out of the image or lie outside it.

        Every split inside turns one leaf into four.
        """
        levels = range(1, self.level + 1)
        outside = sum((self.rows * self.cols << 2 * (self.level - k)) - self.num_inside(k) for k in levels)
        return self.fewest_leaves() + 3 * (splits - outside)

    def to_image(self, values: Tensor) -> Tensor:
        """Place per-patch values ``(B, rows * 2^level, cols * 2^level)`` on the image, ``(B, h, w)``, zero outside."""
        bottom, right = self.h - self.top - values.shape[1], self.w - self.left - values.shape[2]
        return F.pad(values, (self.left, right, self.top, bottom))  # negative amounts crop
