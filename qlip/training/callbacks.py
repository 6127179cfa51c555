"""What happens around the training step: projection, previews, and the closing table."""

import math
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image, ImageDraw, ImageOps
from rich.console import Console
from rich.table import Table
from torch import Tensor

from qlip.core.rules import check
from qlip.training.batch import TrainBatch
from qlip.training.data import QlipDataModule, data_module_of
from qlip.training.export import ZooExport
from qlip.training.module import QlipModule
from qlip.training.screen import RunLogger
from qlip.viz import draw_leaves


class ResidualProjection(L.Callback):
    """Put the residual R back to rounding error every few steps, by the smallest change of the readout that does it.

    L_cls then shapes the network between the grid points and cannot trade R away (see docs/definitions.md).

    Args:
        every_n_steps: Number of optimiser steps from one projection to the next; 0 never projects, as in the paper.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = check("every_n_steps", every_n_steps)
        self.projected_at = -1

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        """Project after every ``every_n_steps``-th optimiser step."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._project(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Project during a fit, so that what is measured and saved is projected too."""
        if self.every_n_steps and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._project(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Project the last state, unless it was."""
        if self.every_n_steps and self.projected_at != trainer.global_step:
            self._project(trainer, pl_module)

    def _project(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, QlipModule)
        module.position.project_(module.table)
        self.projected_at = trainer.global_step


class Interruption(L.Callback):
    """Let Ctrl-C stop a fit between two steps, and let a run that goes on count from the step where it was.

    In the middle of a step or of a validation it leaves Lightning's counters in disagreement: the run that goes on then leaves
    the validation out, takes a step twice, or draws its curves a step beside (lightning 2.6). A second Ctrl-C stops at once.
    With several processes it is Lightning's own, for their launcher has to hear of it.
    """

    def __init__(self) -> None:
        self.received = False
        self.before: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen, unless Ctrl-C is ignored, as in the background of a shell; what comes before the first step is stopped at once."""
        self.received = False
        heard = callable(signal.getsignal(signal.SIGINT)) and threading.current_thread() is threading.main_thread()
        if heard and trainer.world_size == 1:
            self.before = signal.signal(signal.SIGINT, self._wait)

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        """Draw each step where it is counted, and stop if that was asked for.

        Raises:
            KeyboardInterrupt: if it was.
        """
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        if self.received:
            raise KeyboardInterrupt

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen no more."""
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self._restore()

    def _wait(self, *_: object) -> None:
        self._restore()
        self.received = True
        print("\nstopping after this step, or this validation; Ctrl-C again stops at once", file=sys.stderr)

    def _restore(self) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
            self.before = None


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
        """Log the pictures; a folder that goes on has them."""
        data = data_module_of(trainer)
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        loggers = [logger for logger in loggers if not (isinstance(logger, RunLogger) and logger.goes_on)]
        if not loggers:
            return
        assert data.val is not None, "QlipModule.setup has built the data"
        for file in data.val.files[: self.images]:
            for alpha in self.alphas:
                processor = data.view.processor(self.size, alpha=alpha, criterion="derivative")
                view, leaves = processor.view_and_leaves(file)
                picture = _captioned(draw_leaves(view, leaves), f"{len(leaves)} of {math.prod(leaves.grid)} tokens")
                for logger in loggers:
                    tag = f"quadtree/{file.stem}/alpha_{alpha:g}"  # the same in every run, so that they can be compared
                    logger.experiment.add_image(tag, np.asarray(picture), dataformats="HWC")


class Summary(L.Callback):
    """Close the fit with a table: before and after, and where everything is; or with the command that goes on.

    Args:
        resume: That command.
    """

    def __init__(self, resume: str = "qlip fit --ckpt_path last") -> None:
        self.resume = resume
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
            for logger in trainer.loggers if trainer.ckpt_path is None else ():  # a run that goes on has drawn them
                logger.log_metrics(metrics, step=0)

    @rank_zero_only
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Say how to go on."""
        kept = trainer.loggers and trainer.checkpoint_callbacks  # type: ignore[attr-defined]
        if trainer.state.fn == "fit" and trainer.global_step and kept:
            print(f"stopped after {trainer.global_step} steps; go on with: {self.resume}", file=sys.stderr)

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
        callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        exports = [callback for callback in callbacks if isinstance(callback, ZooExport) and callback.written]
        for export in exports:
            if export.best_step == 0:
                console.print(
                    f"No validation had a {export.monitor} that was {export.min_gain:.0%} below that of the start: the start was as good, "
                    f"and is what the entry holds",
                    soft_wrap=True,
                )
            folder = Path(export.entry)
            console.print(f"Zoo entry  {folder}    qlip zoo show {folder.name}")
            console.print(f'Use it     qlip.load("{folder}")', markup=False)
        for logger in trainer.loggers:  # Trainer.log_dir would wait for the other ranks
            console.print(f"Logs       {logger.log_dir}    tensorboard --logdir {logger.root_dir}")


def _captioned(picture: Image.Image, text: str) -> Image.Image:
    """A picture with a line of text below."""
    captioned = ImageOps.expand(picture, (0, 0, 0, 22), "white")
    ImageDraw.Draw(captioned).text((4, picture.height + 3), text, fill="black", font_size=14)
    return captioned


def _plain(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
