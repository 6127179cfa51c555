"""How many optimiser steps a run has, and the learning rate at each of them."""

import math

import lightning as L

from qlip.training.data import data_module_of


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to zero at ``total`` steps."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def total_steps(trainer: L.Trainer) -> int:
    """Optimiser steps of the whole run.

    Trainer.estimated_stepping_batches would start the data loader here, before a resumed run knows its place.
    """
    batches = len(data_module_of(trainer).train_sampler())
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = -(-batches // trainer.accumulate_grad_batches) * (trainer.max_epochs or 1)
    return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps
