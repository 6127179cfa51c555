"""What is seen of a training while it runs: the progress bar, and TensorBoard's curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import ProcessingSpeedColumn, RichProgressBarTheme
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.progress import BarColumn


class ProgressBar(RichProgressBar):
    """Lightning's bar with small numbers in full, epochs counted from one, and room for both on 80 columns."""

    def __init__(self) -> None:
        super().__init__(theme=RichProgressBarTheme(metrics_format=".1e"))

    def configure_columns(self, trainer: L.Trainer) -> list[Any]:
        """Lightning's without the speed, for the time left says it, and with a short bar."""
        columns = [each for each in super().configure_columns(trainer) if not isinstance(each, ProcessingSpeedColumn)]
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = 10
        return columns

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The numbers after the bar, without that of the logs' folder."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics  # type: ignore[return-value]

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs
        described = f"Epoch {current_epoch + 1}{f'/{last}' if last is not None and last > 0 else ''}"
        return f"{described:{len(self.validation_description)}}"


class RunLogger(TensorBoardLogger):
    """TensorBoard's curves of a run, without a curve of its epochs.

    Attributes:
        goes_on: Whether the folder has curves already, which are drawn on.

    Args:
        save_dir: Folder of the folder of all runs.
        name: Folder of all runs.
        version: Folder of this run, ``version_N``, which goes on; a new one if not given.
        purge_step: The step at which it goes on: what was drawn from there on, before it was stopped, is forgotten.
    """

    def __init__(
        self,
        save_dir: str | Path = ".",
        name: str = "lightning_logs",
        version: str | None = None,
        purge_step: int | None = None,
    ) -> None:
        super().__init__(save_dir, name, version, default_hp_metric=False, purge_step=purge_step)
        self.goes_on = purge_step is not None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Draw the metrics; Lightning puts the epoch among them, which TensorBoard would show first."""
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)
