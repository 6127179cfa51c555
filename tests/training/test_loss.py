import pytest
import torch
from torch import Tensor, nn

from qlip.training.batch import MicroBatch, TrainBatch
from qlip.training.config import ClsLoss, LossConfig
from qlip.training.loss import Encoded, batch_loss, cls_loss, residual
from tests.training.conftest import cut_images


@pytest.mark.parametrize(("kind", "expected"), [("mse", (9 + 16 + 0 + 4) / 4), ("l2", (5 + 2) / 2)])
def test_cls_loss_is_a_mean_of_squares_or_of_norms(kind: ClsLoss, expected: float) -> None:
    cls, target = torch.tensor([[3.0, 4.0], [1.0, 3.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert cls_loss(cls.bfloat16(), target, kind).item() == pytest.approx(expected)
    assert cls_loss(cls.bfloat16(), target, kind).dtype == torch.float32


def test_residual_is_the_mean_absolute_and_the_mean_squared_difference() -> None:
    table = torch.zeros(2, 2, 3)
    positions = torch.tensor([[1.0, -2.0, 0.0]]).expand(4, 3)
    assert [value.item() for value in residual(positions, table)] == pytest.approx([1, 5 / 3])


@pytest.mark.parametrize("tokens_at_once", [None, 60, 1])
def test_every_photograph_counts_the_same_however_the_batch_is_split(tokens_at_once: int | None) -> None:
    torch.manual_seed(0)
    project = nn.Linear(8, 5)

    def encode(batch: MicroBatch, positions: Tensor) -> Encoded:
        return Encoded(project((positions.tanh() * batch.patches.mask[..., None]).sum(1)))

    batch = TrainBatch.collate(cut_images((4, 6), (5, 3), (6, 6), width=5), tokens_at_once)
    positions = torch.randn(len(batch.coords), 8, requires_grad=True)
    at = {tuple(coord): encoding for coord, encoding in zip(batch.coords.tolist(), positions, strict=True)}
    norms: list[Tensor] = []
    loss = batch_loss(batch, positions, encode, LossConfig(cls_loss="l2"), norms)
    (gradient,) = torch.autograd.grad(loss, positions)

    distances = []
    for patches, target, _ in cut_images((4, 6), (5, 3), (6, 6), width=5):
        tokens = torch.stack([at[tuple(coord)] for coord in patches.coords[0].tolist()])
        distances.append((project(tokens.tanh().sum(0)) - target).norm())
    expected = torch.stack(distances).mean()
    (slow_gradient,) = torch.autograd.grad(expected, positions)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, slow_gradient)
    assert len(torch.cat(norms)) == len(batch)
