"""A training batch: photographs in micro-batches that go through the CLIP one after the other, each coordinate held once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qlip.core.patches import PatchBatch

Item = tuple[PatchBatch, Tensor]


@dataclass(frozen=True)
class MicroBatch:
    """Photographs that go through the CLIP together.

    Attributes:
        patches: The patches of the photographs.
        coord_index: ``(B, N)`` int64, the index of each token's coordinate in the batch's ``coords``; 0 where padded.
        target: ``(B, E)``, the [CLS] outputs of the frozen CLIP for the standard views of the photographs.
    """

    patches: PatchBatch
    coord_index: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.patches)


@dataclass(frozen=True)
class TrainBatch:
    """Photographs of one training step.

    All that would make a GPU wait for the host, counting tokens, splitting, finding equal coordinates, is done when the
    batch is put together, in a worker.

    Attributes:
        micro_batches: The photographs in order, a few at a time.
        coords: ``(U, 2)`` float32, every coordinate that occurs in the batch, once.
        tokens: Number of patches in the batch; padding does not count.
    """

    micro_batches: tuple[MicroBatch, ...]
    coords: Tensor
    tokens: int

    def __len__(self) -> int:
        return sum(map(len, self.micro_batches))

    @property
    def padding_waste(self) -> float:
        """Fraction of the tokens that are padding."""
        return 1 - self.tokens / sum(micro_batch.coord_index.numel() for micro_batch in self.micro_batches)

    @classmethod
    def collate(cls, items: Sequence[Item], tokens_at_once: int | None = None) -> "TrainBatch":
        """Put photographs and their targets ``(E,)`` into a batch.

        Args:
            items: One `PatchBatch` of one photograph each, with its target.
            tokens_at_once: Most tokens of a micro-batch, padding counted; a larger photograph has a micro-batch to
                itself. The whole batch is one micro-batch if not given.
        """
        groups = [items[run] for run in split_by_tokens([p.mask.shape[1] for p, _ in items], tokens_at_once)]
        patches = [PatchBatch.collate(p for p, _ in group) for group in groups]
        coords, indices = unique_coords([p.coords[p.mask] for p in patches])
        micro_batches = []
        for group, p, index in zip(groups, patches, indices, strict=True):
            padded = torch.zeros(p.mask.shape, dtype=torch.int64).masked_scatter_(p.mask, index)
            micro_batches.append(MicroBatch(p, padded, torch.stack([target for _, target in group])))
        return cls(tuple(micro_batches), coords, sum(map(len, indices)))

    def to(self, device: torch.device | str) -> "TrainBatch":
        """Move to a device; a GPU fetches it while it goes on with what it has to do."""
        ahead = torch.device(device).type == "cuda"  # not the other way: the host would read what has not arrived

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=ahead)

        moved = (
            MicroBatch(m.patches.to(device, non_blocking=ahead), move(m.coord_index), move(m.target))
            for m in self.micro_batches
        )
        return TrainBatch(tuple(moved), move(self.coords), self.tokens)

    def pin_memory(self) -> "TrainBatch":
        """Copy to page-locked memory, as DataLoader asks."""
        pinned = (
            MicroBatch(m.patches.pin_memory(), m.coord_index.pin_memory(), m.target.pin_memory())
            for m in self.micro_batches
        )
        return TrainBatch(tuple(pinned), self.coords.pin_memory(), self.tokens)


def split_by_tokens(lengths: Sequence[int], max_tokens: int | None) -> list[slice]:
    """Split images of these token counts, in order, so that each group padded to its longest has at most ``max_tokens``.

    An image above it is a group of its own. One group if ``max_tokens`` is None.
    """
    cuts, longest = [0], 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if max_tokens is not None and i > cuts[-1] and (i + 1 - cuts[-1]) * longest > max_tokens:
            cuts.append(i)
            longest = length
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(lengths)], strict=True)]


def unique_coords(coords: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Every coordinate of several lists ``(n_i, 2)`` float32 once, ``(U, 2)``, and the index of each list's own, ``(n_i,)``."""
    pairs = torch.cat(list(coords)).contiguous()
    # A pair of floats read as one integer: ten times faster to sort, and equality is all that matters.
    keys, index = torch.unique(pairs.view(torch.int64)[:, 0], return_inverse=True)
    return keys[:, None].view(torch.float32), index.split([len(c) for c in coords])
