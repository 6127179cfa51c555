"""A sum over micro-batches in the memory of one micro-batch.

What: ``f(x) = f_1(x) + ... + f_K(x)``, where ``x (U, D)`` holds the positional encodings of a batch and ``f_k`` is the
loss of its k-th micro-batch: a few images, encoded by the frozen CLIP.

Why: the graph of ``f_k`` holds every activation of those images. Built the plain way, all K graphs are alive until the
backward pass. Lightning's ``accumulate_grad_batches`` frees them one by one, but evaluates the network and talks to the
other GPUs K times; recomputing activations encodes every image twice.

How: only the network behind ``x`` is trained, so all that its backward pass needs of the images is one tensor,
``df/dx = df_1/dx + ... + df_K/dx`` of shape ``(U, D)``. The forward pass takes each ``df_k/dx`` as soon as ``f_k`` is
known, adds it up, and drops the graph. By the chain rule the backward pass is then ``dL/dx = dL/df * df/dx``. Nothing is
computed twice, and whoever calls sees one differentiable scalar, with one backward pass for a trainer and for DDP.

The price: ``df/dx`` is taken of the unscaled sum, before a gradient scaler multiplies the loss. float16 thus gains nothing
from loss scaling in here; use bfloat16.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx, once_differentiable

Terms = Callable[[Tensor], Iterable[Tensor]]


def sum_of_micro_batches(terms: Terms, x: Tensor) -> Tensor:
    """Compute ``sum(terms(x))``, differentiable by ``x``, with the graph of one term in memory at a time.

    Args:
        terms: From ``x`` to scalars that depend on it alone, computed one at a time as they are asked for.
        x: The only tensor that gets a gradient.
    """
    total: Tensor = _SumOfMicroBatches.apply(terms, x)
    return total


class _SumOfMicroBatches(torch.autograd.Function):
    """The gradient is computed in the forward pass, and scaled in the backward pass."""

    @staticmethod
    def forward(ctx: FunctionCtx, terms: Terms, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        total = torch.zeros((), device=x.device)
        with torch.enable_grad():
            for value in terms(x):
                total = total + value.detach()
                with torch.autocast(x.device.type, enabled=False):  # as outside: each op in its forward's precision
                    torch.autograd.backward(value, inputs=[x])
        assert x.grad is not None
        ctx.save_for_backward(x.grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, upstream: Tensor) -> tuple[None, Tensor]:
        (gradient,) = ctx.saved_tensors
        return None, upstream * gradient
