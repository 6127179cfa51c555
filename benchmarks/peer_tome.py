"""ToMe inside CLIP's layers: Bolya et al., arXiv 2210.09461; tome/merge.py and tome/patch/timm.py of facebookresearch/ToMe, af95e4b.

Between attention and MLP the r most similar pairs of tokens become one, by the means of their heads' keys; a merged token is the
mean of its patches, and counts as many times in attention. Ours besides: a layer that is to lose more than the half that ToMe can take
matches again, and what is left is put back into reading order, for a language model.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def match(keys: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bipartite soft matching of tokens by ``keys (T, d)``: which stay ``(T - r,)``, which go ``(r,)``, and into which these go.

    Every other token may go into one of those between, the first excepted, which is the class token.
    """
    keys = F.normalize(keys, dim=-1)
    scores = keys[::2] @ keys[1::2].T
    scores[0] = -torch.inf
    best, nearest = scores.max(dim=-1)
    order = best.argsort(descending=True)
    between = torch.arange(1, len(keys), 2)
    return torch.cat([2 * order[r:].sort().values, between]), 2 * order[:r], between[nearest[order[:r]]]


def merge(values: Tensor, sizes: Tensor, matched: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Means of ``values (T, C)`` and sums of ``sizes (T,)`` over the tokens that `match` puts together, sizes being weights."""
    stay, go, into = matched
    sums, sizes = values * sizes[:, None], sizes.index_add(0, into, sizes[go])
    return sums.index_add(0, into, sums[go])[stay] / sizes[stay, None], sizes[stay]


def attend(layer: nn.Module, states: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The states ``(T, D)`` after a layer's attention, in which keys count by their sizes, and the mean of the heads' keys, ``(T, d)``."""
    attention, normed = layer.self_attn, layer.layer_norm1(states)
    query, key, value = (
        part(normed).unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=sizes.log()[None, None])
    return states + attention.out_proj(mixed.transpose(0, 1).flatten(1)), key.mean(0)


def encode(layers: Iterable[nn.Module], states: Tensor, counts: Iterable[int]) -> Tensor:
    """Run layers on ``states (1 + n, D)``, class token first; ``counts`` patches are left after each: ``(counts[-1], D)``."""
    sizes, places = torch.ones(len(states)), torch.arange(len(states))
    for layer, count in zip(layers, counts, strict=True):
        states, keys = attend(layer, states, sizes)
        while len(states) > 1 + count:
            matched = match(keys, min(len(states) - 1 - count, (len(states) - 1) // 2))
            both, sizes = merge(torch.cat([states, keys], dim=1), sizes, matched)
            states, keys = both.split([states.shape[1], keys.shape[1]], dim=1)
            places = places[matched[0]]
        states = states + layer.mlp(layer.layer_norm2(states))
    return states[places.argsort()][1:]
