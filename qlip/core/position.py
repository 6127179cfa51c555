"""Where a token is: positional encodings as functions of a coordinate instead of rows of a table.

A position is anything callable as ``position(coords (..., 2)) -> (..., D)``, coordinates being (row, column) in [-1, 1]
with the table's corner entries at the corners. `TablePosition` samples CLIP's own table, `PositionMLP` is QLIP's network.
"""

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qlip.core.names import TableMode
from qlip.core.position_cache import PositionCache
from qlip.core.readout import project_readout, solve_readout
from qlip.core.rules import shown

Position = Callable[[Tensor], Tensor]


def grid_coords(n: int, m: int | None = None) -> Tensor:
    """Coordinates of an ``n x m`` grid (``m = n`` if not given) with its corners at -1 and 1: ``(n, m, 2)`` float32.

    The same arithmetic as `Leaves.coords`, so that a grid and its uniform leaves agree to the last bit.
    """
    axes = [2 * torch.arange(k, dtype=torch.float64) / max(k - 1, 1) - (1 if k > 1 else 0) for k in (n, m or n)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).float()


def sample_table(table: Tensor, coords: Tensor, mode: TableMode = "bicubic") -> Tensor:
    """Interpolate ``table (n, n, D)`` at ``coords (..., 2)``, corners aligned, border repeated: ``(..., D)``.

    Computed in float32 at least and returned in the table's dtype. ``"zero"`` gives zeros of that shape.
    """
    if mode == "zero":
        return table.new_zeros(*coords.shape[:-1], table.shape[-1])
    dtype = torch.promote_types(table.dtype, torch.float32)
    planes = table.to(dtype).permute(2, 0, 1)[None]
    points = coords.to(dtype).reshape(1, 1, -1, 2).flip(-1)  # grid_sample takes (x, y)
    sampled = F.grid_sample(planes, points, mode=mode, padding_mode="border", align_corners=True)
    return sampled[0, :, 0].T.reshape(*coords.shape[:-1], -1).to(table.dtype)


def _check_table(table: Tensor, grid: int | None = None, dim: int | None = None) -> None:
    square = table.ndim == 3 and table.shape[0] == table.shape[1]
    if not square or (grid or table.shape[0]) != table.shape[0] or (dim or table.shape[2]) != table.shape[2]:
        n, d = grid or "n", dim or "D"
        raise ValueError(
            f"table: got shape {tuple(table.shape)}; takes ({n}, {n}, {d}), CLIP's table without its class token"
        )


class TablePosition(nn.Module):
    """CLIP's own table, interpolated; the baselines of the paper, done right. Nothing here is trained.

    Args:
        table: CLIP's table ``(n, n, D)``, row first.
        mode: Interpolation between the entries; ``"zero"`` gives no position at all (the condition of mesoscopic bias).
    """

    table: Tensor

    def __init__(self, table: Tensor, mode: TableMode = "bicubic") -> None:
        super().__init__()
        _check_table(table)
        if mode not in get_args(TableMode):
            raise ValueError(f"mode: got {shown(mode)}; takes one of {', '.join(get_args(TableMode))}")
        self.mode = mode
        self.register_buffer("table", table.detach().clone())

    @property
    def dim(self) -> int:
        """Width D of the encodings."""
        return self.table.shape[-1]

    @property
    def grid(self) -> int:
        """Side n of the table."""
        return self.table.shape[0]

    def forward(self, coords: Tensor) -> Tensor:
        """Encodings ``(..., D)`` at ``coords (..., 2)``."""
        return sample_table(self.table, coords, self.mode)


