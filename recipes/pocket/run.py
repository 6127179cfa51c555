"""What all trainings share: the schedule of the learning rate, and a Lightning module that draws its own scenes."""

import math
from dataclasses import dataclass
from random import Random
from typing import Any

import lightning as L
import torch
from torch import Generator, Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from qlip.data.backgrounds import cut_backgrounds, training_pictures
from qlip.data.scenes import Scenes, draw_scenes
from recipes.pocket.models import IMAGE_SIZE


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and over what backgrounds one of the models is trained."""

    cycles: tuple[int, ...]
    """Optimiser steps of each cycle of the learning rate; it starts anew with every cycle (SGDR, arXiv 1608.03983)."""
    batch_size: int
    """Scenes in a step."""
    lr: float
    """Highest learning rate of AdamW."""
    texture: float = 0.5
    """Share of a step's scenes, from 0 to 1, that lie over photographs and textures in place of drawn backgrounds."""

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 <= self.texture <= 1:
            raise ValueError(f"texture: got {self.texture}; takes a share from 0 to 1")

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


def draw_training_scenes(
    count: int,
    texture: float,
    generator: Generator,
    random: Random,
    seed: int,
    size: tuple[int, int] = (IMAGE_SIZE, IMAGE_SIZE),
    objects: tuple[int, int] = (2, 4),
) -> Scenes:
    """Draw scenes of one size, the first of them over photographs and textures, the others over drawn backgrounds.

    Args:
        count: Number of scenes.
        texture: Share of scenes over photographs and textures, from 0 to 1.
        generator: Source of all else that is random.
        random: Chooses and cuts the photographs and textures.
        seed: Seed of the textures.
        size: Height and width in pixels.
        objects: Fewest and most objects in a scene.
    """
    textured = round(texture * count)
    pictures = training_pictures(seed) if textured else ()
    backgrounds = cut_backgrounds(pictures, textured, *size, random)
    return draw_scenes(count, *size, generator, objects=objects, backgrounds=backgrounds)


class PocketRun(L.LightningModule):
    """A training on drawn scenes with AdamW, and a learning rate that warms up and follows a cosine.

    A step draws its scenes from the seed and its own number, so a run that was stopped goes on as if it had not been.
    """

    def __init__(self, schedule: Schedule, seed: int) -> None:
        super().__init__()
        self.schedule, self.seed = schedule, seed

    objects = (2, 4)  # fewest and most in a scene

    def draw(self) -> tuple[Scenes, Generator, Random]:
        """Draw the scenes of this step, and make sources of chance for the rest of it."""
        number = self.seed * 1_000_003 + self.global_step
        generator, random = Generator().manual_seed(number), Random(number)
        count, size = self.choose_size(random)
        behind = Random(f"background {number}")
        scenes = draw_training_scenes(
            count, self.schedule.texture, generator, behind, self.seed, size=size, objects=self.objects
        )
        return scenes, generator, random

    @property
    def naming(self) -> bool:
        """Whether this is the first cycle of the learning rate, in which a tower learns to name what it sees, and nothing else."""
        return self.global_step < self.schedule.cycles[0]

    def choose_size(self, random: Random) -> tuple[int, tuple[int, int]]:
        """Choose how many scenes this step has, and their height and width in pixels."""
        return self.schedule.batch_size, (IMAGE_SIZE, IMAGE_SIZE)

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
