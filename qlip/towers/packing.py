"""Images of different lengths in one row, as NaViT packs them, each seeing itself alone.

A batch is ragged: a tree leaves one image 60 tokens and another 900. Padding them to 900 would spend most of the work on
nothing. So their tokens are laid one after the other, ``(1, T, D)`` with ``T = T_1 + T_2 + ...``; norms and MLPs do not care
where an image ends, and attention is kept apart:

    out_i = softmax(q_i k_i^T / sqrt(d)) v_i        for each image i, nothing between images

`PackedImages` stands where a layer takes its mask and `torch.nn.functional.scaled_dot_product_attention` leaves the work
to it, as it does for torch's own ``CausalBias``. Images of one length have a row each and go the ordinary way.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from types import MappingProxyType
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
        bias: ``(1, 1, 1, T)``, added to the scores of each key; None for nothing.
    """

    lengths: list[int]
    offsets: Tensor
    bias: Tensor | None = None

    @classmethod
    def of(cls, lengths: list[int], device: torch.device) -> "PackedImages":
        """Images of so many tokens each."""
        return cls(lengths, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PackedImages":
        """Move to a device: accelerate does so with the arguments of a layer."""
        bias = None if self.bias is None else self.bias.to(device, non_blocking=non_blocking)
        return PackedImages(self.lengths, self.offsets.to(device, non_blocking=non_blocking), bias)

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
    plain = images.bias is None and not options.get("dropout_p") and key.shape == query.shape
    if plain and _has_kernel(query):
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, d)
        longest, ends = max(images.lengths), images.offsets
        out = varlen_attn(q, k, v, ends, ends, longest, longest, scale=options.get("scale"))
        assert isinstance(out, Tensor)
        return out.transpose(0, 1)[None]
    each = zip(*(x.split(images.lengths, dim=2) for x in (query, key, value)), strict=True)
    biases = [None] * len(images.lengths) if images.bias is None else images.bias.split(images.lengths, dim=3)
    attended = [
        F.scaled_dot_product_attention(q, k, v, attn_mask=bias, **options)
        for (q, k, v), bias in zip(each, biases, strict=True)
    ]
    return torch.cat(attended, dim=2)


def _has_kernel(query: Tensor) -> bool:
    """Whether torch's attention for varying lengths takes ``query (..., d)``."""
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16) or query.shape[-1] % 8:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


Rotation = tuple[Tensor, Tensor]


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
        log_areas: ``(R, T)``, the logarithm of what each token counts as a key; None where each counts once.
    """

    shape: tuple[int, int]
    prefix: int
    images: PackedImages
    patches: Tensor | None = None
    tokens: Tensor | None = None
    log_areas: Tensor | None = None

    @classmethod
    def of(cls, mask: Tensor, prefix: int, share: bool = False) -> "Packing":
        """The packing of a batch whose ``mask (B, N)`` is true for patches and false for padding.

        Waits for the device, once for the whole batch and whatever its size.

        Args:
            mask: Which are patches.
            prefix: Tokens before the patches of each image.
            share: Put images of one length in a single row, too.
        """
        counts = mask.sum(1).tolist()
        shape = (mask.shape[0], mask.shape[1])
        if min(counts) == shape[1] and not share:
            return cls(shape, prefix, PackedImages.of([prefix + shape[1]], mask.device))
        images = PackedImages.of([prefix + count for count in counts], mask.device)
        tokens = F.pad(mask, (prefix, 0), value=True)
        return cls(shape, prefix, images, mask.flatten().nonzero()[:, 0], tokens.flatten().nonzero()[:, 0])

    def by_area(self, areas: Tensor) -> "Packing":
        """The same, each patch counting as a key by its area, as ToMe's merged tokens do (arXiv 2210.09461, section 3).

        Args:
            areas: ``(B, N)``, those of the patches, in patches.
        """
        logs = self.insert(areas.new_zeros(self.prefix, 1), self.pack(areas.log())[..., None])[..., 0]
        return replace(self, log_areas=logs)

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

    def rotated(self, rotation: Rotation | None) -> Rotation | None:
        """A rotation of patches ``(..., P, d)`` as one of tokens ``(..., T, d)``: a prefix is not turned."""
        if rotation is None or not self.prefix:
            return rotation
        lengths = [length - self.prefix for length in self.images.lengths]
        padded = [
            torch.cat(
                [F.pad(image, (0, 0, self.prefix, 0), value=still) for image in angles.split(lengths, dim=-2)], dim=-2
            )
            for angles, still in zip(rotation, (1.0, 0.0), strict=True)
        ]
        return padded[0], padded[1]

    def through(
        self,
        layer: nn.Module,
        states: Tensor,
        config: PretrainedConfig,
        rotation: Rotation | None = None,
        options: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Tensor:
        """The output of one of the tower's layers for ``states (R, T, D)``.

        Args:
            layer: Called once. A layer that takes no mask, or an attention that cannot keep images apart (eager, flex
                attention, a user's own), is called once for each image.
            states: The layer's input.
            config: The tower's configuration, which names the attention.
            rotation: Cosine and sine of the tokens' angles, ``(..., T, d)``; for images that share a row.
            options: What else the layer is told.

        Raises:
            ValueError: if tokens count by area, and the attention takes no mask.
        """
        images, attention = self.images, config._attn_implementation
        told: dict[str, Any] = {**options, **({} if rotation is None else {"position_embeddings": rotation})}
        bias = None if self.log_areas is None else self.log_areas.to(states.dtype)[:, None, None]
        if not takes_mask(type(layer).forward):
            return torch.cat([layer(image) for image in self.images_of(states)], dim=1)
        if bias is not None and is_flash_attention_requested(config):
            raise ValueError(
                f"weighting: got 'area' with attn_implementation={attention!r}, which takes no mask; load the model with "
                f"attn_implementation='sdpa', or use weighting='once'"
            )
        if len(images.lengths) == 1:
            return layer(states, attention_mask=bias, **told)
        if attention == "sdpa":
            return layer(states, attention_mask=replace(images, bias=bias), **told)
        if is_flash_attention_requested(config):
            ends = {f"cu_seq_lens_{x}": images.offsets for x in "qk"}
            lengths = {f"max_length_{x}": max(images.lengths) for x in "qk"}
            return layer(states, attention_mask=None, **told, **ends, **lengths)
        out = []
        for number, image in enumerate(self.images_of(states)):
            if rotation is not None:
                cos, sin = (angles.split(images.lengths, dim=-2)[number] for angles in rotation)
                told["position_embeddings"] = cos, sin
            mask = None if bias is None else bias.split(images.lengths, dim=-1)[number]
            out.append(layer(image, attention_mask=mask, **told))
        return torch.cat(out, dim=1)

    def images_of(self, states: Tensor) -> list[Tensor]:
        """``states (R, T, ...)`` image by image, ``(1, T_i, ...)`` each; as they are where every image has a row."""
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
def takes_mask(forward: Callable[..., Tensor]) -> bool:
    """Whether a layer hands a mask on to its attention."""
    return "attention_mask" in inspect.signature(forward).parameters
