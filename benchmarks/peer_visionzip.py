"""VisionZip's rule after CLIP's tower: Yang et al., arXiv 2412.04467; visionzip/clip_encoder.py of dvlab-research/VisionZip, 3151f6d.

Patches that the class token attends to most stay as they are, in reading order; the rest become a few contextual tokens. As there, the class
token is shown too, 10 of 64 tokens are contextual, and one of these is a patch of the rest, at even distances, plus the mean of those
whose keys are most like its own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONTEXTUAL = 10 / 64  # the same share with 64, 128 and 192 tokens


def look(layer: nn.Module, states: Tensor) -> tuple[Tensor, Tensor]:
    """How a layer that gets ``states (1 + n, D)`` sees patches: the mean of the heads' keys ``(n, d)``, the class token's attention ``(n,)``."""
    attention, normed = layer.self_attn, layer.layer_norm1(states)
    key = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim))  # (1 + n, H, d)
    query = attention.q_proj(normed[0]).unflatten(-1, (-1, attention.head_dim))  # (H, d)
    weights = (torch.einsum("hd,nhd->hn", query, key) * attention.scale).softmax(dim=-1)
    return key[1:].mean(1), weights[:, 1:].sum(0)


def choose(states: Tensor, keys: Tensor, attention: Tensor, dominant: int, contextual: int) -> Tensor:
    """The class token, dominant patches and contextual tokens of ``states (1 + n, D)``: ``(1 + dominant + contextual, D)``."""
    patches, most = states[1:], attention.topk(dominant).indices.sort().values
    shown = [states[:1], patches[most]]
    if contextual:
        rest = torch.ones(len(patches), dtype=torch.bool).index_fill(0, most, False)
        patches, keys = patches[rest], F.normalize(keys[rest], dim=-1)
        target = torch.arange(0, len(patches), max(1, len(patches) // contextual))[:contextual]
        merged = torch.ones(len(patches), dtype=torch.bool).index_fill(0, target, False)
        nearest = (keys[merged] @ keys[target].T).argmax(dim=-1)
        sums = torch.zeros(contextual, patches.shape[1]).index_add(0, nearest, patches[merged])
        counts = nearest.bincount(minlength=contextual).clamp(min=1)
        shown.append(patches[target] + sums / counts[:, None])
    return torch.cat(shown)


def shares(tokens: int) -> tuple[int, int]:
    """Dominant patches and contextual tokens of so many tokens, the class token counted among these."""
    contextual = round(tokens * CONTEXTUAL)
    return tokens - 1 - contextual, contextual
