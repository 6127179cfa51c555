"""Does training the coordinate MLP buy anything? One factor at a time round a base, on the pocket pair.

python benchmarks/training_study.py      writes docs/training-study.md's table and three figures; about an hour on one core, can be stopped

Each variant is fitted to pocket-clip and measured on scenes that it was not trained on: R, off-grid error, interpolation bias, cos [CLS] at
four sizes, and the answers of pocket-llava. What is measured is kept in results/training-study/.
"""

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

import _study_page
import lightning as L
import torch
from _reader import Reader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from qlip.core.bias import position_gradient_norms
from qlip.core.names import Weighting
from qlip.core.patches import PatchBatch
from qlip.core.position import Position, TablePosition
from qlip.data.backgrounds import TEST
from qlip.data.pictures import small_objects
from qlip.evaluation.cell import Vision
from qlip.files import write_json
from qlip.training.batch import Item, TrainBatch
from qlip.training.callbacks import ResidualProjection
from qlip.training.config import LossConfig, MLPConfig
from qlip.training.data import QlipDataModule, TrainingPhotos
from qlip.training.module import QlipModule
from qlip.training.sampler import SeededIndex
from qlip.zoo.position_file import read_position, write_position

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results/training-study"
BATCH = 2
SIZES = (112, 168, 224, 336)  # at which [CLS] is compared with that of 112 px
TABLES: dict[str, Callable[[Tensor], Position]] = {
    "bicubic": TablePosition,
    "zero": lambda table: TablePosition(table, "zero"),
}
SCENES = 32  # half of them over photographs
VIEWS = {"whole grid, 224 px": Vision(size=224, criterion="uniform"), "100 tokens": Vision(size=None, max_tokens=100)}
BENCHMARKS, QUESTIONS = ("vstar-pocket", "vstar-photo"), 100

Shown = Literal["fixed", "uniform", "log-uniform", "native"]
EDGES: dict[Shown, Callable[[Random], float]] = {  # shortest edge in pixels of a training photograph
    "fixed": lambda random: 168,
    "uniform": lambda random: random.uniform(112, 336),
    "log-uniform": lambda random: 112 * 3 ** random.random(),
    "native": lambda random: 4096,
}


@dataclass(frozen=True)
class Variant:
    """One way to make a position; the base if nothing is given. See `qlip.training` for what the fields mean."""

    factor: str
    init: Literal["solved", "random"] = "solved"
    sigma: float | None = None
    project: int = 10
    """Steps from one projection to the next; 0 for never."""
    steps: int = 100
    lr: float = 7.5e-5
    gamma: float = 1.0
    shown: Shown = "fixed"
    merge: tuple[float, float] = (0.1, 0.1)
    weighting: Weighting = "once"
    patches: float = 0.0


