"""Positions against independent routes: whole grids by F.interpolate, single points by cubic convolution in numpy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qlip import PositionMLP, TablePosition
from qlip.core.position import grid_coords, sample_table
from qlip.core.readout import project_readout, solve_readout
from qlip.towers.synthetic import smooth_table

MODES = ("bicubic", "bilinear", "nearest", "zero")
GRIDS = (24, 16, 14, 7)


def cubic_weight(x: float, a: float = -0.75) -> float:
    """Keys's kernel with torch's constant."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def slow_sample(table: np.ndarray, point: tuple[float, float], mode: str) -> np.ndarray:
    """Interpolate ``table (n, n, D)`` at one point, entry by entry, the border repeated."""
    n = len(table)
    y, x = ((c + 1) / 2 * (n - 1) for c in point)
    if mode == "nearest":
        return table[round(y), round(x)]  # Python and torch both round half to even
    weight = cubic_weight if mode == "bicubic" else lambda t: max(0.0, 1 - abs(t))
    value = np.zeros(table.shape[2])
    for i in range(math.floor(y) - 1, math.floor(y) + 3):
        for j in range(math.floor(x) - 1, math.floor(x) + 3):
            entry = table[min(max(i, 0), n - 1), min(max(j, 0), n - 1)]
            value += weight(y - i) * weight(x - j) * entry
    return value


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(24, 24), (31, 40), (48, 17)])
def test_whole_grids_equal_interpolate(mode, shape):
    table = torch.randn(24, 24, 5)
    got = TablePosition(table, mode)(grid_coords(*shape))
    planes = table.permute(2, 0, 1)[None]
    expected = F.interpolate(planes, size=shape, mode=mode, align_corners=True)
    torch.testing.assert_close(got, expected[0].permute(1, 2, 0), rtol=0, atol=2e-5)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_an_axis_of_one_token_sits_in_the_middle(mode):
    table = torch.randn(24, 24, 5)
    planes = table.permute(2, 0, 1)[None]
    middle = F.interpolate(planes, size=(11, 47), mode=mode, align_corners=True)[0, :, :, 23].T
    torch.testing.assert_close(TablePosition(table, mode)(grid_coords(11, 1))[:, 0], middle, rtol=0, atol=2e-5)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "nearest"])
def test_single_points_equal_slow_convolution(mode):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(9, 9, 3))
    points = rng.uniform(-1, 1, size=(200, 2))
    got = sample_table(torch.from_numpy(table), torch.from_numpy(points), mode)
    expected = np.stack([slow_sample(table, tuple(point), mode) for point in points])
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "nearest"])
def test_on_the_grid_every_mode_is_the_table(mode):
    table = torch.randn(24, 24, 8)
    torch.testing.assert_close(TablePosition(table, mode)(grid_coords(24)), table, rtol=0, atol=2e-5)


def test_row_comes_first():
    table = torch.arange(9.0).view(3, 3, 1)
    assert TablePosition(table, "bilinear")(torch.tensor([[1.0, -1.0]])).item() == 6


def test_zero_is_zero_everywhere():
    got = TablePosition(torch.randn(7, 7, 4), "zero")(torch.rand(2, 5, 2))
    assert torch.equal(got, torch.zeros(2, 5, 4))


@pytest.mark.parametrize("mode", MODES)
def test_low_precision_tables_keep_their_dtype(mode):
    table, points = torch.randn(7, 7, 4).bfloat16(), torch.rand(6, 2)
    got = TablePosition(table, mode)(points)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, TablePosition(table.float(), mode)(points).bfloat16())


def test_table_is_a_copy_and_not_trained():
    table = torch.zeros(3, 3, 2)
    position = TablePosition(table)
    table += 1
    assert not position.table.any()
    assert not list(position.parameters())
    assert (position.grid, position.dim) == (3, 2)


def test_grid_coords():
    got = grid_coords(3, 5)
    assert got.shape == (3, 5, 2)
    assert got[:, 0, 0].tolist() == [-1, 0, 1]
    assert got[0, :, 1].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert not grid_coords(1).any()


