"""The linear algebra of the solved readout: satisfy the grid's equations exactly, use what freedom is left well.

``A`` holds the hidden features of the grid's points, a 1 appended for the bias, ``(m, K)`` with ``m < K``: fewer equations
than unknowns. One QR factorisation of its transpose gives the row space and the null space.
"""

import torch
from torch import Tensor


def _row_and_null_space(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bases ``(K, m)`` and ``(K, K - m)`` of the row and null space of ``features (m, K)``, and the factor ``(m, m)``."""
    m, unknowns = features.shape
    if m >= unknowns:
        raise ValueError(
            f"hidden: got {unknowns - 1} hidden units for {m} grid points; a solved readout needs at least as many hidden "
            f"units as the grid has points. Raise hidden, or train without solving"
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
