"""What compiled loops find in bytes is what tensors find in floats: leaves to the last bit, patches to rounding."""

import sys
from dataclasses import replace

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from qlip import Leaves, QlipImageProcessor, Quadtree
from qlip.core import compiled
from qlip.core.criteria import CRITERIA
from qlip.core.patches import patchify
from qlip.images import eight_bit
from qlip.images.eight_bit import EightBitImage
from qlip.images.resize import normalise
from tests.operation_counters import Written

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SHAPES = [(1, 1), (1, 9), (2, 9), (3, 3), (7, 4), (13, 21), (33, 17), (40, 31)]  # in patches
COVERS = ("full", "roots")


def picture(kind: str, height: int, width: int) -> Tensor:
    """Pixels ``(3, H, W)`` uint8, channels last in memory."""
    draw = np.random.default_rng(0).integers
    pixels = {
        "noise": lambda: draw(0, 256, (height, width, 3)),
        "grain": lambda: 100 + draw(0, 3, (height, width, 3)),  # of few differences, so that most blocks are equal
        "cells": lambda: np.kron(draw(0, 256, (height // 9 + 1, width // 9 + 1, 3)), np.ones((9, 9, 1), int)),
        "ramp": lambda: np.arange(width)[None, :, None] // 3 + np.arange(height)[:, None, None] // 2 + np.zeros(3, int),
        "flat": lambda: np.full((height, width, 3), 200),
    }[kind]()[:height, :width]
    return torch.from_numpy(pixels.astype(np.uint8)).permute(2, 0, 1)


KINDS = ("noise", "grain", "cells", "ramp", "flat")


def assert_same_leaves(image: EightBitImage, tree: Quadtree) -> None:
    """Check that both ways find the same leaves, or say the same of what they cannot take."""

    def found(way):
        try:
            return way().geometry()
        except ValueError as error:
            return str(error)

    assert compiled.can_find(tree, image.pixels)
    got, expected = found(lambda: image.leaves(tree)), found(lambda: tree.batch(image.floats[None])[0])
    assert got == expected if isinstance(expected, str) else torch.equal(got, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [1, 2, 5, 14])
def test_leaves_are_those_of_tensors(kind, p):
    for h, w in SHAPES:
        image = EightBitImage(picture(kind, h * p, w * p), *CLIP)
        for cover in COVERS:
            for alpha in (0, 0.02, 0.3, 1.5, 9):
                assert_same_leaves(image, Quadtree(alpha, cover=cover, patch_size=p))
            for budget in (1, 5, 17, 64, 300, h * w):
                assert_same_leaves(image, Quadtree(max_tokens=budget, cover=cover, patch_size=p))


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_that_only_rounding_tells_apart_are_told_apart(kind):
    image = EightBitImage(picture(kind, 5 * 40, 5 * 31), *CLIP)
    tree = Quadtree(patch_size=5)
    reached = torch.cat([x.flatten() for x in tree._ranks(image.floats[None], tree.roots_of(200, 155))[-1]])
    for score in reached[reached.isfinite() & (reached >= 0)].unique()[::9].tolist():
        for alpha in (np.nextafter(np.float32(score), np.float32(way)) for way in (-np.inf, score, np.inf)):
            assert_same_leaves(image, replace(tree, alpha=max(float(alpha), 0.0)))
    for budget in range(61, 1240, 60):
        assert_same_leaves(image, replace(tree, max_tokens=budget))


@pytest.mark.parametrize(("mean", "std"), [((0.0, 0.5, 1.0), (1e-6, 1e3, 1.0)), ((-1e6, 1e6, 3.0), (1.0, 1e-6, 1e6))])
def test_any_normalisation_that_is_taken(mean, std):
    image = EightBitImage(picture("noise", 5 * 20, 5 * 31), mean, std)
    for tree in (Quadtree(0.3, patch_size=5), Quadtree(1e6, patch_size=5), Quadtree(max_tokens=100, patch_size=5)):
        assert_same_leaves(image, tree)


@pytest.mark.parametrize("p", [1, 2, 3, 14, 16])
@pytest.mark.parametrize("unit", [1, 2])
def test_patches_are_those_of_tensors(p, unit):
    for h, w in SHAPES[1:]:
        image = EightBitImage(picture("noise", h * p * unit, w * p * unit), *CLIP)
        for tree in (Quadtree(0, patch_size=p * unit), Quadtree(9, patch_size=p * unit)):
            leaves = tree.batch(image.floats[None])[0].parts(unit)
            torch.testing.assert_close(image.patches(leaves), patchify(image.floats, leaves), rtol=0, atol=1e-6)


def test_pixels_may_lie_anyhow_in_memory():
    whole = picture("noise", 150, 170)
    tree = Quadtree(0.3, patch_size=5)
    for pixels in (whole[:, 7:107, 11:121], whole[:, 7:107, 11:121].contiguous(), whole[:, ::2].flip(2)[:, :50, :50]):
        image = EightBitImage(pixels, *CLIP)
        assert_same_leaves(image, tree)
        leaves = image.leaves(tree)
        torch.testing.assert_close(image.patches(leaves), patchify(image.floats, leaves), rtol=0, atol=1e-6)


def test_leaves_of_another_image_are_refused_in_the_same_words():
    image = EightBitImage(picture("noise", 50, 50), *CLIP)
    leaves = Quadtree(0.3, patch_size=5).batch(torch.randn(1, 3, 40, 50))[0]
    for way in (lambda: image.patches(leaves), lambda: patchify(image.floats, leaves)):
        with pytest.raises(
            ValueError, match="leaves: got a grid of 8 x 10 patches for an image of 50 x 50 pixels; pass"
        ):
            way()


@pytest.mark.parametrize("leaf", [(4, 0, 1), (0, -1, 1), (3, 3, 2), (0, 0, 8), (0, 0, 3), (0, 0, 0)])
def test_leaves_outside_the_image_are_refused(leaf):
    image = EightBitImage(picture("noise", 56, 56), *CLIP)
    row, col, size = torch.tensor(leaf).split(1)
    with pytest.raises(ValueError, match=r"leaves: got some that are no squares .* inside a grid of 4 x 4; pass"):
        image.patches(Leaves(row, col, size, (4, 4)))


def test_numbers_of_numpy_normalise_as_those_of_python():
    image = EightBitImage(picture("grain", 280, 280), *map(np.array, CLIP))
    assert (image.mean, image.std) == CLIP
    assert_same_leaves(image, Quadtree(float(np.float32(2 / 255) / np.float32(CLIP[1][1]))))


def test_what_is_cut_off_is_not_kept():
    seen = QlipImageProcessor(112, crop="square").seen(picture("noise", 112, 2000))
    assert seen.pixels.untyped_storage().nbytes() == 3 * 112 * 112


PICTURES = [picture("noise", 90, 130), picture("cells", 210, 150)]
SETTINGS = [
    *({"alpha": 0.3, "criterion": criterion} for criterion in CRITERIA),
    {"max_tokens": 40},
    {"max_tokens": 40, "fit": "scale", "size": None},
    {"alpha": 0.3, "score": [torch.eye(4), None]},
]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_without_numba_a_processor_makes_the_same_batch(monkeypatch, options):
    processor = QlipImageProcessor(112, quadtree=Quadtree(patch_size=14), unit=2)
    with_numba = (torch.manual_seed(0), processor(PICTURES, **options))[1]
    monkeypatch.setitem(sys.modules, "qlip.core.kernels", None)
    monkeypatch.delattr("qlip.core.kernels")
    compiled.kernels.cache_clear()
    assert compiled.kernels() is None
    without = (torch.manual_seed(0), processor(PICTURES, **options))[1]
    compiled.kernels.cache_clear()
    assert torch.equal(with_numba.geometry, without.geometry)
    torch.testing.assert_close(with_numba.patches, without.patches, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"alpha": 0.3}, {"max_tokens": 100}, {"criterion": "random"}])
def test_bytes_never_become_floats_but_in_patches(monkeypatch, options):
    monkeypatch.setattr(eight_bit, "normalise", lambda *_: pytest.fail("floats were made"))
    image = QlipImageProcessor(280).seen(PICTURES[0])
    tree = Quadtree(**options)
    with Written() as seen:
        patches = image.patches(image.leaves(tree))
    assert seen.bytes < 4 * patches.numel() + image.pixels.numel() // 2  # and leaves


def test_flat_blocks_are_looked_at_once(monkeypatch):
    again = []
    monkeypatch.setattr(compiled.kernels(), "sum_up_exactly", lambda *_: again.append(1))
    page = picture("flat", 280, 280)
    page[:, 100:170, 30:200] = picture("noise", 70, 170)
    for tree in (Quadtree(0), Quadtree(0.3), Quadtree(max_tokens=300)):  # more than what is not flat
        EightBitImage(page, *CLIP).leaves(tree)
    assert not again


def test_no_block_is_looked_at_a_third_time(monkeypatch):
    loops, read = compiled.kernels(), []
    exact = loops.sum_up_exactly
    monkeypatch.setattr(loops, "sum_up_exactly", lambda summary, *rest: read.append(1) or exact(summary, *rest))
    EightBitImage(picture("ramp", 280, 280), *CLIP).leaves(Quadtree(max_tokens=300))
    assert read == [1]


def test_floats_are_made_once_where_they_are_read(monkeypatch):
    made = []
    monkeypatch.setattr(eight_bit, "normalise", lambda *args: made.append(1) or normalise(*args))
    monkeypatch.setattr(compiled, "kernels", lambda: None)
    image = QlipImageProcessor(280).seen(PICTURES[0])
    image.patches(image.leaves(Quadtree(0.3)))
    assert made == [1]


def test_a_file_system_that_cannot_be_written_to_is_no_obstacle(monkeypatch):
    def refuse(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    njit = numba.njit
    monkeypatch.setattr(numba, "njit", refuse)
    assert compiled.kernels().compiled(lambda x: x + 1)(2) == 3
