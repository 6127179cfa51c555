"""A sum over parts of a batch in the memory of one part."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class SumOfParts(torch.autograd.Function):
    """``sum(parts(x))`` for scalars that depend on ``x`` alone, each differentiated before the next is computed.

    All that is kept is the gradient by ``x``: the graph of a part is gone when the next is built, nothing is computed
    twice, and whoever calls sees one differentiable sum, with one backward pass for a trainer and for DDP.
    The gradient is taken of the unscaled sum, so float16 with loss scaling gains nothing from the scaling in here.
    """

    @staticmethod
    def forward(ctx: Any, parts: Callable[[Tensor], Iterable[Tensor]], x: Tensor) -> Tensor:
        """Sum ``parts(x)``, an iterable that computes one scalar at a time."""
        x = x.detach().requires_grad_()
        total = torch.zeros((), device=x.device)
        with torch.enable_grad():
            for value in parts(x):
                total = total + value.detach()
                with torch.autocast(x.device.type, enabled=False):  # as outside: each op in its forward's precision
                    torch.autograd.backward(value, inputs=[x])
        ctx.save_for_backward(x.grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        """Scale the gradient that is already there."""
        (gradient,) = ctx.saved_tensors
        return None, upstream * gradient
