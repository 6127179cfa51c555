"""CLIP towers built from a configuration and a seed, for the quickstart and the tests: no download, nothing learned."""

import re

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from qlip.core.rules import shown

MAX_WIDTH, MAX_LAYERS = 4096, 64  # of a name that anybody may type; the largest CLIPs have 1664 and 48


def smooth_table(grid: int, dim: int, std: float = 0.014, roughness: float = 0.3, seed: int = 0) -> Tensor:
    """A table of positional embeddings as CLIP's are: smooth over the grid, with some noise on top, ``(n, n, D)``.

    Args:
        grid: Side n.
        dim: Width D.
        std: Standard deviation of the entries; 0.014 is near that of ViT-L/14@336.
        roughness: Standard deviation of the noise relative to the smooth part.
        seed: Seed of both.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, dim, 6, 6, generator=generator)
    smooth = F.interpolate(coarse, size=(grid, grid), mode="bicubic", align_corners=True)[0]
    table = smooth / smooth.std() + roughness * torch.randn(dim, grid, grid, generator=generator)
    return (table * (std / table.std())).permute(1, 2, 0).contiguous()


def random_clip(
    width: int = 256, layers: int = 6, *, image_size: int = 336, patch_size: int = 14, seed: int = 0
) -> CLIPVisionModelWithProjection:
    """A CLIP vision tower with random weights and a smooth positional table, the same for the same arguments.

    Args:
        width: Hidden size, a multiple of 32.
        layers: Number of layers.
        image_size: Side of the square image that the table is for, in pixels.
        patch_size: Patch side in pixels.
        seed: Seed of the weights.
    """
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 64, 1),
        projection_dim=width // 2,
        image_size=image_size,
        patch_size=patch_size,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = CLIPVisionModelWithProjection(config).eval()
    embeddings, grid = clip.vision_model.embeddings, image_size // patch_size
    with torch.no_grad():
        # Fresh weights hardly look at the image: [CLS] would be the same to three digits whatever it shows, and positions
        # would drown in the patches. Stronger layers and weaker patches give a tower in which both matter.
        for parameter in clip.vision_model.encoder.parameters():
            parameter.mul_(4 if parameter.ndim == 2 else 1)
        embeddings.patch_embedding.weight.mul_(0.1)
        embeddings.position_embedding.weight[1:] = smooth_table(grid, width, seed=seed).flatten(0, 1)
    return clip


def random_clip_from_name(name: str) -> CLIPVisionModelWithProjection:
    """Build ``random:<width>x<layers>``, for example ``random:256x6``.

    Raises:
        ValueError: if the name has another form.
    """
    match = re.fullmatch(r"random:(\d+)x(\d+)", name)
    width, layers = (int(part[:9]) for part in match.groups()) if match else (0, 0)
    if width % 32 or not (0 < width <= MAX_WIDTH and 0 < layers <= MAX_LAYERS):
        raise ValueError(
            f"backbone: got {shown(name)}; takes random:<width>x<layers>, for example random:256x6, with a width of a multiple of "
            f"32 up to {MAX_WIDTH:,} and up to {MAX_LAYERS} layers"
        )
    return random_clip(width, layers)
