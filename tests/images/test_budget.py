"""A budget holds for every picture: at its own size where blocks can merge, scaled down where they cannot."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qlip import QlipImageProcessor, Quadtree
from qlip.core.criteria import CRITERIA
from qlip.images import processor as module
from qlip.images.budget import counted_at, shortest_edges, size_of_tree
from qlip.images.eight_bit import EightBitImage

FITS = ("prune", "scale")


@cache
def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth ground with sharp discs on it, so that some blocks merge and some do not."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:height, :width]
    pixels = np.stack([128 + 60 * np.sin(rows / 90 + k) * np.cos(cols / 130) for k in range(3)], axis=-1)
    for _ in range(12):
        row, col, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.02, 0.1) * max(height, width)
        pixels[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    pixels[: height // 3, : width // 3] += rng.normal(0, 25, (height // 3, width // 3, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def processor(fit: str = "prune", size: int | None = None, crop: str = "patch", **tree: object) -> QlipImageProcessor:
    return QlipImageProcessor(size, crop, Quadtree(**tree), fit=fit)


@settings(max_examples=60, deadline=None)
@given(
    shorter=st.integers(5, 400), aspect=st.floats(1, 16), upright=st.booleans(), budget=st.integers(16, 900),
    size=st.sampled_from([None, 40, 224, 336]), fit=st.sampled_from(FITS), patch_size=st.sampled_from([14, 32]),
    crop=st.sampled_from(["patch", "units", "square"]), cover=st.sampled_from(["full", "roots"]),
    pad=st.sampled_from([None, "square"]),
)  # fmt: skip
def test_a_budget_never_fails_and_is_spent(shorter, aspect, upright, budget, size, fit, patch_size, crop, cover, pad):
    width, height = max(int(shorter * aspect), shorter), shorter
    if max(width, height) > 16 * min(width, height):
        width = 16 * height
    image = Image.new("RGB", (width, height)[:: 1 if upright else -1], "grey")
    image.paste(picture(200, 150).resize((max(width // 3, 1), max(height // 3, 1))), (0, 0))
    tree = Quadtree(0.5, max_tokens=budget, patch_size=patch_size, cover=cover)
    asked = QlipImageProcessor(max(size, patch_size) if size else None, crop, tree, pad=pad, fit=fit)
    fitted = asked.fitted(image)
    (count,) = asked.count_tokens(image)
    assert count <= budget
    full, taken = math.prod(asked.grid(image.height, image.width)), math.prod(fitted.grid(image.height, image.width))
    if full <= budget:
        assert count == taken == full  # nothing has to go
    elif cover == "roots" and taken < full:  # scaled down to a size at which its single patches fit
        assert count >= min(taken, budget - 2)
    else:
        assert count >= budget - 2


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_every_criterion_keeps_to_a_budget(criterion, fit):
    for budget in (16, 100, 333):
        (count,) = processor(fit, criterion=criterion, max_tokens=budget, alpha=0.2).count_tokens(picture(500, 300))
        assert budget - (2 if criterion != "uniform" else 40) <= count <= budget


@pytest.mark.parametrize("crop", ["patch", "units"])
@pytest.mark.parametrize("shape", [(640, 480), (333, 500), (900, 120)])
def test_a_larger_budget_never_gets_a_smaller_size(shape, crop):
    for fit in FITS:
        sizes = [
            processor(fit, alpha=0.3, crop=crop, max_tokens=budget).fitted(picture(*shape)).size
            for budget in range(16, 900, 41)
        ]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[-1]


def test_prune_keeps_the_size_and_scale_keeps_the_threshold():
    image, budget = picture(640, 480), 300
    pruned, scaled = (processor(fit, alpha=0.3, max_tokens=budget).fitted(image) for fit in FITS)
    assert pruned.size == 480
    assert scaled.size < 480
    kept = len(scaled.with_options(alpha=0.3, max_tokens=None).cut(image)[1])
    assert abs(kept - budget) < 0.15 * budget  # the threshold alone comes near it
    unscaled = len(processor(alpha=0.3).cut(image)[1])
    assert unscaled > 1.3 * budget


def test_the_scaled_picture_is_the_one_that_its_size_gives():
    image = picture(640, 480)
    asked = processor("scale", alpha=0.3, max_tokens=250)
    seen, leaves = asked.cut(image)
    size = asked.fitted(image).size
    torch.testing.assert_close(seen.floats, processor(size=size).prepare(image), rtol=0, atol=0)
    assert torch.equal(seen.floats, asked.prepare(image))
    assert leaves.grid == asked.fitted(image).grid(480, 640)


@pytest.mark.parametrize("shape", [(60, 60), (640, 480), (2000, 1500), (4000, 250)])
def test_few_trees_are_built_and_none_at_the_full_size(monkeypatch, shape):
    built = []
    for name in ("leaves", "count"):
        build = getattr(EightBitImage, name)
        counted = lambda self, x, build=build: built.append(self.pixels.shape[-2:]) or build(self, x)  # noqa: E731
        monkeypatch.setattr(EightBitImage, name, counted)
    image = picture(*shape)
    full = math.prod(processor().grid(image.height, image.width))
    for share in (0.05, 0.25, 0.6, 1.0):
        built.clear()
        processor("scale", alpha=0.2, max_tokens=max(round(share * full), 16)).cut(image)
        counted, last = built[:-1], built[-1]
        assert len(built) <= 5
        assert sum(math.prod(side) for side in counted) <= 0.34 * math.prod(image.size)  # so two trees' cost at most
        assert last[0] <= image.height
        built.clear()
        processor("prune", max_tokens=max(round(share * full), 16)).cut(image)
        assert len(built) == 1


@pytest.mark.parametrize("fit", FITS)
def test_too_long_and_thin_is_one_error(fit):
    strip = Image.new("RGB", (2000, 20))
    with pytest.raises(
        ValueError, match=r"image: got 2000 x 20 pixels, 100 times as long as wide; max_tokens=50 takes at"
    ):
        processor(fit, max_tokens=50).count_tokens(strip)
    assert processor(fit, max_tokens=142).count_tokens(strip) == [142]


def test_a_picture_too_large_to_prepare_is_scaled_down(monkeypatch):
    monkeypatch.setattr(module, "MAX_PREPARED", 400 * 300)
    image = picture(640, 480)
    for asked in (processor(max_tokens=200), processor("scale", max_tokens=200), processor(size=480, max_tokens=200)):
        assert 198 <= asked.count_tokens(image)[0] <= 200
        assert math.prod(asked.prepare(image).shape[1:]) <= 400 * 300
    assert math.prod(processor(criterion="uniform").prepare(image).shape[1:]) <= 400 * 300
    with pytest.raises(ValueError, match=r"size=480 makes 640 x 480; takes at most 120,000 pixels .* or max_tokens"):
        processor(size=480).prepare(image)


def test_sizes_fall_by_a_patch_of_the_longer_side():
    sizes = shortest_edges(300, 2.0, 14)
    assert sizes[0] == 300
    assert sizes == sorted(set(sizes), reverse=True)
    assert {int(size * 2) // 14 for size in sizes} == set(range(2, 43))


@given(power=st.floats(0.3, 2), factor=st.floats(0.001, 0.02), budget=st.integers(16, 5000))
def test_a_power_law_is_found_exactly(power, factor, budget):
    def leaves(size: float) -> float:
        return factor * size**power * 100

    sizes = counted_at(1000, 14, lambda size: (math.ceil(leaves(size)), 1), budget)
    found = size_of_tree(leaves, sizes, budget)
    assert leaves(found) == pytest.approx(max(budget, leaves(sizes[0])), rel=1e-6)


def test_counting_starts_where_the_whole_grid_fits():
    sizes = counted_at(1000, 14, lambda size: (size // 10, size // 10), 100)
    assert sizes == [62, 125, 250, 500]
    counts = dict(zip(sizes, [50, 90, 90, 90], strict=True))
    assert size_of_tree(counts.__getitem__, sizes, 100) == math.inf  # it does not grow