def variants() -> dict[str, Variant]:
    """All variants by name."""
    base, free = Variant("the base"), Variant("never projected", project=0)
    paper = Variant("random start, never projected (the paper)", init="random", project=0)
    return {
        "bicubic": Variant("the table, bicubic", steps=0),
        "solved": Variant("solved, not trained", steps=0),
        "zero": Variant("no position", steps=0),
        "base": base,
        "project-0": free,
        "project-1": replace(base, factor="projected every step", project=1),
        "project-50": replace(base, factor="projected every 50 steps", project=50),
        "random": replace(base, factor="random start", init="random"),
        "paper": paper,
        "patches-1": replace(base, factor="patches 1", patches=1.0),
        "patches-100": replace(base, factor="patches 100", patches=100.0),
        "patches-1-lr-1e-3": replace(base, factor="patches 1, lr 1e-3", patches=1.0, lr=1e-3),
        "lr-1e-5": replace(base, factor="lr 1e-5", lr=1e-5),
        "lr-1e-3": replace(base, factor="lr 1e-3", lr=1e-3),
        "lr-1e-2": replace(base, factor="lr 1e-2", lr=1e-2),
        "uniform": replace(base, factor="sizes uniform", shown="uniform"),
        "log-uniform": replace(base, factor="sizes log-uniform", shown="log-uniform"),
        "merge-0": replace(base, factor="merging 0", merge=(0.0, 0.0)),
        "merge-0.5": replace(base, factor="merging 0.5", merge=(0.5, 0.5)),
        "area": replace(base, factor="weighting area", weighting="area"),
        "area-merge-0.5": replace(base, factor="weighting area, merging 0.5", weighting="area", merge=(0.5, 0.5)),
        "gamma-0.1": replace(base, factor="gamma 0.1", gamma=0.1),
        "gamma-1000": replace(base, factor="gamma 1000", gamma=1000.0),
        "free-gamma-0.1": replace(free, factor="never projected, gamma 0.1", gamma=0.1),
        "free-gamma-10": replace(free, factor="never projected, gamma 10", gamma=10.0),
        "free-gamma-100": replace(free, factor="never projected, gamma 100", gamma=100.0),
        "free-gamma-1000": replace(free, factor="never projected, gamma 1000", gamma=1000.0),
        "steps-300": replace(base, factor="300 steps", steps=300),
        "steps-1000": replace(base, factor="1,000 steps", steps=1000),
        "steps-3000": replace(base, factor="3,000 steps", steps=3000),
        "paper-300": replace(paper, factor="the paper, 300 steps", steps=300),
        "paper-1000": replace(paper, factor="the paper, 1,000 steps", steps=1000),
        "paper-3000": replace(paper, factor="the paper, 3,000 steps", steps=3000),
        "native": replace(base, factor="sizes native", shown="native"),
        "sigma-1": Variant("solved, sigma 1", steps=0, sigma=1.0),
        "sigma-2": Variant("solved, sigma 2", steps=0, sigma=2.0),
    }


class Sized(Dataset[Item]):
    """Training photographs at a size that is drawn anew each time."""

    def __init__(self, photos: TrainingPhotos, edge: Callable[[Random], float]) -> None:
        self.photos, self.edge = photos, edge

    def __getitem__(self, seeded: SeededIndex) -> Item:
        self.photos.max_size = round(self.edge(Random(seeded.seed)) / 14) * 14
        return self.photos[seeded]


class SizedData(QlipDataModule):
    """The pictures of the quickstart at sizes of a variant."""

    def __init__(self, variant: Variant) -> None:
        super().__init__("pocket", BATCH, 280, variant.merge, val_sizes=(112,), workers=0)
        self.edge = EDGES[variant.shown]

    def train_dataloader(self) -> DataLoader[Item]:
        """Batches as ever, of photographs at other sizes."""
        photos = super().train_dataloader().dataset
        assert isinstance(photos, TrainingPhotos)
        batches = self.train_sampler()
        return DataLoader(Sized(photos, self.edge), batch_sampler=batches, collate_fn=TrainBatch.collate)


class Curve(L.Callback):
    """Writes down R and the off-grid error from time to time."""

    def __init__(self, every: int) -> None:
        self.every, self.points = every, list[tuple[int, float, float]]()

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """A point of both curves."""
        assert isinstance(pl_module, QlipModule)
        if trainer.global_step % self.every == 0:
            position, table = pl_module.position, pl_module.table
            self.points.append((trainer.global_step, position.residual(table)[0].item(), position.offgrid(table)))


