"""What differs between vision transformers, as one small class each; a file in this folder registers its own.

A tower is a module of transformers, used as it is: its patch embedding, its layers, its norms. An adapter says where
these are and how the tower tells patches where they stand: by a square table, by a reading of its own, by rotating queries
and keys, or by several of these. To add one, add a file with a subclass of `Tower`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig

from qlip.core.quadtree import Frame
from qlip.towers.packing import Packing

TOWERS: dict[str, type["Tower"]] = {}
# where models of image and text, of image and words, and of images alone keep their tower
HOLDERS = ("vision_model", "vision_tower", "vit", "dinov2", "dinov2_with_registers")


class Tower:
    """A vision transformer, seen through its parts.

    Attributes:
        module: The tower itself, shared and left as it is.
        patch: Path of its patch embedding, a convolution whose stride is its size, or a linear layer on ``(p, p, 3)``.
        layers: Path of its layers.
        options: What its layers are told besides, the same for all.
        frame: Where its own interpolation sees the table's ends: ``"corners"`` or ``"edges"``, see `qlip.core.quadtree.centres`.
    """

    patch: ClassVar[str] = "embeddings.patch_embedding"
    layers: ClassVar[str] = "encoder.layers"
    options: ClassVar[dict[str, Tensor]] = {}
    frame: ClassVar[Frame] = "edges"
    module: Any  # each class of transformers has attributes of its own

    def __init_subclass__(cls, hosts: tuple[str, ...] = (), **kwargs: object) -> None:
        """Register an adapter.

        Args:
            hosts: Names of the classes of transformers that it is for.
            kwargs: None are taken.
        """
        super().__init_subclass__(**kwargs)
        TOWERS.update(dict.fromkeys(hosts, cls))

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def config(self) -> PretrainedConfig:
        """The tower's configuration, which names the attention of its layers."""
        return self.module.config

    @property
    def weight(self) -> Tensor:
        """Weights of the patch embedding, ``(D, 3, p, p)``."""
        weight: Tensor = self.module.get_submodule(self.patch).weight
        if self._convolves:
            return weight
        side = round((weight.shape[1] // 3) ** 0.5)
        return weight.unflatten(1, (side, side, 3)).movedim(3, 1)

    @property
    def _convolves(self) -> bool:
        """Whether the patch embedding is a convolution; else it takes patches as rows of pixels, channels last."""
        return self.module.get_submodule(self.patch).weight.ndim == 4

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.weight.shape[-1]

    @property
    def grid(self) -> int:
        """Side n of the table.

        Raises:
            ValueError: if the tower has none.
        """
        return len(self.square_table())

    @property
    def rotates(self) -> bool:
        """Whether the layers are told the patches' angles."""
        return type(self).rotation is not Tower.rotation

    @property
    def places_itself(self) -> bool:
        """Whether the tower tells patches where they stand without a position of ours."""
        return self.rotates or type(self).positions is not Tower.positions

    @property
    def size(self) -> int | None:
        """Side in pixels of the square pictures that the tower was made for; None if it takes them as they are."""
        side = self.config.image_size
        return side if isinstance(side, int) else min(side)

    def inputs(self) -> Iterator[nn.Module]:
        """The modules whose weights are read without calling them; with ``device_map`` these may be elsewhere."""
        return self.module.get_submodule(self.patch.split(".")[0]).modules()

    def embed(self, patches: Tensor) -> Tensor:
        """Embeddings ``(R, P, D)`` of ``patches (R, P, 3, p, p)``, without positions.

        Raises:
            ValueError: if the patches are of another size.
        """
        weight = self.weight
        if patches.shape[2:] != weight.shape[1:]:
            raise ValueError(
                f"batch.patches: got patches of shape {tuple(patches.shape[2:])}; this tower takes "
                f"{tuple(weight.shape[1:])}. Set patch_size={weight.shape[-1]} in the Quadtree"
            )
        layer = self.module.get_submodule(self.patch)
        if type(layer) in (nn.Conv2d, nn.Linear) and not layer._forward_hooks:  # one product of matrices, the fastest
            bias: Tensor | None = getattr(layer, "bias", None)
            return F.linear(patches.to(weight.dtype).flatten(2), weight.flatten(1), bias)
        flat = patches.to(weight.dtype).flatten(0, 1)
        # an adapter, or a hook that asks for gradients, wants to be called
        embedded = layer(flat if self._convolves else flat.movedim(1, -1).flatten(1))
        return embedded.flatten(1).unflatten(0, patches.shape[:2])

    def table(self) -> Tensor | None:
        """The tower's own positions on its grid, ``(n, n, D)``; None if it has no square table."""
        return None

    def square_table(self) -> Tensor:
        """`table`, for a tower that must have one.

        Raises:
            ValueError: if it has none.
        """
        table = self.table()
        if table is None:
            raise ValueError(f"tower: got a {type(self.module).__name__}, which has no square table of positions")
        return table

    def positions(self, geometry: Tensor) -> Tensor | None:
        """What the tower adds to patches by itself, ``(R, P, D)``, where no position is given; None for nothing.

        Args:
            geometry: ``(R, P, 5)`` int64, see `qlip.core.quadtree.Leaves.geometry`.
        """
        return None

    def rotation(self, geometry: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosine and sine of the patches' angles, ``(..., P, d)`` each as a layer takes them; None if nothing is rotated.

        Args:
            geometry: ``(P, 5)`` int64, the patches of all images one after the other.
        """
        return None

    def prefix(self) -> Tensor | None:
        """Tokens before those of the patches, ``(F, D)``, their positions added: the class token. None if there are none."""
        return None

    @property
    def prefix_length(self) -> int:
        """How many tokens `prefix` has."""
        prefix = self.prefix()
        return 0 if prefix is None else len(prefix)

    def before(self, states: Tensor) -> Tensor:
        """What happens to the embeddings ``(R, T, D)`` before the first layer."""
        return states

    def after(self, states: Tensor) -> Tensor:
        """What happens to the states ``(R, T, D)`` after the last layer."""
        return states

    def pool(self, states: Tensor, packing: Packing) -> Tensor | None:
        """One vector for each image, ``(B, D)``, from `after`'s states ``(R, T, D)``; None if the tower has none."""
        return None


@contextmanager
def onloaded(*modules: nn.Module) -> Iterator[None]:
    """Within this context the modules' own weights are where they compute.

    With ``device_map`` or ``cpu_offload`` weights may be on the meta device until accelerate's hook around ``forward``
    brings them; this runs the hook around the context instead. Without hooks nothing happens.
    """
    with ExitStack() as stack:
        for module in modules:
            hook = getattr(module, "_hf_hook", None)
            if hook is not None:
                hook.pre_forward(module)
                stack.callback(hook.post_forward, module, None)
        yield


def square(rows: Tensor) -> Tensor:
    """A table's rows ``(n * n, D)`` as ``(n, n, D)``."""
    side = round(len(rows) ** 0.5)
    return rows.unflatten(0, (side, side))


def find_tower(model: nn.Module, name: str = "model") -> Tower:
    """The tower that ``model`` is or holds, in the adapter for its class.

    Args:
        model: A tower, or a model that has one under one of the names in `HOLDERS`.
        name: What the caller calls the argument.

    Raises:
        TypeError: if there is none that is known.
    """
    held = next((getattr(model, holder) for holder in HOLDERS if hasattr(model, holder)), model)
    for module in (model, held):
        for kind in type(module).__mro__:
            if kind.__name__ in TOWERS and kind.__module__.startswith("transformers."):
                return TOWERS[kind.__name__](module)
    got = type(model).__name__ + ("" if held is model else f" with a {type(held).__name__}")
    raise TypeError(f"{name}: got {got}; takes a vision tower, or a model that holds one: {', '.join(sorted(TOWERS))}")


def position_table(model: nn.Module) -> Tensor:
    """A copy of the positions of the tower that ``model`` is or holds, on its own grid: ``(n, n, D)``.

    Raises:
        TypeError: see `find_tower`.
        ValueError: if the tower has no square table.
    """
    tower = find_tower(model)
    with onloaded(*tower.inputs()):
        return tower.square_table().detach().clone()
