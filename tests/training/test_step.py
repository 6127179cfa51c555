"""What a training step computes, keeps and waits for: counted, so that nothing here depends on a clock."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qlip.cli import main
from qlip.training.batch import TrainBatch
from qlip.training.config import LossConfig, MLPConfig
from qlip.training.loss import cls_loss
from qlip.training.micro_batches import sum_of_micro_batches
from qlip.training.module import QlipModule
from tests.training.conftest import cut_images
from tests.training.counters import HostReads, KeptActivations, gradient_leaves
from tests.training.test_module import attached

SMALL = MLPConfig(hidden=32, depth=2, fourier=8)
GRIDS = [(4, 6), (4, 6), (5, 3), (6, 6)]


def batch_of(tokens_at_once: int | None = None) -> TrainBatch:
    return TrainBatch.collate(cut_images(*GRIDS, width=16), tokens_at_once)


@pytest.fixture
def module(clip_folder: str) -> QlipModule:
    return QlipModule(clip_folder, mlp=SMALL).train()


def gradients(module: QlipModule, batch: TrainBatch) -> list[Tensor]:
    module.zero_grad()
    module.losses(batch)["loss"].backward()
    return [p.grad.clone() for p in module.position.parameters()]


def largest_difference(first: list[Tensor], second: list[Tensor]) -> float:
    scale = max(a.abs().max().item() for a in first)
    return max((a - b).abs().max().item() for a, b in zip(first, second, strict=True)) / scale


@pytest.mark.parametrize("tokens_at_once", [1, 75])
@pytest.mark.parametrize("cls_loss", ["mse", "l2"])
def test_a_split_batch_has_the_gradient_of_the_whole(clip_folder: str, tokens_at_once: int, cls_loss: Any) -> None:
    module = QlipModule(clip_folder, mlp=SMALL, loss=LossConfig(cls_loss=cls_loss))
    whole, split = batch_of(), batch_of(tokens_at_once)
    assert [len(micro_batch) for micro_batch in split.micro_batches] == {1: [1, 1, 1, 1], 75: [3, 1]}[tokens_at_once]
    assert len(whole.micro_batches) == 1
    assert module.losses(whole)["loss"].item() == pytest.approx(module.losses(split)["loss"].item(), rel=1e-6)
    assert largest_difference(gradients(module, whole), gradients(module, split)) < 1e-6


def test_the_gradient_is_that_of_the_loss_written_down_plainly(clip_folder: str) -> None:
    module = QlipModule(clip_folder, mlp=MLPConfig(32, 2, 8, init="random"))  # solved, R is rounding and so is its sign
    batch = batch_of(60)
    items = [(micro_batch, i) for micro_batch in batch.micro_batches for i in range(len(micro_batch))]
    squares = [
        (module.vision(micro_batch.patches).image_embeds[i] - micro_batch.target[i]).square().mean()
        for micro_batch, i in items
    ]
    module.zero_grad()
    (torch.stack(squares).mean() + module.position.residual(module.table)[0]).backward()
    expected = [p.grad.clone() for p in module.position.parameters()]
    assert largest_difference(expected, gradients(module, batch)) < 1e-5


def test_a_split_batch_keeps_the_activations_of_one_micro_batch(module: QlipModule) -> None:
    whole, split = batch_of(), batch_of(1)
    most = [KeptActivations(module).during(lambda b=b: gradients(module, b)).most for b in (whole, split)]
    alone = [
        KeptActivations(module).during(
            lambda p=p: module.vision(p.patches, positions=torch.zeros(*p.coord_index.shape, 32).requires_grad_())
        )
        for p in split.micro_batches
    ]
    assert most[1] < 0.5 * most[0]
    assert most[1] < 1.5 * max(kept.most for kept in alone)


def test_recomputed_activations_give_the_same_gradient_from_less_memory(clip_folder: str, module: QlipModule) -> None:
    saving, batch = QlipModule(clip_folder, mlp=SMALL, recompute_activations=True).train(), batch_of()
    assert largest_difference(gradients(module, batch), gradients(saving, batch)) < 1e-6
    assert "recompute_activations" not in saving.hparams
    (micro_batch,) = batch.micro_batches
    positions = torch.zeros(*micro_batch.coord_index.shape, 32).requires_grad_()
    kept = [
        KeptActivations(m).during(lambda m=m: m.vision(micro_batch.patches, positions=positions))
        for m in (module, saving)
    ]
    assert kept[1].most < 0.3 * kept[0].most


def test_the_network_sees_each_coordinate_once_and_the_grid_once(module: QlipModule) -> None:
    for tokens_at_once in (None, 1):
        batch, lengths = batch_of(tokens_at_once), []
        handle = module.position.register_forward_pre_hook(lambda _, args: lengths.append(len(args[0])))  # noqa: B023
        gradients(module, batch)
        handle.remove()
        different = {tuple(c) for p in batch.micro_batches for c in p.patches.coords[p.patches.mask].tolist()}
        assert lengths == [len(different) + module.position.grid**2]
        assert len(different) < batch.tokens


def test_only_the_network_is_behind_the_loss_and_only_positions_behind_an_activation(module: QlipModule) -> None:
    trained = {id(p) for p in module.position.parameters()}
    assert {id(p) for p in module.parameters() if p.requires_grad} == trained
    batch, outputs, embedded = batch_of(), [], []
    module.vision.register_forward_hook(lambda _, args, output: outputs.append(gradient_leaves(output.image_embeds)))
    module.vision.vision_model.pre_layrnorm.register_forward_pre_hook(lambda _, args: embedded.append(args[0].grad_fn))
    kept = KeptActivations(module)
    kept.during(lambda: outputs.append(gradient_leaves(module.losses(batch)["loss"])))
    through_the_clip, whole = outputs
    assert [tuple(leaf.shape) for leaf in through_the_clip] == [(len(batch.coords), module.position.dim)]
    assert {id(leaf) for leaf in whole} == trained
    patches = batch.micro_batches[0].patches.patches
    assert patches.shape[-3:].numel() not in {
        shape[-1] for shape in kept.tensors if shape
    }  # the patch embedding's input


def test_a_step_makes_a_gpu_wait_for_nothing_but_the_encoder(
    module: QlipModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached(module, monkeypatch).clear()
    module.trainer.log_every_n_steps = 50
    (optimizer,) = [torch.optim.Adam(module.position.parameters(), lr=1e-3, fused=True)]
    batch = batch_of()
    (micro_batch,) = batch.micro_batches
    with HostReads() as encoder:
        module.vision(micro_batch.patches, positions=torch.zeros(*micro_batch.coord_index.shape, 32))
    with HostReads() as step:
        module.training_step(batch, 0).backward()
        optimizer.step()
    assert step.names == encoder.names
    assert len(encoder.names) <= 8  # which images are how long, whatever their number


def test_steps_between_those_that_are_logged_log_nothing(module: QlipModule, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = attached(module, monkeypatch)
    module.trainer.log_every_n_steps = 2
    module.training_step(batch_of(), 0)
    assert not logged
    module.trainer.log_every_n_steps = 1
    module.training_step(batch_of(60), 0)
    assert "train/position_grad_norm" in logged


def test_bfloat16_changes_the_clip_and_not_how_gradients_are_taken(module: QlipModule) -> None:
    exact, batch = gradients(module, batch_of()), batch_of(60)
    micro_batch = batch.micro_batches[-1]
    with torch.autocast("cpu", torch.bfloat16):
        module.zero_grad()
        loss = module.losses(batch)["loss"]
    loss.backward()
    rough = [p.grad.clone() for p in module.position.parameters()]
    assert 0 < largest_difference(exact, rough) < 0.05
    positions = module.position(batch.coords).detach()

    def plain(positions: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            cls = module.encode_at(micro_batch.patches, F.embedding(micro_batch.coord_index, positions))
            return cls_loss(cls, micro_batch.target, module.loss.cls_loss)

    first, second = positions.clone().requires_grad_(), positions.clone().requires_grad_()
    plain(first).backward()
    with torch.autocast("cpu", torch.bfloat16):
        total = sum_of_micro_batches(lambda x: [plain(x)], second)
    total.backward()
    assert torch.equal(first.grad, second.grad)


def test_adam_is_fused_and_goes_on_from_a_run_in_which_it_was_not(
    module: QlipModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached(module, monkeypatch)
    monkeypatch.setattr("qlip.training.schedule.total_steps", lambda trainer: 10)
    batch = batch_of()
    old = torch.optim.Adam(module.position.parameters(), lr=module.lr)
    gradients(module, batch)
    old.step()
    optimizer = module.configure_optimizers()["optimizer"]
    assert optimizer.param_groups[0]["fused"]
    optimizer.load_state_dict(old.state_dict())
    assert optimizer.state_dict()["state"][0]["step"] == 1
    optimizer.step()
    assert optimizer.state_dict()["state"][0]["step"] == 2


def test_a_run_computes_each_target_once_and_a_second_run_none(
    fit_args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, encode = [], QlipModule.encode_standard

    def count(self: QlipModule, pixels: Tensor) -> Tensor:
        encoded.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(QlipModule, "encode_standard", count)
    main(["fit", *fit_args])
    assert sum(encoded) == 13
    main(["fit", *fit_args, "--export.name=again"])
    assert sum(encoded) == 13
