from dataclasses import replace
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from qlip.training.batch import TrainBatch
from qlip.training.callbacks import ResidualProjection
from qlip.training.config import LossConfig, MLPConfig
from qlip.training.data import QlipDataModule
from qlip.training.module import QlipModule
from tests.training.conftest import cut_images

SMALL = MLPConfig(hidden=32, depth=2, fourier=8)


@pytest.fixture(scope="module")
def batch() -> TrainBatch:
    return TrainBatch.collate(cut_images((4, 6), (5, 3), width=16))


class Recorder(L.Trainer):
    """Just enough of a trainer for a step outside a fit."""

    def __init__(self) -> None:
        super().__init__(
            logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu", log_every_n_steps=1
        )


def attached(module: QlipModule, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Let ``module`` log into the dict that is returned."""
    logged: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    trainer = Recorder()
    trainer.datamodule = QlipDataModule(val_sizes=(56,))
    module.trainer = trainer
    return logged


@pytest.mark.parametrize("cls_loss", ["mse", "l2"])
@pytest.mark.parametrize("target", ["image_embeds", "pooler_output"])
def test_the_loss_is_that_of_the_paper(
    cls_loss: str, target: str, clip_folder: str, batch: TrainBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = LossConfig(gamma=3.0, cls_loss=cls_loss, target=target)
    module = QlipModule(clip_folder, mlp=MLPConfig(32, 2, 8, init="random"), loss=loss)
    if target == "pooler_output":
        batch = replace(batch, micro_batches=(replace(batch.micro_batches[0], target=torch.randn(2, 32)),))
    logged = attached(module, monkeypatch)
    total = module.training_step(batch, 0)
    (micro_batch,) = batch.micro_batches
    cls = getattr(module.vision(micro_batch.patches), target)
    slow_cls = (
        (cls - micro_batch.target).pow(2).mean()
        if cls_loss == "mse"
        else (cls - micro_batch.target).pow(2).sum(1).sqrt().mean()
    )
    n = module.position.grid
    table, slow_r = module.table, 0.0
    for i in range(n):
        for j in range(n):
            at = torch.tensor([-1 + 2 * i / (n - 1), -1 + 2 * j / (n - 1)])
            slow_r += (module.position(at) - table[i, j]).abs().mean().item() / n**2
    assert logged["train/l_cls"].item() == pytest.approx(slow_cls.item(), rel=1e-4)
    assert logged["train/residual_l1"].item() == pytest.approx(slow_r, rel=1e-4)
    assert total.item() == pytest.approx(slow_cls.item() + 3 * slow_r, rel=1e-4)


def test_only_the_mlp_has_gradients_and_is_optimised(
    clip_folder: str, batch: TrainBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = QlipModule(clip_folder, mlp=SMALL)
    attached(module, monkeypatch)
    module.train().training_step(batch, 0).backward()
    assert all(p.grad is not None for p in module.position.parameters())
    assert all(p.grad is None for p in module.backbone.parameters())
    assert not any(m.training for m in module.backbone.modules())


def test_the_logged_gradient_norm_is_the_interpolation_bias_of_the_batch(
    clip_folder: str, batch: TrainBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = QlipModule(clip_folder, mlp=SMALL)
    logged = attached(module, monkeypatch)
    module.training_step(batch, 0)
    (micro_batch,) = batch.micro_batches
    positions = module.position(micro_batch.patches.coords).detach().requires_grad_()
    cosine = F.cosine_similarity(
        module.vision(micro_batch.patches, positions=positions).image_embeds, micro_batch.target
    )
    (gradient,) = torch.autograd.grad(cosine.sum(), positions)
    assert logged["train/position_grad_norm"].item() == pytest.approx(
        gradient.flatten(1).norm(dim=1).mean().item(), rel=1e-4
    )
    assert logged["train/tokens_per_image"] == micro_batch.patches.mask.sum().item() / 2
    assert logged["train/padding_waste"] == pytest.approx(1 - micro_batch.patches.mask.float().mean().item())


def test_the_mlp_stays_in_float32_under_autocast(clip_folder: str, batch: TrainBatch) -> None:
    module = QlipModule(clip_folder, mlp=SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        positions = module.position(batch.coords)
        output = module.vision(batch.micro_batches[0].patches)
        module.losses(batch)["loss"].backward()
    assert positions.dtype == torch.float32
    assert torch.equal(positions, module.position(batch.coords))
    assert {p.grad.dtype for p in module.position.parameters()} == {torch.float32}
    assert output.image_embeds.dtype == torch.bfloat16


def test_projection_takes_no_negative_number_of_steps() -> None:
    with pytest.raises(ValueError, match=r"every_n_steps: got -3; takes a whole number from 0 "):
        ResidualProjection(-3)


def test_the_pooled_output_of_a_clip_with_a_projection_is_that_of_its_tower(clip_folder: str) -> None:
    module, pixels = (
        QlipModule(clip_folder, mlp=SMALL, loss=LossConfig(target="pooler_output")),
        torch.randn(2, 3, 56, 56),
    )
    pooled = module.encode_standard(pixels)
    assert pooled.shape == (2, 32)
    assert torch.equal(module.backbone.visual_projection(pooled), module.backbone(pixels).image_embeds)


class OtherData(L.LightningDataModule):
    """Loads something, but knows nothing of targets."""

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader([1, 2])


@pytest.mark.parametrize(
    ("data", "got"),
    [({"train_dataloaders": DataLoader([1, 2])}, "got none"), ({"datamodule": OtherData()}, "got OtherData")],
    ids=["loader", "module"],
)
def test_other_data_is_refused_before_the_first_step(data: dict[str, Any], got: str, clip_folder: str) -> None:
    module = QlipModule(clip_folder, mlp=SMALL)
    with pytest.raises(TypeError, match=f"datamodule: {got}; .* on a QlipDataModule or a subclass"):
        Recorder().fit(module, **data)


def test_a_tower_without_projection_asks_for_the_pooled_output(
    tmp_path_factory: pytest.TempPathFactory, clip_folder: str
) -> None:
    bare = tmp_path_factory.mktemp("bare")
    QlipModule(clip_folder, mlp=SMALL).backbone.vision_model.save_pretrained(bare)
    with pytest.raises(ValueError, match="use pooler_output"):
        QlipModule(str(bare), mlp=SMALL, loss=LossConfig(target="image_embeds"))
    assert QlipModule(str(bare), mlp=SMALL).loss.target == "pooler_output"
    assert QlipModule(clip_folder, mlp=SMALL).loss.target == "image_embeds"