class PositionMLP(nn.Module):
    """QLIP's coordinate network: Fourier features, tanh layers, linear readout (section 3.2 of the paper).

    The Fourier features are those of Tancik et al. (arXiv 2006.10739): ``[sin 2 pi B v, cos 2 pi B v]`` with a fixed
    Gaussian ``B``. Hidden layers start from Xavier's uniform distribution: with torch's default the solved readout needs
    larger weights for the same surface, and R suffers more from rounding them to float32.

    Args:
        dim: Width D of the encodings, CLIP's hidden size.
        grid: Side n of CLIP's grid.
        hidden: Width of the hidden layers.
        depth: Number of hidden layers.
        fourier: Number of frequencies; twice as many features.
        sigma: Standard deviation of the frequencies in cycles per unit of coordinate; ``grid / 16`` if not given.
            Small is smooth but ill-conditioned, large fits the grid exactly and is noise between its points.
    """

    frequencies: Tensor

    def __init__(
        self,
        dim: int,
        grid: int = 24,
        hidden: int = 1024,
        depth: int = 4,
        fourier: int = 48,
        sigma: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("grid", grid), ("hidden", hidden), ("depth", depth), ("fourier", fourier)):
            if value < 1:
                raise ValueError(f"{name}: got {value}; takes a positive integer")
        self.dim, self.grid, self.sigma = dim, grid, grid / 16 if sigma is None else sigma
        self.register_buffer("frequencies", torch.randn(fourier, 2) * self.sigma)
        widths = [2 * fourier] + [hidden] * depth
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self.hidden, self.readout = nn.ModuleList(layers), nn.Linear(hidden, dim)
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self._cache = PositionCache()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PositionMLP":
        """Move or cast as any module, but never below float32: places need its digits, whatever the model around computes in."""

        def kept(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype.itemsize >= 4 else tensor.to(moved.device)

        super()._apply(kept, recurse)
        if self.frequencies.device.type != "cpu":
            self._cache = PositionCache()  # which would keep what has left
        return self

    def features(self, coords: Tensor) -> Tensor:
        """Last hidden activations ``(..., hidden)`` at ``coords (..., 2)``, in the dtype of the weights."""
        angles = 2 * math.pi * coords.to(self.frequencies.dtype) @ self.frequencies.T
        x = torch.cat([angles.sin(), angles.cos()], dim=-1)
        for layer in self.hidden:
            x = torch.tanh(layer(x))
        return x

    def forward(self, coords: Tensor) -> Tensor:
        """Encodings ``(..., D)`` at ``coords (..., 2)``. Autocast is off in here: positions need float32.

        A frozen network computes each coordinate once on a CPU, until its weights change, see `PositionCache`. One whose layers
        were replaced always computes: an adapter can be switched off without a change of any weight.
        """
        with torch.autocast(coords.device.type, enabled=False):
            if any(type(layer) is not nn.Linear for layer in (*self.hidden, self.readout)):
                return self._compute(coords)
            return self._cache(self._compute, coords, [*self.parameters(), self.frequencies])

    def _compute(self, coords: Tensor) -> Tensor:
        return self.readout(self.features(coords))

    def training_grid(self) -> Tensor:
        """Coordinates of CLIP's own grid, ``(n, n, 2)``."""
        return grid_coords(self.grid).to(self.frequencies.device)

    def residual(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Mean absolute and mean squared difference from ``table (n, n, D)`` on the grid: R of eq. 4, and R2."""
        _check_table(table, self.grid, self.dim)
        difference = self(self.training_grid()) - table.to(self.readout.weight)
        return difference.abs().mean(), difference.square().mean()

    @torch.no_grad()
    def offgrid(self, table: Tensor) -> float:
        """Relative rms difference from bicubic interpolation of ``table (n, n, D)`` on grids 4/3, 5/3 and 2 times as fine.

        R says nothing about these points, and they are the ones that other image sizes use.
        """
        _check_table(table, self.grid, self.dim)
        points = [grid_coords(round(self.grid * scale)).flatten(0, 1) for scale in (4 / 3, 5 / 3, 2)]
        coords = torch.cat(points).to(table.device)
        bicubic = sample_table(table.to(self.readout.weight), coords)
        return ((self(coords) - bicubic).square().mean() / bicubic.square().mean()).sqrt().item()

    @torch.no_grad()
    def solve_(self, table: Tensor) -> "PositionMLP":
        """Set the readout so that the network equals ``table (n, n, D)`` on the grid and bicubic between, in place.

        Of all readouts that satisfy the grid's equations it takes the one closest to the bicubic surface at the
        half-steps (docs/definitions.md). Solved in float64, rounded to the dtype of the weights.

        Raises:
            ValueError: if the table does not fit, or the grid has more points than the readout has weights.
        """
        _check_table(table, self.grid, self.dim)
        table = table.to(self.readout.weight.device, torch.float64)
        fine = grid_coords(2 * self.grid - 1).to(table.device)
        odd = torch.arange(2 * self.grid - 1, device=table.device) % 2 == 1
        half_steps = fine[odd[:, None] | odd]
        weights = solve_readout(
            self._exact_features(self.training_grid().flatten(0, 1)),
            table.flatten(0, 1),
            self._exact_features(half_steps),
            sample_table(table, half_steps),
        )
        return self._set_readout(weights)

    @torch.no_grad()
    def project_(self, table: Tensor) -> "PositionMLP":
        """Make the smallest change of the readout that puts R back to rounding error, in place.

        Raises:
            ValueError: if the table does not fit, or the grid has more points than the readout has weights.
        """
        _check_table(table, self.grid, self.dim)
        targets = table.to(self.readout.weight.device, torch.float64).flatten(0, 1)
        weights = torch.cat([self.readout.weight.T, self.readout.bias[None]]).double()
        features = self._exact_features(self.training_grid().flatten(0, 1))
        return self._set_readout(project_readout(features, targets, weights))

    def _exact_features(self, coords: Tensor) -> Tensor:
        """Features ``(m, hidden + 1)`` in float64, a column of ones appended for the bias."""
        return F.pad(copy.deepcopy(self).double().features(coords), (0, 1), value=1.0)

    def _set_readout(self, weights: Tensor) -> "PositionMLP":
        self.readout.weight.copy_(weights[:-1].T)
        self.readout.bias.copy_(weights[-1])
        return self
