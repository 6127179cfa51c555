"""A frozen network computes each coordinate once, and never answers with weights that are gone."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from qlip.core import position_cache
from qlip.core.position import PositionMLP, grid_coords
from tests.operation_counters import Operations


@pytest.fixture
def mlp() -> PositionMLP:
    torch.manual_seed(0)
    return PositionMLP(6, 5, hidden=40, depth=3, fourier=7).requires_grad_(False)


def computed(mlp: PositionMLP, coords: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """The encodings, and whether the network was evaluated."""
    with Operations() as operations:
        encodings = mlp(coords)
    return encodings, operations.products() > 0


def slowly(mlp: PositionMLP, coords: torch.Tensor) -> torch.Tensor:
    return mlp.readout(mlp.features(coords))


def test_coordinates_are_computed_once_whatever_their_order_and_shape(mlp):
    coords = grid_coords(9)
    first, evaluated = computed(mlp, coords)
    assert evaluated
    torch.testing.assert_close(first, slowly(mlp, coords))
    shuffled = coords.flatten(0, 1)[torch.randperm(81)].expand(4, -1, -1)
    again, evaluated = computed(mlp, shuffled)
    assert not evaluated
    torch.testing.assert_close(again, slowly(mlp, shuffled))


def test_only_what_is_new_is_computed(mlp, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        mlp, "_compute", lambda coords, original=mlp._compute: sizes.append(len(coords)) or original(coords)
    )
    mlp(grid_coords(5))
    torch.testing.assert_close(mlp(grid_coords(9)), slowly(mlp, grid_coords(9)))  # every other point of 9 is one of 5
    mlp(grid_coords(5))
    assert sizes == [25, 81 - 25]


CHANGES: dict[str, Callable[[PositionMLP], object]] = {
    "in place": lambda mlp: mlp.hidden[1].weight.mul_(1.1),
    "loaded": lambda mlp: mlp.load_state_dict({name: 2 * value for name, value in mlp.state_dict().items()}),
    "replaced": lambda mlp: setattr(mlp.readout.weight, "data", mlp.readout.weight * 2),
    "another parameter": lambda mlp: setattr(mlp.readout, "bias", nn.Parameter(torch.ones(6), requires_grad=False)),
    "frequencies": lambda mlp: mlp.frequencies.add_(0.1),
    "solved": lambda mlp: mlp.solve_(torch.randn(5, 5, 6)),
    "float64": lambda mlp: mlp.double(),
}


@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_weights_are_noticed(mlp, change, grad):
    coords = grid_coords(4)
    before = mlp(coords)
    with grad():
        change(mlp)
        after = mlp(coords)
        torch.testing.assert_close(after, slowly(mlp, coords))
    assert not torch.allclose(after.float(), before) or after.dtype == torch.float64


def test_training_computes_and_gets_its_gradients(mlp):
    coords = grid_coords(4)
    mlp(coords)
    mlp.requires_grad_(True)
    mlp(coords).sum().backward()
    assert all(weight.grad is not None for weight in mlp.parameters())
    wanted = coords.clone().requires_grad_()
    mlp.requires_grad_(False)(wanted).sum().backward()
    assert wanted.grad is not None
    assert wanted.grad.abs().max() > 0


@pytest.mark.parametrize("fused", [False, True])
def test_what_training_changed_is_noticed_in_between_and_after(mlp, fused):
    """Fused optimisers write to the weights and leave their versions as they were."""
    coords = grid_coords(4)
    mlp(coords)
    optimiser = torch.optim.Adam(mlp.requires_grad_(True).parameters(), lr=0.1, fused=fused)
    for _ in range(2):
        mlp(coords).square().sum().backward()
        optimiser.step()
        with torch.no_grad():  # a validation between two steps
            torch.testing.assert_close(mlp(coords), slowly(mlp, coords))
    mlp.requires_grad_(False)
    torch.testing.assert_close(mlp(coords), slowly(mlp, coords))


def test_what_was_computed_for_inference_serves_gradients_of_others(mlp):
    with torch.inference_mode():
        mlp(grid_coords(4))
    scale = torch.ones(6, requires_grad=True)
    (mlp(grid_coords(4)) * scale).sum().backward()
    assert scale.grad is not None


def test_memory_is_bounded(mlp, monkeypatch):
    monkeypatch.setattr(position_cache, "LIMIT", 6 * 4 * 100)
    for side in (9, 10, 11, 9):
        torch.testing.assert_close(mlp(grid_coords(side)), slowly(mlp, grid_coords(side)))
        known = mlp._cache._known
        assert known is None or known.values.nbytes <= position_cache.LIMIT


def test_copies_and_pickles_start_empty(mlp):
    size = len(pickle.dumps(mlp))
    mlp(grid_coords(30))
    assert len(pickle.dumps(mlp)) == size
    for other in (copy.deepcopy(mlp), pickle.loads(pickle.dumps(mlp))):
        assert other._cache._known is None
        torch.testing.assert_close(other(grid_coords(3)), mlp(grid_coords(3)))
    assert "_cache" not in "".join(mlp.state_dict())


def test_no_coordinates_are_no_encodings(mlp):
    assert mlp(torch.empty(0, 2)).shape == (0, 6)


def test_a_single_coordinate_is_a_single_encoding(mlp):
    torch.testing.assert_close(mlp(torch.tensor([0.5, -1.0])), slowly(mlp, torch.tensor([0.5, -1.0])))


def test_memory_of_coordinates_may_begin_anywhere(mlp):
    coords = torch.rand(9)[1:].view(4, 2)
    torch.testing.assert_close(mlp(coords), slowly(mlp, coords))


class Switched(nn.Linear):
    """As a layer of PEFT's, which can be switched off."""

    on = True

    def forward(self, x):
        return super().forward(x) + self.on


@pytest.mark.parametrize("place", ["readout", "hidden"])
def test_layers_of_another_kind_always_compute(mlp, place):
    layer = Switched(40, 6) if place == "readout" else Switched(14, 40)
    layer.requires_grad_(False)
    if place == "readout":
        mlp.readout = layer
    else:
        mlp.hidden[0] = layer
    mlp(grid_coords(4))
    layer.on = False
    torch.testing.assert_close(mlp(grid_coords(4)), slowly(mlp, grid_coords(4)))


def test_moving_to_where_it_is_forgets_nothing(mlp):
    mlp(grid_coords(4))
    assert not computed(mlp.to("cpu", torch.float32), grid_coords(4))[1]


def test_moving_away_keeps_no_memory(mlp):
    mlp(grid_coords(4))
    assert mlp.to("meta")._cache._known is None
