"""What a model's tokens are and what they cost, from its configuration alone: no weights are loaded."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoImageProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from qlip.core.rules import shown
from qlip.families import FAMILIES, Converted
from qlip.images.processor import QlipImageProcessor
from qlip.shipped import shipped
from qlip.towers.base import TOWERS
from qlip.towers.hub import NO_CODE, read_config
from qlip.towers.load import image_statistics


@dataclass(frozen=True)
class Geometry:
    """What `qlip.convert` asks of a model, and what its encoder computes.

    Attributes:
        name: What the user calls the model.
        patch_size: Side of a patch of the encoder in pixels.
        unit: Patches along the side of a token.
        size: Shortest edge in pixels that the model was made for; None if it takes pictures as they are.
        tokens: Tokens that the stock model spends on a picture; None if that is the picture's own grid.
        depth: Layers of the encoder.
        width: Length of its hidden states.
        weights: Entries of the matrices of all layers, each used once for each patch.
        prefix: Tokens before the patches, such as CLIP's class token.
        mean, std: Of the channels in [0, 1].
    """

    name: str = "CLIP ViT-L/14, 336 px"
    patch_size: int = 14
    unit: int = 1
    size: int | None = 336
    tokens: int | None = 576
    depth: int = 24
    width: int = 1024
    weights: int = 24 * 12 * 1024**2
    prefix: int = 1
    mean: tuple[float, ...] = tuple(OPENAI_CLIP_MEAN)
    std: tuple[float, ...] = tuple(OPENAI_CLIP_STD)

    @property
    def side(self) -> int:
        """Side of a token in pixels."""
        return self.patch_size * self.unit

    def price(self, grid: tuple[int, int]) -> int:
        """Tokens that the stock model spends on a picture whose own grid has so many rows and columns of tokens."""
        return grid[0] * grid[1] if self.tokens is None else self.tokens

    def flops(self, tokens: int) -> int:
        """Floating-point operations of the encoder for one picture, a multiplication and an addition being two.

        With n patches, L layers of width D and W weights: ``2 n W`` for the matrices, ``4 n^2 D L`` for full attention, and the
        patch embedding. Norms, biases and activations are left out, which are below 1 %.
        """
        patches = tokens * self.unit**2
        states = patches + self.prefix
        embedding = 2 * patches * 3 * self.patch_size**2 * self.width
        return embedding + 2 * states * self.weights + 4 * states**2 * self.width * self.depth

    def processor(self, **options: Any) -> QlipImageProcessor:
        """The preprocessing of this model, with options as `QlipImageProcessor.with_options` takes them."""
        plain = QlipImageProcessor(self.size, "units", mean=self.mean, std=self.std, unit=self.unit)
        tree = replace(plain.quadtree, patch_size=self.side)
        return replace(plain, size=None, quadtree=tree).with_options(**{"size": self.size, **options})


def read_geometry(model: str | None, patch_size: int | None = None) -> Geometry:
    """The geometry of a model.

    Args:
        model: A model that comes with the package, a folder or a Hub id, of a family or tower in docs/models.md; CLIP ViT-L/14 of
            336 pixels if None.
        patch_size: Another patch size for that CLIP.

    Raises:
        OSError: if there is no such model.
        ValueError: if it is of a kind that is not known.
    """
    if model is None:
        stock = Geometry()
        side = patch_size or stock.patch_size
        name = stock.name if side == stock.patch_size else f"CLIP ViT-L/{side}, 336 px"
        return replace(stock, name=name, patch_size=side, tokens=max(336 // side, 1) ** 2)
    config = read_config(shipped(model), "model")
    kind = _kind(model, config)
    with torch.device("meta"):  # the shapes of the weights, without the weights
        return _of(model, kind(config))


def _kind(model: str, config: Any) -> Any:
    """The class of transformers that a configuration is of.

    Raises:
        ValueError: if qlip does not know it.
    """
    name = (config.architectures or ["?"])[0]
    known = {kind.__name__ for kind in FAMILIES} | set(TOWERS)
    if name.removesuffix("WithProjection") not in known or not hasattr(transformers, name):
        raise ValueError(f"model: got {shown(model)}, a {name}; takes one of the families and towers in docs/models.md")
    return getattr(transformers, name)


def _images(name: str) -> Any:
    """The model's own image processor, which may say what a picture costs; None if there is none."""
    try:
        return AutoImageProcessor.from_pretrained(shipped(name), **NO_CODE)
    except (OSError, ValueError):
        return None


def _of(name: str, model: nn.Module) -> Geometry:
    family = FAMILIES.get(type(model))
    facts = family or Converted
    tower = facts.tower_of(model)
    layers = tower.module.get_submodule(tower.layers)
    mean, std = image_statistics(name)
    return Geometry(
        name=name,
        patch_size=facts.patch_size_of(model),
        unit=facts.unit_of(model),
        size=facts.size_of(model),
        tokens=facts.stock_tokens(model, SimpleNamespace(image_processor=_images(name))),
        depth=len(list(layers.children())),
        width=tower.weight.shape[0],
        weights=sum(weight.numel() for weight in layers.parameters() if weight.ndim == 2),
        prefix=tower.prefix_length,
        mean=mean,
        std=std,
    )