def slow_mlp(mlp: PositionMLP, point: tuple[float, float]) -> np.ndarray:
    """The network of docs/definitions.md at one point, in numpy and float64."""
    frequencies = mlp.frequencies.double().numpy()
    angles = [2 * math.pi * (b[0] * point[0] + b[1] * point[1]) for b in frequencies]
    x = np.array([math.sin(t) for t in angles] + [math.cos(t) for t in angles])
    for layer in mlp.hidden:
        x = np.tanh(layer.weight.detach().double().numpy() @ x + layer.bias.detach().double().numpy())
    return mlp.readout.weight.detach().double().numpy() @ x + mlp.readout.bias.detach().double().numpy()


def small_mlp(**options) -> PositionMLP:
    torch.manual_seed(0)
    return PositionMLP(**{"dim": 6, "grid": 5, "hidden": 40, "depth": 3, "fourier": 7} | options)


def test_mlp_is_the_network_of_the_definitions():
    mlp = small_mlp().double()
    for layer in mlp.hidden:
        torch.nn.init.normal_(layer.bias)
    points = torch.rand(10, 2, dtype=torch.float64) * 2 - 1
    expected = np.stack([slow_mlp(mlp, (point[0].item(), point[1].item())) for point in points])
    np.testing.assert_allclose(mlp(points).detach().numpy(), expected, atol=1e-12)


def test_mlp_has_the_papers_shape_by_default():
    mlp = PositionMLP(1024)
    assert [tuple(layer.weight.shape) for layer in mlp.hidden] == [(1024, 96), *[(1024, 1024)] * 3]
    assert mlp.readout.weight.shape == (1024, 1024)
    assert (mlp.grid, mlp.sigma) == (24, 1.5)
    assert "frequencies" in dict(mlp.named_buffers())
    assert all("frequencies" not in name for name, _ in mlp.named_parameters())


@pytest.mark.parametrize(("grid", "sigma", "expected"), [(16, None, 1.0), (24, None, 1.5), (24, 0.7, 0.7)])
def test_sigma_is_the_spread_of_the_frequencies(grid, sigma, expected):
    torch.manual_seed(0)
    mlp = PositionMLP(4, grid, hidden=8, fourier=20000, sigma=sigma)
    assert mlp.frequencies.std().item() == pytest.approx(expected, rel=0.02)


