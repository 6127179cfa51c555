import math
from itertools import pairwise
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Timer

from qlip.training.data import QlipDataModule
from qlip.training.schedule import learning_rate_factor, total_steps, warmup_cosine


def test_warm_up_and_cosine() -> None:
    factors = [warmup_cosine(step / 110, 10 / 110, 1 / 110) for step in range(111)]
    assert factors[0] < factors[5] < factors[9] < factors[10] == 1
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[60] == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    assert factors[110] == pytest.approx(0)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 3}, 21),
        ({"max_epochs": 3, "max_steps": 20}, 20),
        ({"max_epochs": 3, "limit_train_batches": 5}, 15),
        ({"max_epochs": 3, "limit_train_batches": 0.5}, 9),
        ({"max_epochs": -1, "max_steps": 20}, 20),
        ({"max_steps": 20}, 20),
        ({"max_epochs": -1, "max_time": "00:00:01:00"}, math.inf),
        ({"max_epochs": 3, "max_time": "00:00:01:00"}, 21),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 12),  # the last batch of an epoch makes a step of its own
    ],
    ids=str,
)
def test_a_run_has_as_many_steps_as_its_trainer_takes(
    options: dict[str, Any], steps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", **options)
    trainer.datamodule = QlipDataModule("samples")
    monkeypatch.setattr(QlipDataModule, "train_sampler", lambda self: range(7))
    assert total_steps(trainer) == steps


def test_a_run_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_epochs=-1)
    trainer.datamodule = QlipDataModule("samples")
    monkeypatch.setattr(QlipDataModule, "train_sampler", lambda self: range(7))
    with pytest.raises(ValueError, match="max_epochs: got -1, and no other limit"):
        total_steps(trainer)


class Line(L.LightningModule):
    """One weight, trained for some steps; keeps each step's learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.rates: list[float] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return self.weight.sum()

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(self.trainer, 0.1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 4}, 40),
        ({"max_epochs": -1, "max_steps": 20}, 20),
        ({"max_epochs": 4, "max_steps": 20}, 20),
        ({"max_epochs": 2, "max_steps": 30}, 20),
        ({"max_epochs": -1, "max_time": "00:00:00:30"}, 30),
        ({"max_epochs": 4, "max_time": "00:00:00:30"}, 30),
        ({"max_epochs": 2, "max_time": "00:00:00:30"}, 20),
        ({"max_epochs": 4, "max_steps": 35, "max_time": "00:00:00:30"}, 30),
        ({"max_epochs": -1, "max_steps": 20, "max_time": "00:00:00:30"}, 20),
    ],
    ids=str,
)
def test_the_curve_of_any_limits_rises_and_falls_to_zero_at_the_end(
    options: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Line()
    monkeypatch.setattr(Timer, "time_elapsed", lambda self, stage="train": float(len(module.rates)))  # a step a second
    monkeypatch.setattr("qlip.training.schedule.data_module_of", lambda trainer: trainer.datamodule)
    data = L.LightningDataModule.from_datasets(torch.utils.data.TensorDataset(torch.zeros(10, 1)))
    data.train_sampler = lambda: range(10)
    quiet = {name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")}
    trainer = L.Trainer(accelerator="cpu", **quiet, **options)
    trainer.fit(module, datamodule=data)
    rates = module.rates
    assert len(rates) == steps
    top = max(range(steps), key=rates.__getitem__)
    assert steps * 0.1 - 1 <= top <= steps * 0.1 + 1
    assert rates[top] > 0.99
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a > b for a, b in pairwise(rates[top:]))
    assert 0 < rates[0] < 0.5
    assert rates[-1] < 0.02
    middle = rates[round(steps * 0.55)]
    assert middle == pytest.approx(0.5, abs=0.06)
