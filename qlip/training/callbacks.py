"""What happens around the training step: projection, previews, export, and the closing table."""

import math
import time
from collections.abc import Mapping
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import Tensor

from qlip.core.quadtree import Quadtree
from qlip.images.read import read_image
from qlip.training.batch import TrainBatch
from qlip.training.data import QlipDataModule, data_module_of
from qlip.training.module import QlipModule
from qlip.viz import draw_leaves
from qlip.zoo.config import ZooConfig
from qlip.zoo.store import check_target, save


class ResidualProjection(L.Callback):
    """Put the residual R back to rounding error every few steps, by the smallest change of the readout that does it.

    L_cls then shapes the network between the grid points and cannot trade R away (see docs/definitions.md).

    Args:
        every_n_steps: Number of optimiser steps from one projection to the next.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps: got {every_n_steps}; takes a positive number")
        self.every_n_steps = every_n_steps

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """Project after every ``every_n_steps``-th optimiser step."""
        assert isinstance(pl_module, QlipModule)
        if trainer.global_step % self.every_n_steps == 0:
            pl_module.position.project_(pl_module.table)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Project during a fit, so that what is measured and saved is projected too."""
        assert isinstance(pl_module, QlipModule)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            pl_module.position.project_(pl_module.table)


class QuadtreePreview(L.Callback):
    """Draw the leaves of some validation photographs as TensorBoard images, once at the start.

    Args:
        images: Number of photographs.
        size: Shortest edge of the pictures in pixels.
        alphas: Split thresholds of the derivative criterion; each photograph is drawn once for each.
    """

    def __init__(self, images: int = 2, size: int = 448, alphas: tuple[float, ...] = (0.1, 0.5, 1.0)) -> None:
        self.images, self.size, self.alphas = images, size, alphas

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the pictures."""
        data = data_module_of(trainer)
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        assert data.val is not None, "QlipModule.setup has built the data"
        for file in data.val.files[: self.images]:
            for alpha in self.alphas:
                processor = data.view.processor(self.size, alpha=alpha, criterion="derivative")
                view = processor.view(read_image(file))
                (leaves,) = processor.quadtree.batch(processor.prepare(view)[None])
                tag = f"quadtree/{file.stem}/alpha_{alpha:g}_tokens_{len(leaves)}_of_{leaves.grid[0] * leaves.grid[1]}"
                for logger in loggers:
                    logger.experiment.add_image(tag, np.asarray(draw_leaves(view, leaves)), dataformats="HWC")


class ZooExport(L.Callback):
    """Write the trained MLP as zoo entries: ``NAME`` whenever a validation is the best so far, ``NAME-last`` at the end.

    Args:
        name: Name of the entry; ``qlip-<backbone>`` if not given.
        root: Folder that holds the entries.
        monitor: The metric whose smallest value is best.
    """

    def __init__(self, name: str | None = None, root: str = "checkpoints", monitor: str = "val/loss") -> None:
        self.name, self.root, self.monitor = name, Path(root), monitor
        self.best = math.inf

    def state_dict(self) -> dict[str, float]:
        """Remember the best value, so that a resumed run does not replace a better entry."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on from the best value of the run so far."""
        self.best = state_dict["best"]

    def folder(self, module: QlipModule) -> Path:
        """The folder of the best entry."""
        backbone = str(module.hparams["backbone"]).rstrip("/").split("/")[-1]
        return self.root / (self.name or f"qlip-{backbone.replace(':', '-')}")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find out before the training whether the entries can be written."""
        assert isinstance(pl_module, QlipModule)
        if stage == "fit":
            folder = self.folder(pl_module)
            check_target(folder)
            check_target(folder.with_name(f"{folder.name}-last"))

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Export if this is the best so far."""
        assert isinstance(pl_module, QlipModule)
        value = float(trainer.callback_metrics.get(self.monitor, math.inf))
        if trainer.state.fn == "fit" and not trainer.sanity_checking and value < self.best:
            self.best = value
            self._export(self.folder(pl_module), trainer, pl_module)

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Export the last state."""
        assert isinstance(pl_module, QlipModule)
        folder = self.folder(pl_module)
        self._export(folder.with_name(f"{folder.name}-last"), trainer, pl_module)

    def _export(self, folder: Path, trainer: L.Trainer, module: QlipModule) -> None:
        save(module.position, folder, self._config(trainer, module))

    def _config(self, trainer: L.Trainer, module: QlipModule) -> ZooConfig:
        data = data_module_of(trainer)
        names = {"val/residual_l1": "R", "val/residual_l2": "R2"}
        measured = {k: v for k, v in _plain(trainer.callback_metrics).items() if k.startswith("val/")}
        return ZooConfig.of(
            module.position,
            backbone=module.hparams["backbone"],
            backbone_revision=module.hparams["revision"],
            patch_size=data.view.patch_size,
            metrics={names.get(k, k.removeprefix("val/")): v for k, v in measured.items()},
            quadtree=Quadtree(data.merge[1], "random", patch_size=data.view.patch_size, cover="roots"),
            training={
                **{k: v for k, v in module.hparams.items() if k not in ("backbone", "revision")},
                "data": data.root, "max_size": data.max_size, "merge": list(data.merge),
                "batch_size": data.batch_size, "steps": trainer.global_step, "seed": data.seed,
            },
        )  # fmt: skip


class Summary(L.Callback):
    """Close the fit with a table: before and after, and where everything is."""

    def __init__(self) -> None:
        self.before: dict[str, float] = {}
        self.started = self.seconds = 0.0
        self.tokens: list[float] = []

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock and measure R."""
        assert isinstance(pl_module, QlipModule)
        self.started = time.perf_counter()
        with torch.no_grad():
            l1, _ = pl_module.position.residual(pl_module.table)
        self.before = {"residual_l1": l1.item(), "offgrid": pl_module.position.offgrid(pl_module.table)}

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: TrainBatch, batch_idx: int
    ) -> None:
        """Count tokens."""
        self.tokens.append(batch.tokens / len(batch))

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the metrics of the validation that runs before the first step, which Lightning does not log."""
        if trainer.sanity_checking:
            metrics = {k: v for k, v in _plain(trainer.callback_metrics).items() if k.startswith("val/")}
            self.before |= {k.removeprefix("val/"): v for k, v in metrics.items()}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=0)

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self.seconds = time.perf_counter() - self.started

    @rank_zero_only
    def report(self, trainer: L.Trainer, module: QlipModule, data: QlipDataModule) -> None:
        """Print the table; called after the fit, when the progress bar no longer redraws the last lines."""
        after = {k.removeprefix("val/"): v for k, v in _plain(trainer.callback_metrics).items() if k.startswith("val/")}
        table = Table("", "before", "after", title="Coordinate MLP")
        names = {"R": "residual_l1", "off-grid error": "offgrid", "L_cls": "l_cls"}
        names |= {f"cos [CLS] at {k.removeprefix('cos_cls_')}": k for k in after if k.startswith("cos_cls_")}
        for label, name in names.items():
            style = "{:.2e}" if name in ("residual_l1", "l_cls") else "{:.4f}"
            table.add_row(label, *(style.format(x[name]) if name in x else "-" for x in (self.before, after)))
        table.add_section()
        table.add_row("tokens per image", "", f"{sum(self.tokens) / max(len(self.tokens), 1):.0f}")
        table.add_row("steps", "", str(trainer.global_step))
        table.add_row("seconds", "", f"{self.seconds:.0f}")
        if data.unreadable:
            table.add_row("unreadable images", "", str(len(data.unreadable)))
        console = Console()
        console.print(table)
        exports = [c.folder(module) for c in trainer.callbacks if isinstance(c, ZooExport)]  # type: ignore[attr-defined]
        for folder in exports:
            console.print(f"Zoo entry  {folder}    qlip zoo show {folder.name}")
            console.print(f'Use it     qlip.load("{folder}")', markup=False)
        for logger in trainer.loggers:  # Trainer.log_dir would wait for the other ranks
            console.print(f"Logs       {logger.log_dir}    tensorboard --logdir {logger.root_dir}")


def _plain(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
