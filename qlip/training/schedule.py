"""How far a run is, and the learning rate there."""

import math
from collections.abc import Callable

import lightning as L
from lightning.pytorch.callbacks import Timer

from qlip.training.data import data_module_of


def warmup_cosine(done: float, warmup: float, step: float) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to zero.

    Args:
        done: Share of the run that is over, 0 to 1.
        warmup: Share over which the factor rises.
        step: Share that the next step takes; it begins above zero.
    """
    if done < warmup:
        return (done + step) / (warmup + step)
    return 0.5 * (1 + math.cos(math.pi * min((done - warmup) / max(1 - warmup, 1e-9), 1.0)))


def learning_rate_factor(trainer: L.Trainer, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate after a number of optimiser steps: zero where the first of the run's limits ends it."""
    total = total_steps(trainer)
    one = 1 / total if total < math.inf else warmup / 100  # nobody knows how long a step takes
    return lambda step: warmup_cosine(max(step / total, time_over(trainer)), warmup, one)


def time_over(trainer: L.Trainer) -> float:
    """Share of ``max_time`` that is over, the same on all ranks; zero where there is no such limit."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    timer = next((callback for callback in callbacks if isinstance(callback, Timer)), None)
    left = timer.time_remaining() if timer else None
    if timer is None or left is None:
        return 0.0
    elapsed = timer.time_elapsed()
    over = min(elapsed / (elapsed + left), 1.0) if elapsed + left > 0 else 1.0
    return trainer.strategy.broadcast(over) if trainer.world_size > 1 else over


def total_steps(trainer: L.Trainer) -> float:
    """Optimiser steps of the whole run, infinite if time alone ends it.

    Trainer.estimated_stepping_batches would start the data loader here, before a resumed run knows its place.

    Raises:
        ValueError: if nothing ends it.
    """
    batches = len(data_module_of(trainer).train_sampler())
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps: float = -(-batches // trainer.accumulate_grad_batches) * _epochs(trainer)
    if trainer.max_steps >= 0:
        steps = min(steps, trainer.max_steps)
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if math.isinf(steps) and not any(isinstance(callback, Timer) for callback in callbacks):
        raise ValueError(
            "trainer.max_epochs: got -1, and no other limit; the learning rate falls to zero at the end of the run, so it needs "
            "one: max_epochs, max_steps or max_time"
        )
    return max(steps, 1)


def _epochs(trainer: L.Trainer) -> float:
    """Epochs that the run may have."""
    return math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs or 0
