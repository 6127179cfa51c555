"""Random weights under which pixels, places and attention all matter; fresh ones hardly look at the image."""

import torch
from torch import nn

PLACES = ("position", "pos_embed", "class_embedding", "cls_token", "register", "probe", "embed_tokens", "newline")


@torch.no_grad()
def shake(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter anew: matrices by their fan-in, tables and tokens of places wide, norms near one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            place = any(word in name for word in PLACES)
            parameter.copy_(0.5 * noise if place else noise / parameter[0].numel() ** 0.5)
        elif "class_embedding" in name or "newline" in name:
            parameter.copy_(0.5 * noise)
        else:
            parameter.copy_(0.1 * noise + ("norm" in name and name.endswith("weight")))
    return model.eval()
