"""A training batch: photographs in micro-batches that go through the CLIP one after the other, each coordinate held once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qlip.core.patches import PatchBatch


class Item(NamedTuple):
    """One photograph of a batch.

    Attributes:
        patches: Its patches, a batch of one.
        target: ``(E,)``, the [CLS] output of the frozen CLIP for its standard view.
        standard: The patches of that view, a batch of one, where the loss looks at them.
    """

    patches: PatchBatch
    target: Tensor
    standard: PatchBatch | None = None


@dataclass(frozen=True)
class MicroBatch:
    """Photographs that go through the CLIP together.

    Attributes:
        patches: The patches of the photographs.
        coord_index: ``(B, N)`` int64, the index of each token's coordinate in the batch's ``coords``; 0 where padded.
        target: ``(B, E)``, the [CLS] outputs of the frozen CLIP for the standard views of the photographs.
        standard: The patches of those views, where the loss looks at them.
    """

    patches: PatchBatch
    coord_index: Tensor
    target: Tensor
    standard: PatchBatch | None = None

    def __len__(self) -> int:
        return len(self.patches)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MicroBatch":
        """Move to a device."""
        return self._each(lambda held: held.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> "MicroBatch":
        """Copy to page-locked memory."""
        return self._each(lambda held: held.pin_memory())

    def _each(self, do: Callable[[Any], Any]) -> "MicroBatch":
        standard = None if self.standard is None else do(self.standard)
        return MicroBatch(do(self.patches), do(self.coord_index), do(self.target), standard)


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
        """Put photographs into a batch.

        Args:
            items: The photographs.
            tokens_at_once: Most tokens of a micro-batch, padding counted; a larger photograph has a micro-batch to
                itself. The whole batch is one micro-batch if not given.
        """
        groups = [items[run] for run in split_by_tokens([i.patches.mask.shape[1] for i in items], tokens_at_once)]
        patches = [PatchBatch.collate(item.patches for item in group) for group in groups]
        coords, indices = unique_coords([p.coords[p.mask] for p in patches])
        micro_batches = []
        for group, p, index in zip(groups, patches, indices, strict=True):
            padded = torch.zeros(p.mask.shape, dtype=torch.int64).masked_scatter_(p.mask, index)
            target, views = torch.stack([item.target for item in group]), [item.standard for item in group]
            standard = PatchBatch.collate(view for view in views if view is not None) if None not in views else None
            micro_batches.append(MicroBatch(p, padded, target, standard))
        return cls(tuple(micro_batches), coords, sum(map(len, indices)))

    def to(self, device: torch.device | str) -> "TrainBatch":
        """Move to a device; a GPU fetches it while it goes on with what it has to do."""
        ahead = torch.device(device).type == "cuda"  # not the other way: the host would read what has not arrived
        moved = tuple(micro_batch.to(device, non_blocking=ahead) for micro_batch in self.micro_batches)
        return TrainBatch(moved, self.coords.to(device, non_blocking=ahead), self.tokens)

    def pin_memory(self) -> "TrainBatch":
        """Copy to page-locked memory, as DataLoader asks."""
        pinned = tuple(micro_batch.pin_memory() for micro_batch in self.micro_batches)
        return TrainBatch(pinned, self.coords.pin_memory(), self.tokens)


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
