"""Where leaves stand, in the terms of the towers and language models that rotate: Qwen-VL and its relatives.

Leaves are ``(N, 5)`` tensors of one image, see `qlip.core.quadtree.Leaves.geometry`, counted in units of ``u x u`` patches.
Each function equals what transformers derives from ``image_grid_thw`` where every leaf is a single unit.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from qlip.core.quadtree import centres


def sequence_ends(lengths: Iterable[int]) -> Tensor:
    """Where sequences of these lengths begin and end once they are joined: 0 and the running sums, int32."""
    return F.pad(torch.tensor(list(lengths)).cumsum(0), (1, 0)).int()


def windows(leaves: list[Tensor], side: int, patches: int) -> dict[str, Tensor]:
    """Qwen2.5-VL's windows: a leaf is in the one that its centre lies in, and its patches stay together.

    Args:
        leaves: Those of each image.
        side: Side of a window in units.
        patches: Patches of a unit.

    Returns:
        ``window_index (M,)``, the order of all leaves by windows, and ``cu_window_seqlens``, where windows end, in patches.
    """
    order, lengths, start = [], [], 0
    for each in leaves:
        row, col = (centres(each, "patches") // side).long().unbind(1)
        window = row * -(-each[0, 4] // side) + col
        order.append(window.argsort(stable=True) + start)  # stable: the reading order within a window
        lengths += [count * patches for count in window.unique(return_counts=True)[1].tolist()]
        start += len(each)
    return {"window_index": torch.cat(order), "cu_window_seqlens": sequence_ends(lengths)}


def table_taps(parts: Tensor, side: int) -> dict[str, Tensor]:
    """Qwen3-VL's learned table at centres: bilinear, with the corners of table and image aligned.

    Args:
        parts: Patches of any images, ``(M, 5)``.
        side: Rows and columns of the table.

    Returns:
        ``interp_indices`` and ``interp_weights``, each ``(M, 4)``: the entries around each centre, and their shares.
    """
    # From counts of patches and in transformers' order of operations: a detour through [-1, 1] cost 4e-4 in logits.
    at = centres(parts, "patches") * (side - 1) / (parts[:, 3:] - 1).clamp(min=1)
    low = at.floor().long()
    near = torch.stack([low, low + 1], dim=-1).clamp(max=side - 1)  # (M, axis, 2)
    share = torch.stack([1 - (at - low), at - low], dim=-1)
    return {
        "interp_indices": (near[:, 0, :, None] * side + near[:, 1, None, :]).flatten(1),
        "interp_weights": (share[:, 0, :, None] * share[:, 1, None, :]).flatten(1),
    }


def prompt_positions(is_image: list[bool], leaves: Iterator[Tensor]) -> tuple[Tensor, int]:
    """Time, row and column of each token of a prompt.

    A leaf stands at its centre, halves kept. Text goes on where it would after the whole grid, so that places in the image
    mean what they meant.

    Args:
        is_image: Which tokens are placeholders.
        leaves: Those of each image; as many are taken as the prompt has images.

    Returns:
        Positions ``(3, L)`` float32, and the position at which the next token would stand.
    """
    start, found = 0, [torch.empty(3, 0)]
    for image, run in groupby(is_image):
        left = len(list(run))
        if not image:
            found.append(torch.arange(start, start + left, dtype=torch.float32).expand(3, -1))
            start += left
        while image and left > 0:  # images side by side share a run
            each = next(leaves).cpu()
            found.append(F.pad(centres(each, "patches").T, (0, 0, 1, 0)) + start)
            start += int(each[0, 3:].max())
            left -= len(each)
    return torch.cat(found, dim=1), start
