"""What differs between vision transformers, as one small class each; a file in this folder registers its own.

A tower is a module of transformers, used as it is: its patch embedding, its layers, its norms. An adapter says where
these are and how the tower tells patches where they stand. To add one, add a file with a subclass of `Tower`.
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
HOLDERS = ("vision_model", "vision_tower")  # where models of image and text, or of image and words, keep their tower


class Tower:
    """A vision transformer with a square table of positions, seen through its parts.

    Attributes:
        module: The tower itself, shared and left as it is.
        patch: Path of its patch embedding, a convolution whose stride is its size.
        layers: Path of its layers.
        frame: Where its own interpolation sees the table's ends: ``"corners"`` or ``"edges"``, see `qlip.core.quadtree.centres`.
    """

    patch: ClassVar[str] = "embeddings.patch_embedding"
    layers: ClassVar[str] = "encoder.layers"
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
        return self.module.get_parameter(f"{self.patch}.weight")

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.weight.shape[-1]

    @property
    def grid(self) -> int:
        """Side n of the table."""
        return self.table().shape[0]

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
        bias: Tensor | None = getattr(self.module.get_submodule(self.patch), "bias", None)
        return F.linear(patches.to(weight.dtype).flatten(2), weight.flatten(1), bias)

    def table(self) -> Tensor:
        """The tower's own positions on its grid, ``(n, n, D)``."""
        raise NotImplementedError

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
        model: A tower, or a model that has one as ``vision_model`` or ``vision_tower``.
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
    """
    tower = find_tower(model)
    with onloaded(*tower.inputs()):
        return tower.table().detach().clone()
