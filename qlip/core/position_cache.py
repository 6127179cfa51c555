"""Encodings that a frozen network need not compute twice: pictures share most of their coordinates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LIMIT = 2**26  # bytes of encodings: 16,384 of width 1024


@dataclass(frozen=True)
class _Known:
    """Encodings ``values (K, D)`` at coordinates ``keys (K,)``, which are sorted, made with ``weights`` at their ``versions``."""

    keys: Tensor
    values: Tensor
    weights: Sequence[Tensor]
    versions: Sequence[int]

    def made_with(self, weights: Sequence[Tensor]) -> bool:
        """Whether the weights are these, and nothing has written to them since."""
        return len(weights) == len(self.weights) and all(
            now.data_ptr() == then.data_ptr() and now.dtype == then.dtype and now._version == version
            for now, then, version in zip(weights, self.weights, self.versions, strict=True)
        )

    def find(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Where ``keys (n,)`` are among those known, and whether they are."""
        rows = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return rows, self.keys[rows] == keys


class PositionCache:
    """What a frozen network said at each coordinate, for as long as its weights stay as they are.

    Copies and pickles start empty. What writes to ``weight.data`` behind torch's back goes unnoticed. On CPUs alone: a GPU
    computes an encoding about as fast as it finds one.
    """

    def __init__(self) -> None:
        self._known: _Known | None = None  # replaced whole, never changed, so that threads may share it

    def __reduce__(self) -> "tuple[type[PositionCache], tuple[()]]":
        return PositionCache, ()

    def __call__(self, network: Callable[[Tensor], Tensor], coords: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Encodings ``(..., D)`` at ``coords (..., 2)``, without gradients.

        Args:
            network: Computes them.
            coords: What the network takes.
            weights: All that its answers hang on.
        """
        if any(weight.requires_grad for weight in weights):
            self._known = None  # torch's fused optimisers write to weights and leave their version as it was
            return network(coords)
        if not coords.numel() or not _cacheable(coords, weights):
            return network(coords)
        # a pair of float32 is a number of 64 bits, if memory begins at one
        keys = coords.clone(memory_format=torch.contiguous_format).view(torch.int64).flatten()
        known = self._known
        if known is None or not known.made_with(weights):
            known = _learn(network, keys.unique(), weights)
        rows, found = known.find(keys)
        if not found.all():
            new = _learn(network, keys[~found].unique(), weights)
            keys_of_both, order = torch.cat([known.keys, new.keys]).sort()
            known = _Known(keys_of_both, torch.cat([known.values, new.values])[order], new.weights, new.versions)
            rows, _ = known.find(keys)
        self._known = known if known.values.nbytes <= LIMIT else None  # too much: begin anew with the next call
        return known.values[rows].view(*coords.shape[:-1], -1)


def _learn(network: Callable[[Tensor], Tensor], keys: Tensor, weights: Sequence[Tensor]) -> _Known:
    """The encodings at ``keys (K,)``, sorted."""
    # aliases share memory and version; as long as they live, no other weights can have their address
    aliases = [weight.detach() for weight in weights]
    values = network(keys[:, None].view(torch.float32))
    return _Known(keys, values, aliases, [alias._version for alias in aliases])


def _cacheable(coords: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether encodings may be kept: on a CPU, without gradients, of weights that know when they are written to."""
    known = all(weight.device.type == "cpu" and not weight.is_inference() for weight in weights)
    plain = coords.device.type == "cpu" and coords.dtype == torch.float32 and not coords.requires_grad
    return known and plain and not torch.compiler.is_compiling()
