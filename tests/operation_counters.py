"""Counters for tests of what must not creep back: speed without a clock."""

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = {
    "tolist",
    "item",
    "nonzero",
    "masked_select",
    "unique",
    "tensor",
    "cpu",
    "numpy",
    "__bool__",
    "__int__",
    "__float__",
}
PRODUCTS = {"aten.mm.default", "aten.addmm.default"}


class Waits(TorchFunctionMode):
    """Counts the calls for which the host would have to wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in ("__getitem__", "__setitem__"):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.counts[name] += any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in index)
        self.counts[name] += name in WAITS
        return func(*args, **(kwargs or {}))

    def seen(self) -> dict[str, int]:
        return {name: count for name, count in self.counts.items() if count}


class Operations(TorchDispatchMode):
    """Counts the operations that reach torch's dispatcher, which on a GPU are the kernels that are launched."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))

    def products(self) -> int:
        """Products of matrices, those of attention left out."""
        return sum(self.counts[name] for name in PRODUCTS)

    def attention(self) -> int:
        return sum(count for name, count in self.counts.items() if "attention" in name)


class Written(TorchDispatchMode):
    """Counts the bytes of memory that operations take for their results; views and work in place take none."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {
            tensor.untyped_storage().data_ptr() for tensor in tree_leaves((args, kwargs)) if torch.is_tensor(tensor)
        }
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if torch.is_tensor(tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.bytes += tensor.numel() * tensor.itemsize
        return out
