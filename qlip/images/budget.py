"""At which size a picture keeps to a budget of tokens."""

import math
from collections.abc import Callable, Sequence


def shortest_edges(top: int, aspect: float, patch_size: int) -> list[int]:
    """Sizes that a picture can be scaled down to: one for each number of patches along its longer side.

    Args:
        top: The largest, in pixels of the shorter edge.
        aspect: Longer side over shorter side.
        patch_size: Side of a patch in pixels, the least that is taken.

    Returns:
        Falling, ``top`` first.
    """
    longest = int(top * aspect) // patch_size
    smaller = {math.ceil(patches * patch_size / aspect) for patches in range(1, longest + 1)}
    return [top, *sorted((size for size in smaller if patch_size <= size < top), reverse=True)]


def counted_at(top: int, patch_size: int, grid: Callable[[int], tuple[int, int]], budget: int) -> list[int]:
    """Sizes at which leaves are counted for `size_of_tree`, rising: each half as large as the next, the last below ``top``.

    They are at least two, and at the first a grid that is whole fits the budget, unless that would be less than a patch.

    Args:
        top: The largest size that may be taken.
        patch_size: Side of a patch in pixels.
        grid: Rows and columns at a size.
        budget: Tokens.
    """
    sizes = [max(top // 2, patch_size)]  # a quarter of the pixels of the top, whose tree follows in any case
    while sizes[-1] // 2 >= patch_size and (len(sizes) < 2 or math.prod(grid(sizes[-1])) > budget):
        sizes.append(sizes[-1] // 2)
    return sizes[::-1]


def size_of_tree(count: Callable[[int], int], sizes: Sequence[int], budget: int) -> float:
    """The largest size at which a picture has about ``budget`` leaves, with its threshold left alone (``fit="scale"``).

    Between and above the sizes at which leaves are counted, their logarithm is taken to be linear in that of the size. So
    what is known never depends on the budget, and a larger one never gets a smaller size.

    Args:
        count: Leaves of the picture scaled to a shortest edge; called until there are more than ``budget``.
        sizes: See `counted_at`.
        budget: Tokens.

    Returns:
        Shortest edge in pixels; infinite if the leaves do not grow with the size.
    """
    before, size = 0, sizes[0]
    fewer, leaves = 0, count(size)
    for larger in sizes[1:]:
        if leaves > budget:
            break
        before, fewer, size = size, leaves, larger
        leaves = count(larger)
    if not fewer:
        return sizes[0] if leaves > budget else math.inf
    if leaves <= fewer:
        return math.inf
    return before * (size / before) ** (math.log(budget / fewer) / math.log(leaves / fewer))
