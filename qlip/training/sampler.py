"""Batches of similar token counts, in an order that depends on the seed and the position in the run alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler


@dataclass(frozen=True)
class Draw:
    """One image of a batch, and the seed of whatever is random about it."""

    index: int
    seed: int


class TokenBatchSampler(Sampler[list[Draw]]):
    """An endless stream of batches, shuffled anew every epoch, images of similar token count together.

    It holds no state of its own: each iteration goes on at batch ``position()`` of the run, so that a resumed run draws
    what an unbroken one would have drawn. Every rank takes its own share of the same stream.

    Args:
        tokens: Token count of every image.
        batch_size: Images in a batch; an epoch's last batch is filled up from its first.
        seed: Seed of the order and of every draw.
        position: Number of batches this rank has trained on so far.
        rank, world_size: Of this process.
    """

    POOL = 32  # batches among which images are sorted by length: enough to match lengths, few enough to stay random

    def __init__(
        self,
        tokens: Sequence[int],
        batch_size: int,
        seed: int,
        position: Callable[[], int] = lambda: 0,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}; takes a positive number of images")
        self.tokens, self.batch_size, self.seed, self.position = tokens, batch_size, seed, position
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        """Batches of one rank in one epoch, the same for every rank."""
        return -(-len(self.tokens) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[Draw]]:
        start = self.position()
        for step in range(start, start + len(self)):
            epoch, batch = divmod(step, len(self))
            if step == start or batch == 0:
                batches = self.epoch_batches(epoch)
            yield batches[batch * self.world_size + self.rank]

    def epoch_batches(self, epoch: int) -> list[list[Draw]]:
        """All batches of an epoch, those of all ranks in turn."""
        generator = torch.Generator().manual_seed(hash((self.seed, epoch)) % (1 << 63))
        count, total = len(self.tokens), len(self) * self.world_size * self.batch_size
        order = torch.randperm(count, generator=generator).tolist()
        order = [order[i % count] for i in range(total)]
        pool = self.POOL * self.batch_size
        pools = (sorted(order[i : i + pool], key=self.tokens.__getitem__) for i in range(0, total, pool))
        flat = [index for pool_indices in pools for index in pool_indices]
        batches = [flat[i : i + self.batch_size] for i in range(0, total, self.batch_size)]
        seeds = torch.randint(1 << 62, (total,), generator=generator).tolist()
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [[Draw(i, seeds[b * self.batch_size + k]) for k, i in enumerate(batches[b])] for b in shuffled]


def padding_waste(lengths: Sequence[Sequence[int]]) -> float:
    """Share of padded tokens in batches of these token counts."""
    padded = sum(len(batch) * max(batch) for batch in lengths)
    return 1 - sum(map(sum, lengths)) / padded
