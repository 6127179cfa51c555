import numpy as np
import pytest
import torch
from PIL import Image

from qlip.core.quadtree import Leaves, Quadtree
from qlip.viz import draw_leaves, rebuild


def leaves() -> Leaves:
    """A 2 x 2 block on the left of a 2 x 3 grid, two patches on the right."""
    return Leaves(torch.tensor([0, 0, 1]), torch.tensor([0, 2, 2]), torch.tensor([2, 1, 1]), (2, 3))


def test_outlines_lie_on_the_borders_of_the_leaves() -> None:
    drawn = np.asarray(draw_leaves(Image.new("RGB", (42, 28)), leaves(), "white"))
    white = (drawn == 255).all(-1)
    assert white[0].all()
    assert white[:, 0].all()
    assert white[:, 28].all()
    assert white[14, 28:].all()
    assert not white[14, 1:28].any()  # nothing inside the large leaf


@pytest.mark.parametrize("ground", ["white", "black", "grey"])
@pytest.mark.parametrize("colour", ["white", "black"])
def test_lines_are_seen_on_any_ground(ground: str, colour: str) -> None:
    plain = Image.new("RGB", (42, 28), ground)
    change = np.abs(np.asarray(draw_leaves(plain, leaves(), colour), int) - np.asarray(plain, int)).max(-1)
    assert (change[2:-2, 27:30].max(1) > 100).all()  # on the line or on its borders
    assert not change[2:-2, 2:26].any()


@pytest.mark.parametrize("factor", [0.5, 1.37, 3])
def test_outlines_are_fine_at_any_scale(factor: float) -> None:
    scaled = Image.new("RGB", (round(42 * factor), round(28 * factor)))
    white = (np.asarray(draw_leaves(scaled, leaves(), "white")) == 255).all(-1)
    row, column = round(scaled.height / 2), round(2 * scaled.width / 3)
    assert white[:, column].all()
    assert white[row, column:].all()
    assert white.mean() < 0.1 / factor + 0.1


def test_rebuilding_a_uniform_grid_changes_nothing_and_a_leaf_blurs_its_own_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (28, 42, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    uniform = Quadtree(criterion="uniform").batch(torch.zeros(1, 3, 28, 42))[0]
    assert np.array_equal(np.asarray(rebuild(image, uniform)), pixels)
    rebuilt = np.asarray(rebuild(image, leaves()))
    assert np.array_equal(rebuilt[:, 28:], pixels[:, 28:])
    assert rebuilt[:, :28].std() < 0.7 * pixels[:, :28].std()
