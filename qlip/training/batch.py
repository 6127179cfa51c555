"""A training batch: photographs in parts that go through the CLIP one at a time, every coordinate of theirs named once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qlip.core.patches import PatchBatch

Item = tuple[PatchBatch, Tensor]


@dataclass(frozen=True)
class Part:
    """Photographs that go through the CLIP together.

    Attributes:
        patches: Their patches.
        row: ``(B, N)`` int64, which of the batch's ``coords`` each token has; 0 where padded.
        target: ``(B, E)``, the [CLS] that the frozen CLIP gives their standard views.
    """

    patches: PatchBatch
    row: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.patches)


@dataclass(frozen=True)
class TrainBatch:
    """Photographs of one training step.

    All that would make a GPU wait for the host, counting tokens, splitting, finding equal coordinates, is done when the
    batch is put together, in a worker.

    Attributes:
        parts: The photographs in order, a few at a time.
        coords: ``(U, 2)``, every coordinate that occurs in the batch, once.
        tokens: How many patches there are, padding not counted.
    """

    parts: tuple[Part, ...]
    coords: Tensor
    tokens: int

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def padding_waste(self) -> float:
        """Share of padded tokens."""
        return 1 - self.tokens / sum(part.row.numel() for part in self.parts)

    @classmethod
    def collate(cls, items: Sequence[Item], tokens_at_once: int | None = None) -> "TrainBatch":
        """Put photographs and their targets ``(E,)`` into a batch.

        Args:
            items: One `PatchBatch` of one photograph each, with its target.
            tokens_at_once: Most tokens of a part, padding counted; a photograph above it has a part to itself. One part
                if not given.
        """
        groups = [items[run] for run in runs_within([p.mask.shape[1] for p, _ in items], tokens_at_once)]
        patches = [PatchBatch.collate(p for p, _ in group) for group in groups]
        coords, rows = distinct([p.coords[p.mask] for p in patches])
        parts = []
        for group, p, row in zip(groups, patches, rows, strict=True):
            padded = torch.zeros(p.mask.shape, dtype=torch.int64).masked_scatter_(p.mask, row)
            parts.append(Part(p, padded, torch.stack([target for _, target in group])))
        return cls(tuple(parts), coords, sum(map(len, rows)))

    def to(self, device: torch.device | str) -> "TrainBatch":
        """Move to a device; a GPU fetches it while it goes on with what it has to do."""
        ahead = torch.device(device).type == "cuda"  # not the other way: the host would read what has not arrived

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=ahead)

        parts = (Part(p.patches.to(device, non_blocking=ahead), move(p.row), move(p.target)) for p in self.parts)
        return TrainBatch(tuple(parts), move(self.coords), self.tokens)

    def pin_memory(self) -> "TrainBatch":
        """Copy to page-locked memory, as DataLoader asks."""
        parts = (Part(p.patches.pin_memory(), p.row.pin_memory(), p.target.pin_memory()) for p in self.parts)
        return TrainBatch(tuple(parts), self.coords.pin_memory(), self.tokens)


def runs_within(lengths: Sequence[int], most: int | None) -> list[slice]:
    """Cut images of these token counts into runs whose size, padded to the longest, is at most ``most``.

    An image above it is a run of its own.
    """
    cuts, longest = [0], 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if most is not None and i > cuts[-1] and (i + 1 - cuts[-1]) * longest > most:
            cuts.append(i)
            longest = length
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(lengths)], strict=True)]


def distinct(coords: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Every coordinate of several lists ``(n_i, 2)`` float32 once, ``(U, 2)``, and for each list which it has, ``(n_i,)``."""
    pairs = torch.cat(list(coords)).contiguous()
    # A pair of floats read as one integer: ten times faster to sort, and equality is all that matters.
    keys, row = torch.unique(pairs.view(torch.int64)[:, 0], return_inverse=True)
    return keys[:, None].view(torch.float32), row.split([len(c) for c in coords])