def test_mlp_stays_in_float32_under_autocast():
    mlp, coords = small_mlp(), grid_coords(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = mlp(coords)
    assert torch.equal(inside, mlp(coords))


def test_residual_is_mean_absolute_and_mean_squared_difference():
    mlp, table = small_mlp(), torch.randn(5, 5, 6)
    differences = [
        slow_mlp(mlp, (-1 + i / 2, -1 + j / 2)) - table[i, j].double().numpy() for i in range(5) for j in range(5)
    ]
    first, second = mlp.residual(table)
    assert first.item() == pytest.approx(np.abs(differences).mean(), rel=1e-5)
    assert second.item() == pytest.approx(np.square(differences).mean(), rel=1e-5)
    first.backward()
    assert all(parameter.grad is not None for parameter in mlp.parameters())


def test_offgrid_is_relative_to_the_bicubic_surface():
    mlp, table = small_mlp(grid=6), torch.randn(6, 6, 6)
    points = [(-1 + 2 * i / (n - 1), -1 + 2 * j / (n - 1)) for n in (8, 10, 12) for i in range(n) for j in range(n)]
    bicubic = np.stack([slow_sample(table.double().numpy(), point, "bicubic") for point in points])
    ours = np.stack([slow_mlp(mlp, point) for point in points])
    expected = math.sqrt(np.square(ours - bicubic).mean() / np.square(bicubic).mean())
    assert mlp.offgrid(table) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("grid", GRIDS)
def test_solve_meets_the_grid_and_stays_smooth_between(grid):
    table = smooth_table(grid, 32)
    torch.manual_seed(0)
    mlp = PositionMLP(32, grid)
    hidden = [parameter.clone() for parameter in mlp.hidden.parameters()]
    assert mlp.solve_(table) is mlp
    assert mlp.residual(table)[0] < 5e-7
    assert mlp.offgrid(table) < 0.15
    assert all(torch.equal(a, b) for a, b in zip(hidden, mlp.hidden.parameters(), strict=True))


@pytest.mark.parametrize("grid", GRIDS)
def test_solve_is_exact_in_float64(grid):
    table = smooth_table(grid, 8).double()
    torch.manual_seed(0)
    assert PositionMLP(8, grid).double().solve_(table).residual(table)[0] < 1e-12


def test_project_restores_the_residual_with_a_small_change():
    table = smooth_table(7, 16)
    torch.manual_seed(0)
    mlp = PositionMLP(16, 7, hidden=256).solve_(table)
    with torch.no_grad():
        mlp.readout.weight += 1e-4 * torch.randn_like(mlp.readout.weight)
    disturbed = mlp.readout.weight.clone()
    assert mlp.residual(table)[0] > 1e-4
    assert mlp.project_(table) is mlp
    assert mlp.residual(table)[0] < 5e-7
    change = (mlp.readout.weight - disturbed).norm()
    assert 0 < change < 1e-4 * math.sqrt(disturbed.numel())  # less than the disturbance: the nearest, not the old one


def test_project_is_the_nearest_solution():
    torch.manual_seed(0)
    features, targets, weights = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 9), (5, 3), (9, 3)))
    got = project_readout(features, targets, weights)
    expected = weights + torch.linalg.pinv(features) @ (targets - features @ weights)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_solution_is_the_constrained_least_squares_one():
    """Against the equations of Lagrange's multipliers, solved in one piece."""
    torch.manual_seed(0)
    shapes = ((5, 9), (5, 3), (20, 9), (20, 3))
    features, targets, off_features, off_targets = (torch.randn(*shape, dtype=torch.float64) for shape in shapes)
    kkt = torch.zeros(14, 14, dtype=torch.float64)
    kkt[:9, :9], kkt[:9, 9:], kkt[9:, :9] = off_features.T @ off_features, features.T, features
    expected = torch.linalg.solve(kkt, torch.cat([off_features.T @ off_targets, targets]))[:9]
    got = solve_readout(features, targets, off_features, off_targets)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PositionMLP(0), "dim: got 0; takes a positive integer"),
        (lambda: PositionMLP(4, grid=0), "grid: got 0"),
        (lambda: PositionMLP(4, hidden=-1), "hidden: got -1"),
        (lambda: PositionMLP(4, depth=0), "depth: got 0"),
        (lambda: PositionMLP(4, fourier=0), "fourier: got 0"),
        (lambda: TablePosition(torch.zeros(576, 4)), r"table: got shape \(576, 4\); takes \(n, n, D\)"),
        (lambda: TablePosition(torch.zeros(3, 4, 5)), r"table: got shape \(3, 4, 5\)"),
        (lambda: TablePosition(torch.zeros(3, 3, 5), "cubic"), "mode: got 'cubic'; takes one of bicubic"),
        (lambda: small_mlp().residual(torch.zeros(4, 4, 6)), r"takes \(5, 5, 6\)"),
        (lambda: small_mlp().offgrid(torch.zeros(5, 5, 7)), r"takes \(5, 5, 6\)"),
        (lambda: small_mlp().solve_(torch.zeros(25, 6)), r"got shape \(25, 6\)"),
        (lambda: small_mlp().project_(torch.zeros(6, 6, 6)), r"got shape \(6, 6, 6\)"),
        (lambda: small_mlp(hidden=20).solve_(torch.zeros(5, 5, 6)), "got 20 hidden units for 25 grid points"),
        (lambda: small_mlp(hidden=20).project_(torch.zeros(5, 5, 6)), "hidden: got 20 .* Raise hidden"),
    ],
)
def test_errors_say_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()
