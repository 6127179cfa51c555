"""Images of different lengths in one row, as NaViT packs them, each seeing itself alone.

A batch is ragged: a tree leaves one image 60 tokens and another 900. Padding them to 900 would spend most of the work on
nothing. So their tokens are laid one after the other, ``(1, T, D)`` with ``T = T_1 + T_2 + ...``; norms and MLPs do not care
where an image ends, and attention is kept apart:

    out_i = softmax(q_i k_i^T / sqrt(d)) v_i        for each image i, nothing between images

`PackedImages` stands where a layer takes its mask and `torch.nn.functional.scaled_dot_product_attention` leaves the work
to it, as it does for torch's own ``CausalBias``. Images of one length have a row each and go the ordinary way.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import PretrainedConfig
from transformers.utils.generic import is_flash_attention_requested


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Images one after the other in a row, in the place of a mask.

    Because it is an argument, it is there again when activation checkpointing repeats a layer, and the tower's
    configuration, which names the attention that its layers use, stays as it was.

    Attributes:
        lengths: Tokens of each image.
        offsets: ``(1 + len(lengths),)`` int32, where each image begins, and the end.
    """

    lengths: list[int]
    offsets: Tensor

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "PackedImages":
        """Images of so many tokens each."""
        return cls(lengths, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PackedImages":
        """Move to a device: accelerate does so with the arguments of a layer."""
        return PackedImages(self.lengths, self.offsets.to(device, non_blocking=non_blocking))

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Tensor],
        types: Iterable[type],
        args: tuple[Tensor, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Tensor:
        if func is not F.scaled_dot_product_attention:
            raise TypeError(f"{func}: got PackedImages for a mask; only scaled_dot_product_attention takes it")
        options = dict(kwargs or {})
        return packed_attention(*args, images=options.pop("attn_mask"), **options)


def packed_attention(query: Tensor, key: Tensor, value: Tensor, *, images: PackedImages, **options: Any) -> Tensor:
    """Attention ``(1, H, T, d)`` in which the tokens of an image see each other and nothing else.

    In half precision on a GPU it is one kernel for all images. Elsewhere it is a call for each: on a CPU a third of the
    time of padding, a sixth of that of a mask over the whole row, and torch's jagged tensors do not run on every build.

    Args:
        query: ``(1, H, T, d)``.
        key: ``(1, H, T, d)``.
        value: ``(1, H, T, d)``.
        images: Where each image lies in the row.
        options: Those of ``scaled_dot_product_attention``.
    """
    if _has_kernel(query) and not options.get("dropout_p"):
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, d)
        longest, ends = max(images.lengths), images.offsets
        out = varlen_attn(q, k, v, ends, ends, longest, longest)  # the scale is the usual one, as the towers' is
        assert isinstance(out, Tensor)
        return out.transpose(0, 1)[None]
    each = zip(*(x.split(images.lengths, dim=2) for x in (query, key, value)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*image, **options) for image in each], dim=2)


def _has_kernel(query: Tensor) -> bool:
    """Whether torch's attention for varying lengths takes ``query (..., d)``."""
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16) or query.shape[-1] % 8:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


@dataclass(frozen=True, eq=False)
class Packing:
    """How the images of a batch lie in the rows that a tower's layers see.

    Images of one length have a row each, as in transformers. Images of different lengths share a single row, one after the
    other, so that nothing is computed or kept for padding.

    Attributes:
        shape: ``(B, N)``, the patches of the batch, padding counted.
        prefix: Tokens before the patches of each image: 1 for a class token.
        images: The images in a row, prefixes counted.
        patches: ``(P,)`` int64, which of the B * N patches are none of padding; None where all are.
        tokens: ``(T,)`` int64, the same of the B * (prefix + N) tokens.
    """

    shape: tuple[int, int]
    prefix: int
    images: PackedImages
    patches: Tensor | None = None
    tokens: Tensor | None = None

    @classmethod
    def of(cls, mask: Tensor, prefix: int) -> "Packing":
        """The packing of a batch whose ``mask (B, N)`` is true for patches and false for padding.

        Waits for the device, once for the whole batch and whatever its size.
        """
        counts = mask.sum(1).tolist()
        shape = (mask.shape[0], mask.shape[1])
        if min(counts) == shape[1]:
            return cls(shape, prefix, PackedImages.of([prefix + shape[1]], mask.device))
        images = PackedImages.of([prefix + count for count in counts], mask.device)
        tokens = F.pad(mask, (prefix, 0), value=True)
        return cls(shape, prefix, images, mask.flatten().nonzero()[:, 0], tokens.flatten().nonzero()[:, 0])

    def pack(self, values: Tensor) -> Tensor:
        """Values of patches, ``(B, N, ...)``, in rows: ``(B, N, ...)``, or ``(1, P, ...)`` where images share one."""
        return values if self.patches is None else values.flatten(0, 1)[None, self.patches]

    def insert(self, prefix: Tensor | None, patches: Tensor) -> Tensor:
        """Put the tower's ``prefix (F, D)`` before each image of ``patches (R, P, D)``: ``(R, T, D)``."""
        if prefix is None:
            return patches
        prefix = prefix.to(patches.dtype).expand(len(patches), -1, -1)
        images = patches.split([length - self.prefix for length in self.images.lengths], dim=1)
        return torch.cat([part for image in images for part in (prefix, image)], dim=1)

    def through(self, layer: nn.Module, states: Tensor, config: PretrainedConfig) -> Tensor:
        """The output of one of the tower's layers for ``states (R, T, D)``.

        Args:
            layer: Called once. A layer that takes no mask, or an attention that cannot keep images apart (eager, flex
                attention, a user's own), is called once for each image.
            states: The layer's input.
            config: The tower's configuration, which names the attention.
        """
        images = self.images
        if not _takes_mask(type(layer).forward):
            return torch.cat([layer(image) for image in self.images_of(states)], dim=1)
        if len(images.lengths) == 1:
            return layer(states, None)
        if config._attn_implementation == "sdpa":
            return layer(states, images)
        if is_flash_attention_requested(config):
            ends = {f"cu_seq_lens_{x}": images.offsets for x in "qk"}
            return layer(states, None, **ends, **{f"max_length_{x}": max(images.lengths) for x in "qk"})
        return torch.cat([layer(image, None) for image in self.images_of(states)], dim=1)

    def images_of(self, states: Tensor) -> list[Tensor]:
        """``states (R, T, D)`` image by image, ``(1, T_i, D)`` each; as they are where every image has a row."""
        return list(states.split(self.images.lengths, dim=1))

    def first_tokens(self, states: Tensor) -> Tensor:
        """The first token of each image of ``states (R, T, D)``: ``(B, D)``."""
        return states[:, self.images.offsets[:-1]].flatten(0, 1)

    def unpack(self, states: Tensor) -> Tensor:
        """``states (R, T, D)`` as the batch is, ``(B, prefix + N, D)``, zero where padded."""
        if self.tokens is None:
            return states
        images, patches = self.shape
        padded = states.new_zeros(images * (self.prefix + patches), states.shape[-1])
        return padded.index_copy(0, self.tokens, states[0]).view(images, self.prefix + patches, -1)


@lru_cache(maxsize=64)
def _takes_mask(forward: Callable[..., Tensor]) -> bool:
    """Whether a layer hands a mask on to its attention."""
    return "attention_mask" in inspect.signature(forward).parameters
