"""Small positions and entries, shared by the tests of the zoo."""

import torch

from qlip import PositionMLP, Quadtree
from qlip.zoo.config import ZooConfig


def tiny_position(seed=0, dim=8):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PositionMLP(dim, grid=4, hidden=16, depth=2, fourier=3)


def describe(position, **changes):
    fields = {
        "backbone": "openai/clip-vit-large-patch14-336",
        "patch_size": 14,
        "quadtree": Quadtree(alpha=0.1, criterion="random"),
        "training": {"steps": 300, "gamma": 1.0},
        "metrics": {"R": 1e-7, "R2": 2e-14, "offgrid": 0.08, "cos_cls_336": 0.99, "cos_cls_448": 0.9},
    }
    return ZooConfig.of(position, **{**fields, **changes})


def same(a, b):
    """Whether two positions agree in every bit, dtype and name."""
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(x[k].dtype == y[k].dtype and torch.equal(x[k], y[k]) for k in x)
