"""What both trainings share: the schedule of the learning rate, and a Lightning module that draws its own scenes."""

import math
from dataclasses import dataclass
from random import Random
from typing import Any

import lightning as L
import torch
from torch import Generator, Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from qlip.data.scenes import Scenes, draw_scenes
from recipes.pocket.models import IMAGE_SIZE


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one of the two models is trained."""

    cycles: tuple[int, ...]
    """Optimiser steps of each cycle of the learning rate; it starts anew with every cycle (SGDR, arXiv 1608.03983)."""
    batch_size: int
    """Scenes in a step."""
    lr: float
    """Highest learning rate of AdamW."""

    @property
    def steps(self) -> int:
        """Number of optimiser steps in all cycles."""
        return sum(self.cycles)

    def rate(self, step: int) -> float:
        """Give the learning rate of a step as a share of the highest.

        Each cycle rises for a twentieth of its steps and then falls along a cosine to a twentieth of the highest rate.
        """
        for length in self.cycles:
            if step < length:
                break
            step -= length
        warmup = round(0.05 * length)
        if step < warmup:
            return step / warmup
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (length - warmup)))


class PocketRun(L.LightningModule):
    """A training on drawn scenes with AdamW, and a learning rate that warms up and follows a cosine.

    A step draws its scenes from the seed and its own number, so a run that was stopped goes on as if it had not been.
    """

    def __init__(self, schedule: Schedule, seed: int) -> None:
        super().__init__()
        self.schedule, self.seed = schedule, seed

    def draw(self) -> tuple[Scenes, Generator, Random]:
        """Draw the scenes of this step, and make sources of chance for the rest of it."""
        generator = Generator().manual_seed(self.seed * 1_000_003 + self.global_step)
        scenes = draw_scenes(self.schedule.batch_size, IMAGE_SIZE, IMAGE_SIZE, generator)
        return scenes, generator, Random(self.seed * 1_000_003 + self.global_step)

    def train_dataloader(self) -> DataLoader[Any]:
        """Count the steps; `training_step` draws what it needs."""
        return DataLoader(range(self.schedule.steps), batch_size=None)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        """Make AdamW, with weight decay for matrices that are no embeddings."""
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        decayed = [p for name, p in trained if p.ndim >= 2 and "embedding" not in name and "embed_tokens" not in name]
        kept = [p for name, p in trained if not any(p is other for other in decayed)]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": kept, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.schedule.lr, betas=(0.9, 0.98))
        scheduler = LambdaLR(optimizer, self.schedule.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def log_all(self, values: dict[str, Tensor]) -> None:
        """Send values to the progress bar and the logger."""
        self.log_dict({name: value.detach() for name, value in values.items()}, prog_bar=True)
