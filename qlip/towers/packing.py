"""How the images of a batch lie in the rows that CLIP's layers see, and how images in one row are kept apart."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import PretrainedConfig
from transformers.utils.generic import is_flash_attention_requested


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Images side by side in one row.

    It stands where layers take a mask, and `torch.nn.functional.scaled_dot_product_attention` leaves the work to it, as
    it does for torch's own ``CausalBias``. Because it is an argument, it is there again when activation checkpointing
    repeats a layer, and CLIP's configuration, which names the attention that its layers use, stays as it was.

    Attributes:
        tokens: Of each image.
        offsets: ``(1 + len(tokens),)`` int32, where each begins, and the end.
    """

    tokens: list[int]
    offsets: Tensor

    @classmethod
    def of(cls, tokens: list[int], device: torch.device) -> "SideBySide":
        """Images of so many tokens each."""
        return cls(tokens, torch.tensor([0, *accumulate(tokens)], dtype=torch.int32, device=device))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SideBySide":
        """Move to a device: accelerate does so with the arguments of a layer."""
        return SideBySide(self.tokens, self.offsets.to(device, non_blocking=non_blocking))

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Tensor:
        if func is not F.scaled_dot_product_attention:
            raise TypeError(f"{func}: got SideBySide for a mask; only scaled_dot_product_attention takes it")
        options = dict(kwargs)
        return attention_apart(*args, images=options.pop("attn_mask"), **options)


def attention_apart(query: Tensor, key: Tensor, value: Tensor, *, images: SideBySide, **options: Any) -> Tensor:
    """Attention ``(1, H, T, d)`` in which the tokens of an image see each other and nothing else.

    In half precision on a GPU it is one kernel for all images. Elsewhere it is a call for each: on a CPU a third of the
    time of padding, a sixth of that of a mask over the whole row, and torch's jagged tensors do not run on every build.
    """
    if _has_kernel(query) and not options.get("dropout_p"):
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, d)
        longest, ends = max(images.tokens), images.offsets
        out: Any = varlen_attn(q, k, v, ends, ends, longest, longest)  # the scale is the usual one, as CLIP's is
        return out.transpose(0, 1)[None]
    each = zip(*(x.split(images.tokens, dim=2) for x in (query, key, value)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*image, **options) for image in each], dim=2)


def _has_kernel(query: Tensor) -> bool:
    """Whether torch's attention for varying lengths takes ``query (..., d)``."""
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16) or query.shape[-1] % 8:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


@dataclass(frozen=True, eq=False)
class Rows:
    """How the images of a batch lie in rows.

    Images of one length have a row each, as in CLIP. Images of different lengths share a single row, one after the other,
    so that nothing is computed or kept for padding.

    Attributes:
        shape: ``(B, N)``, the patches of the batch, padding counted.
        images: The images in a row, class tokens counted.
        patches: ``(P,)`` int64, which of the B * N patches are none of padding; None where all are.
        tokens: ``(T,)`` int64, the same of the B * (1 + N) tokens.
    """

    shape: tuple[int, int]
    images: SideBySide
    patches: Tensor | None = None
    tokens: Tensor | None = None

    @classmethod
    def of(cls, mask: Tensor) -> "Rows":
        """The rows for a batch whose ``mask (B, N)`` is true for patches and false for padding.

        Waits for the device, once for the whole batch and whatever its size.
        """
        counts = mask.sum(1).tolist()
        shape = (mask.shape[0], mask.shape[1])
        if min(counts) == shape[1]:
            return cls(shape, SideBySide.of([1 + shape[1]], mask.device))
        images = SideBySide.of([1 + count for count in counts], mask.device)
        tokens = F.pad(mask, (1, 0), value=True)
        return cls(shape, images, mask.flatten().nonzero()[:, 0], tokens.flatten().nonzero()[:, 0])

    def pack(self, values: Tensor) -> Tensor:
        """Values of patches, ``(B, N, ...)``, in rows: ``(B, N, ...)``, or ``(1, P, ...)`` where images share one."""
        return values if self.patches is None else values.flatten(0, 1)[None, self.patches]

    def insert(self, first: Tensor, patches: Tensor) -> Tensor:
        """Put the class token ``first (D,)`` before each image of ``patches (R, P, D)``: ``(R, T, D)``."""
        first = first.to(patches.dtype).expand(len(patches), 1, -1)
        images = patches.split([length - 1 for length in self.images.tokens], dim=1)
        return torch.cat([part for image in images for part in (first, image)], dim=1)

    def through(self, layer: nn.Module, states: Tensor, config: PretrainedConfig) -> Tensor:
        """The output of one of CLIP's layers for ``states (R, T, D)``.

        Args:
            layer: Called once. With an attention that can not keep images apart (eager, flex attention, a user's own) it is
                called once for each image.
            states: Input.
            config: The tower's, which names the attention.
        """
        images = self.images
        if len(images.tokens) == 1:
            return layer(states, None)
        if config._attn_implementation == "sdpa":
            return layer(states, images)
        if is_flash_attention_requested(config):
            ends = {f"cu_seq_lens_{x}": images.offsets for x in "qk"}
            return layer(states, None, **ends, **{f"max_length_{x}": max(images.tokens) for x in "qk"})
        return torch.cat([layer(image, None) for image in states.split(images.tokens, dim=1)], dim=1)

    def class_tokens(self, states: Tensor) -> Tensor:
        """The class token of each image of ``states (R, T, D)``: ``(B, D)``."""
        return states[:, self.images.offsets[:-1]].flatten(0, 1)

    def unpack(self, states: Tensor) -> Tensor:
        """``states (R, T, D)`` as the batch is, ``(B, 1 + N, D)``, zero where padded."""
        if self.tokens is None:
            return states
        images, patches = self.shape
        padded = states.new_zeros(images * (1 + patches), states.shape[-1])
        return padded.index_copy(0, self.tokens, states[0]).view(images, 1 + patches, -1)
