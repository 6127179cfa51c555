"""Batches of similar token counts, in an order that depends on the seed and the position in the run alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler


@dataclass(frozen=True)
class SeededIndex:
    """One image of a batch, and the seed of whatever is random about it.

    Attributes:
        index: Number of the image in the data set.
        seed: Seed of its augmentation, here of the merging of its blocks.
    """

    index: int
    seed: int


class TokenBatchSampler(Sampler[list[SeededIndex]]):
    """An endless stream of batches, shuffled anew every epoch, images of similar token count together.

    It holds no state of its own: each iteration goes on at batch ``batches_done()`` of the run, so that a resumed run gets
    what an unbroken one would have got. Every rank takes every ``world_size``-th batch of the same stream.

    Args:
        tokens: Token count of every image.
        batch_size: Number of images in a batch; an epoch's last batch is filled up from its first.
        seed: Seed of the order, and of the seed that each image gets.
        batches_done: Returns the number of batches that this rank has trained on so far.
        rank: Number of this process, from 0.
        world_size: Number of processes that train together.
    """

    POOL = 32  # batches among which images are sorted by length: enough to match lengths, few enough to stay random

    def __init__(
        self,
        tokens: Sequence[int],
        batch_size: int,
        seed: int,
        batches_done: Callable[[], int] = lambda: 0,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}; takes a positive number of images")
        self.tokens, self.batch_size, self.seed, self.batches_done = tokens, batch_size, seed, batches_done
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        """Batches of one rank in one epoch, the same for every rank."""
        return -(-len(self.tokens) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        start = self.batches_done()
        for step in range(start, start + len(self)):
            epoch, batch = divmod(step, len(self))
            if step == start or batch == 0:
                batches = self.epoch_batches(epoch)
            yield batches[batch * self.world_size + self.rank]

    def epoch_batches(self, epoch: int) -> list[list[SeededIndex]]:
        """All batches of an epoch, those of all ranks in turn."""
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch))
        count, total = len(self.tokens), len(self) * self.world_size * self.batch_size
        order = torch.randperm(count, generator=generator).tolist()
        order = [order[i % count] for i in range(total)]
        pool = self.POOL * self.batch_size
        pools = (sorted(order[i : i + pool], key=self.tokens.__getitem__) for i in range(0, total, pool))
        flat = [index for pool_indices in pools for index in pool_indices]
        batches = [flat[i : i + self.batch_size] for i in range(0, total, self.batch_size)]
        seeds = torch.randint(1 << 62, (total,), generator=generator).tolist()
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [[SeededIndex(i, seeds[b * self.batch_size + k]) for k, i in enumerate(batches[b])] for b in shuffled]


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch, far from those of its neighbours."""
    # Python salts the hashes of strings, not those of integers and of tuples of them: the same number in every process.
    return hash((seed, epoch)) % (1 << 63)


def padding_waste(lengths: Sequence[Sequence[int]]) -> float:
    """Fraction of the tokens that are padding in batches of these token counts."""
    padded = sum(len(batch) * max(batch) for batch in lengths)
    return 1 - sum(map(sum, lengths)) / padded
