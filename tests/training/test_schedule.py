import math

import lightning as L
import pytest

from qlip.training.data import QlipDataModule
from qlip.training.schedule import total_steps, warmup_cosine


def test_warm_up_and_cosine() -> None:
    factors = [warmup_cosine(step, 10, 110) for step in range(111)]
    assert factors[0] < factors[5] < factors[9] < factors[10] == 1
    assert factors[60] == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    assert factors[110] == pytest.approx(0)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 3}, 21),
        ({"max_epochs": 3, "max_steps": 20}, 20),
        ({"max_epochs": 3, "limit_train_batches": 5}, 15),
        ({"max_epochs": 3, "limit_train_batches": 0.5}, 9),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 12),  # the last batch of an epoch makes a step of its own
    ],
    ids=str,
)
def test_a_run_has_as_many_steps_as_its_trainer_takes(
    options: dict[str, int | float], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", **options)
    trainer.datamodule = QlipDataModule("samples")
    monkeypatch.setattr(QlipDataModule, "train_sampler", lambda self: range(7))
    assert total_steps(trainer) == steps
