"""What travels to a model counts the same however it travels."""

import torch

from qlip import Quadtree
from qlip.images.pixels import pack, to_batch, token_counts


def test_leaves_are_counted_alike_in_pairs_and_in_a_batch_of_their_patches():
    image = torch.randn(3, 8 * 28, 9 * 28, generator=torch.Generator().manual_seed(0))
    leaves = Quadtree(max_tokens=50, patch_size=28, cover="full")(image)
    pair = pack(image, leaves, unit=2)
    assert len(pair[0]) == 4 * len(leaves)
    assert token_counts([pair]) == token_counts(to_batch([pair]), unit=2) == [len(leaves)]
