"""Counters of what a training step keeps and waits for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class KeptActivations:
    """Bytes of activations that autograd keeps, now and at most; weights, which are there anyway, do not count."""

    def __init__(self, module: torch.nn.Module | None = None) -> None:
        tensors = [*module.parameters(), *module.buffers()] if module else []
        self.weights = {t.untyped_storage().data_ptr() for t in tensors}
        self.now = self.most = 0
        self.tensors: list[tuple[int, ...]] = []

    def pack(self, tensor: Tensor) -> Any:
        kept = self

        class Counted:
            def __init__(self) -> None:
                weight = tensor.untyped_storage().data_ptr() in kept.weights
                self.size = 0 if weight else tensor.nbytes
                self.tensor = tensor
                kept.now += self.size
                kept.most = max(kept.most, kept.now)
                kept.tensors.append(tuple(tensor.shape))

            def __del__(self) -> None:
                kept.now -= self.size

        return Counted()

    def during(self, function: Callable[[], object]) -> "KeptActivations":
        with saved_tensors_hooks(self.pack, lambda counted: counted.tensor):
            function()
        return self


def gradient_leaves(result: Tensor) -> list[Tensor]:
    """Tensors that a backward pass from ``result`` would leave gradients in."""
    found, seen, todo = [], set(), [result.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
            found += [node.variable] if hasattr(node, "variable") else []
    return found


class OperationNames(TorchDispatchMode):
    """Keeps the names of operations, ``aten`` ones that others consist of."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class HostReads(TorchFunctionMode):
    """Names of calls for which the host waits for a GPU, or makes a tensor itself that it then has to send."""

    METHODS = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "_local_scalar_dense")
    SIZES = ("nonzero", "_unique2", "unique_dim", "masked_select", "equal", "is_nonzero")  # of the result: data decides
    MADE = ("tensor", "arange", "linspace", "randn", "rand", "scalar_tensor", "lift_fresh")

    def __enter__(self) -> "HostReads":
        self.seen: list[str] = []
        self.inside = OperationNames(self.seen)
        self.inside.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.inside.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))

    @property
    def names(self) -> list[str]:
        return [name for name in self.seen if name in self.METHODS + self.SIZES + self.MADE]
