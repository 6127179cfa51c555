"""The solved readout: the last layer of the coordinate MLP from linear algebra, in place of training it.

What: with the hidden layers fixed, the network is linear in the weights ``W (K, D)`` of its readout. Let ``A (m, K)`` hold
the hidden features of the m points of CLIP's grid, a 1 appended to each for the bias, and ``T (m, D)`` CLIP's table. "The
network equals the table on the grid" is then the linear system ``A W = T``.

Why: training reaches ``A W = T`` slowly (the paper: 11 hours). Here it takes one factorisation, and since ``m < K`` there
are fewer equations than unknowns: the freedom that is left can make the network smooth between the points of the grid.

How: every solution is ``W = W0 + N Z``. ``W0`` is the smallest one, and the columns of ``N (K, K - m)`` span the null space
of ``A``, so ``A N = 0`` whatever ``Z``. With features ``F (k, K)`` and wanted values ``B (k, D)`` at points off the grid,
``Z`` is the least squares solution of ``F N Z = B - F W0``. The QR factorisation ``A^T = Q R`` gives all of it: the first m
columns of Q span the row space, the others are N, and ``W0 = Q[:, :m] R[:m]^-T T``.

To project given weights ``V`` back onto the solutions, take the nearest: ``W = V + Q[:, :m] R[:m]^-T (T - A V)``.
"""

import torch
from torch import Tensor


def _row_and_null_space(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bases ``(K, m)`` and ``(K, K - m)`` of the row and null space of ``features (m, K)``, and the factor ``(m, m)``."""
    m, unknowns = features.shape
    if m >= unknowns:
        raise ValueError(
            f"hidden: got {unknowns - 1} hidden units for {m} grid points; a solved readout needs at least as many hidden "
            f"units as the grid has points. Raise hidden, or train from a random start without projection"
        )
    q, r = torch.linalg.qr(features.T, mode="complete")
    return q[:, :m], q[:, m:], r[:m]


def _least_change(rows: Tensor, factor: Tensor, misfit: Tensor) -> Tensor:
    """The smallest weights ``(K, D)`` with ``features @ weights = misfit (m, D)``."""
    return rows @ torch.linalg.solve_triangular(factor.T, misfit, upper=False)


def solve_readout(features: Tensor, targets: Tensor, off_features: Tensor, off_targets: Tensor) -> Tensor:
    """Weights ``(K, D)`` with ``features (m, K) @ weights = targets (m, D)`` exactly, and of all those the ones that come
    closest to ``off_targets (k, D)`` at ``off_features (k, K)``, in the least squares sense.

    Raises:
        ValueError: if there are no more unknowns than equations.
    """
    rows, null, factor = _row_and_null_space(features)
    particular = _least_change(rows, factor, targets)
    correction = torch.linalg.lstsq(off_features @ null, off_targets - off_features @ particular).solution
    return particular + null @ correction


def project_readout(features: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The weights nearest to ``weights (K, D)`` that satisfy ``features (m, K) @ weights = targets (m, D)``.

    Raises:
        ValueError: if there are no more unknowns than equations.
    """
    rows, _, factor = _row_and_null_space(features)
    return weights + _least_change(rows, factor, targets - features @ weights)
