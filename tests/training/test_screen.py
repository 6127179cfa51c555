"""What a user sees of a training: a bar that fits, on 80 columns, with numbers that say something."""

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console
from rich.progress import Progress

from qlip.training.screen import ProgressBar


def trainer(max_epochs: int | None) -> Any:
    return SimpleNamespace(max_epochs=max_epochs, loggers=[], progress_bar_metrics={"l_cls": 0.427, "R": 5.2e-8})


@pytest.mark.parametrize(("max_epochs", "described"), [(4, "Epoch 1/4"), (-1, "Epoch 1"), (None, "Epoch 1")])
def test_epochs_count_from_one(max_epochs: int | None, described: str) -> None:
    bar = ProgressBar()
    bar._trainer = trainer(max_epochs)
    assert bar._get_train_description(0).rstrip() == described


def test_the_bar_fits_in_80_columns() -> None:
    bar, out = ProgressBar(), io.StringIO()
    bar._trainer = trainer(100)
    metrics = bar.get_metrics(bar.trainer, cast(Any, None))
    assert metrics == {"l_cls": 0.427, "R": 5.2e-8}
    texts = " ".join(f"{name}: {value:{bar.theme.metrics_format}}" for name, value in metrics.items())
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    progress = Progress(*bar.configure_columns(bar.trainer), texts, console=console)
    progress.add_task(bar._get_train_description(98), total=1000, completed=999)
    console.print(progress.get_renderable())
    assert len(out.getvalue().splitlines()) == 1
    assert "Epoch 99/100" in out.getvalue()
    assert "R: 5.2e-08" in out.getvalue()
