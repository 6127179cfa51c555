"""Weights that accelerate keeps elsewhere, for code that reads them without calling their module."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn


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