def fitted(variant: Variant, clip: str) -> tuple[QlipModule, dict[str, Any]]:
    """A module whose position was made as the variant says, its curve, and the seconds that a step took."""
    L.seed_everything(0, verbose=False)
    loss = LossConfig(gamma=variant.gamma, patches=variant.patches)
    module = QlipModule(clip, mlp=MLPConfig(init=variant.init, sigma=variant.sigma), loss=loss, lr=variant.lr)
    module.vision.weighting = variant.weighting
    curve, start = Curve(max(variant.steps // 60, 1)), time.process_time()
    projection = [ResidualProjection(variant.project)] if variant.project else []
    if variant.steps:
        trainer = L.Trainer(
            accelerator="cpu", max_steps=variant.steps, max_epochs=-1, callbacks=[*projection, curve],
            log_every_n_steps=10**6, use_distributed_sampler=False, limit_val_batches=0, num_sanity_val_steps=0,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=SizedData(variant))
    module.vision.weighting = "once"
    seconds = (time.process_time() - start) / max(variant.steps, 1)
    return module.eval(), {"curve": curve.points, "seconds_per_step": seconds}


class Scenes:
    """Scenes that nothing was trained on, as squares of every size, with what the tower says of them at its own.

    Args:
        module: Any module over the tower.
    """

    def __init__(self, module: QlipModule) -> None:
        half = SCENES // 2
        drawn = [*small_objects(half, 41_000), *small_objects(half, 42_000, TEST)]
        pictures = [picture for picture, _ in drawn]
        own = module.view.processor(module.standard_size, "square")
        self.target = module.encode_standard(torch.stack([own.prepare(picture) for picture in pictures]))
        self.batches = {
            size: PatchBatch.collate(map(module.view.processor(size, "square"), pictures)) for size in SIZES
        }

    def measure(self, module: QlipModule, position: Position) -> dict[str, Any]:
        """Mean cos [CLS] and interpolation bias by size."""
        cosines, biases = {}, {}
        for size, batch in self.batches.items():
            with torch.no_grad():
                added = position(batch.coords).clone()
            cls = module.encode_at(batch, added.requires_grad_())
            biases[size] = position_gradient_norms(cls, self.target, added).mean().item()
            cosines[size] = torch.cosine_similarity(cls, self.target).mean().item()
        return {"cos": cosines, "bias": biases}


def measure(name: str, clip: str, out: Path, scenes: Scenes | None) -> Scenes:
    """Fit one variant, and write its position and what does not need a reader; returns the scenes, made at the first call."""
    module, made = fitted(variants()[name], clip)
    module.position.requires_grad_(False)
    scenes = scenes or Scenes(module)
    position: Position = TABLES[name](module.table) if name in TABLES else module.position
    if name not in TABLES:
        made |= {
            "R": module.position.residual(module.table)[0].item(),
            "offgrid": module.position.offgrid(module.table),
        }
    made |= scenes.measure(module, position)
    write_position(out / f"{name}.safetensors", position)
    write_json(out / f"{name}.json", {"variant": asdict(variants()[name]), **made})
    print(f"{name}: fitted, {made['seconds_per_step']:.3f} s a step", flush=True)
    return scenes


def ask(name: str, reader: Reader, out: Path) -> None:
    """Ask through one variant's position, and write the answers."""
    start = time.process_time()
    right = reader.ask(read_position(out / f"{name}.safetensors"))
    place = [question.group == "relative_position" for question in reader.asked[0].questions]
    tokens = {f"{asked.benchmark}, {asked.view}": asked.tokens for asked in reader.asked}
    write_json(out / f"{name}.answers.json", {"answers": right, "place": place, "tokens": tokens})
    print(f"{name}: asked, {time.process_time() - start:.0f} s", flush=True)


def main() -> None:
    """Measure what has not been measured yet, and write."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--clip", default="pocket-clip")
    parser.add_argument("--llava", default="pocket-llava")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    out, scenes = options.out, None
    for name in variants():
        if not (out / f"{name}.json").is_file():
            scenes = measure(name, options.clip, out, scenes)
    unasked = [name for name in variants() if not (out / f"{name}.answers.json").is_file()]
    reader = Reader(options.llava, BENCHMARKS, VIEWS, QUESTIONS) if unasked else None
    for name in unasked:
        assert reader is not None
        ask(name, reader, out)
    found = {}
    for name in variants():
        files = [out / f"{name}.json", out / f"{name}.answers.json"]
        found[name] = {key: value for file in files for key, value in json.loads(file.read_text()).items()}
    _study_page.write(found)


if __name__ == "__main__":
    main()
