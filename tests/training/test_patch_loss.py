"""The objective that asks patches, not [CLS], to stay what they are in the standard view."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from qlip.cli import main
from qlip.core.patches import PatchBatch
from qlip.training.batch import Item, TrainBatch
from qlip.training.config import LossConfig, MLPConfig
from qlip.training.data import QlipDataModule, View
from qlip.training.loss import patch_loss
from qlip.training.module import QlipModule
from tests.training.conftest import cut_images

GRIDS = [(4, 4), (4, 6), (9, 5)]
SMALL = MLPConfig(hidden=32, depth=2, fourier=8)


def at(plane: Tensor, y: float, x: float) -> Tensor:
    """``plane (n, n, D)`` at a place in patches from the centre of the first, its border repeated."""
    last = len(plane) - 1
    y, x = min(max(y, 0), last), min(max(x, 0), last)
    top, left = min(int(y), last - 1), min(int(x), last - 1)
    down, right = y - top, x - left
    upper = plane[top, left] * (1 - right) + plane[top, left + 1] * right
    lower = plane[top + 1, left] * (1 - right) + plane[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def slow_patch_loss(features: list[Tensor], standard: Tensor, images: list[PatchBatch]) -> float:
    """Leaf by leaf: its centre in patches, in the middle square, in patches of the standard view."""
    n, means = int(standard.shape[1] ** 0.5), []
    for states, view, image in zip(features, standard, images, strict=True):
        distances = []
        assert image.geometry is not None
        for state, (row, col, size, h, w) in zip(states, image.geometry[0].tolist(), strict=True):
            y, x = row + size / 2 - (h - min(h, w)) / 2, col + size / 2 - (w - min(h, w)) / 2
            if 0 <= y <= min(h, w) and 0 <= x <= min(h, w):
                wanted = at(view.reshape(n, n, -1), y * n / min(h, w) - 0.5, x * n / min(h, w) - 0.5)
                distances.append(1 - F.cosine_similarity(state, wanted, dim=0).item())
        means.append(sum(distances) / len(distances))
    return sum(means) / len(means)


def test_a_leaf_is_compared_with_its_place_in_the_standard_view() -> None:
    images = [item.patches for item in cut_images(*GRIDS, width=1)]
    batch = PatchBatch.collate(images)
    features, standard = torch.randn(*batch.mask.shape, 7), torch.randn(len(GRIDS), 16, 7)
    assert (~batch.mask).any()
    own = [states[mask] for states, mask in zip(features, batch.mask, strict=True)]
    got = patch_loss(features, standard, batch)
    assert got.item() == pytest.approx(slow_patch_loss(own, standard, images), rel=1e-5)


def test_it_is_zero_where_features_agree() -> None:
    view = View(14).processor(56, "square")(torch.zeros(3, 56, 56, dtype=torch.uint8))
    features = torch.randn(1, 16, 7)
    assert patch_loss(features, 3 * features, view).abs() < 1e-6
    assert patch_loss(features, -features, view).item() == pytest.approx(2)


def with_views(module: QlipModule, tokens_at_once: int | None = None) -> TrainBatch:
    """Cut images with noise as their standard views."""
    torch.manual_seed(3)
    views = [torch.randint(0, 255, (3, 56, 56), dtype=torch.uint8) for _ in GRIDS]
    processor = module.view.processor(56, "square")
    items = [
        item._replace(standard=processor(view)) for item, view in zip(cut_images(*GRIDS, width=16), views, strict=True)
    ]
    return TrainBatch.collate(items, tokens_at_once)


def test_the_standard_view_itself_stays_what_it_was(clip_folder: str) -> None:
    module = QlipModule(clip_folder, mlp=SMALL, loss=LossConfig(patches=1.0))
    processor, picture = module.view.processor(56, "square"), torch.randint(0, 255, (3, 56, 56), dtype=torch.uint8)
    view = processor(picture)
    batch = TrainBatch.collate([Item(view, torch.zeros(16), view)])
    assert module.losses(batch)["l_patches"].abs() < 1e-5
    assert module.losses(with_views(module))["l_patches"] > 0.01
    features = module.encode(batch.micro_batches[0], module.position(view.coords)).features
    assert features is not None
    own = module.vision.tower.module(processor.prepare(picture)[None], output_hidden_states=True)
    torch.testing.assert_close(features[1], own.hidden_states[-2][:, 1:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tokens_at_once", [1, 60])
def test_it_adds_its_own_gradient_however_the_batch_is_split(clip_folder: str, tokens_at_once: int) -> None:
    def gradient(weight: float, split: int | None) -> Tensor:
        module = QlipModule(clip_folder, mlp=SMALL, loss=LossConfig(gamma=0.0, patches=weight))
        terms = module.losses(with_views(module, split))
        if weight:
            total = terms["l_cls"] + weight * terms["l_patches"]
            assert terms["loss"].item() == pytest.approx(total.item(), rel=1e-5)
        terms["loss"].backward()
        assert all(p.grad is None for p in module.backbone.parameters())
        return torch.cat([p.grad.flatten() for p in module.position.parameters()])

    without, one, two = gradient(1e-12, None), gradient(1.0, None), gradient(2.0, None)
    assert (one - without).abs().max() > 1e-4
    torch.testing.assert_close(two - without, 2 * (one - without), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(gradient(1.0, tokens_at_once), one, rtol=1e-3, atol=1e-6)


def test_without_a_weight_nothing_is_carried_and_nothing_changes(
    clip_folder: str, photos: Path, tmp_path: Path
) -> None:
    def built(weight: float) -> tuple[QlipModule, QlipDataModule]:
        module = QlipModule(clip_folder, mlp=SMALL, loss=LossConfig(patches=weight))
        data = QlipDataModule(str(photos), batch_size=2, workers=0, val_sizes=(56,), cache_dir=str(tmp_path))
        data.build(module.encode_standard, "weights", 56, module.view, keep_standard=weight > 0)
        return module, data

    module, data = built(0.0)
    _, other = built(1.0)
    assert len(list(tmp_path.iterdir())) == 1  # one cache, whatever the loss
    plain, carrying = next(iter(data.train_dataloader())), next(iter(other.train_dataloader()))
    assert plain.micro_batches[0].standard is None
    standard = carrying.to("cpu").micro_batches[0].standard
    assert standard is not None
    assert standard.patches.shape[:2] == (2, 16)
    losses = module.losses(plain)
    assert set(losses) == {"loss", "l_cls", "residual_l1", "residual_l2"}
    bare = replace(carrying, micro_batches=(replace(carrying.micro_batches[0], standard=None),))
    assert torch.equal(module.losses(bare)["loss"], losses["loss"])
    assert next(iter(other.val_dataloader()))[0].micro_batches[0].standard is not None


def test_a_weight_below_zero_is_refused(clip_folder: str) -> None:
    with pytest.raises(ValueError, match=r"loss.patches: got -1.0; takes a weight of at least 0"):
        QlipModule(clip_folder, mlp=SMALL, loss=LossConfig(patches=-1.0))


def test_a_fit_draws_it(fit_args: list[str]) -> None:
    main(["fit", *fit_args, "--model.loss.patches=2"])
    events = EventAccumulator("lightning_logs/version_0").Reload()
    values = {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert min(values["train/l_patches"]) > 0
    total = values["val/l_cls"][-1] + values["val/residual_l1"][-1] + 2 * values["val/l_patches"][-1]
    assert values["val/loss"][-1] == pytest.approx(total, rel=1e-4)
