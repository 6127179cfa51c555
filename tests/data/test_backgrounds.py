"""Backgrounds: never a photograph that was trained on, never a blur, and textures with a photograph's statistics."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from qlip.data.backgrounds import TEST, TRAIN, cut_background, cut_backgrounds, dead_leaves
from qlip.images.read import read_image

NO_SCENES = ("retina", "ihc", "hubble", "phantom", "page", "text", "logo", "color", "chessboard", "cell", "horse")


def ramp(height: int, width: int) -> Image.Image:
    """A picture whose red and green tell the place: they rise by 1 a pixel from left to right and from top to bottom."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


def test_training_and_testing_share_no_photograph():
    def pictures(files):  # the two motorcycles are one scene, seen with two eyes
        return {file.stem.removesuffix("_left").removesuffix("_right") for file in files}

    assert all(file.is_file() for file in (*TRAIN, *TEST)), "scikit-image's wheel ships them"
    assert not pictures(TRAIN) & pictures(TEST)
    assert not [file for file in TEST if file.stem.startswith(NO_SCENES)]
    assert sum(np.ptp(np.asarray(read_image(file)), axis=-1).any() for file in TEST) >= 4, "most have colour"


@pytest.mark.parametrize(("height", "width"), [(40, 60), (90, 120), (300, 150), (448, 896)])
def test_a_cut_out_fills_the_background_and_is_never_enlarged_more_than_one_and_a_half_times(height, width):
    mirrored = set()
    for seed in range(20):
        cut = np.asarray(cut_background(ramp(100, 200), height, width, Random(seed))).astype(int)
        assert cut.shape == (height, width, 3)
        step = np.median(np.abs(np.diff(cut[:, :, 0], axis=1)).reshape(height, -1)[:, : width // 2].mean(1))
        assert 1 / step <= 1.55
        mirrored.add(bool(cut[0, 5, 0] < cut[0, 0, 0]))
    if (height, width) == (40, 60):
        assert mirrored == {True, False}


def test_where_the_photograph_ends_its_reflection_begins():
    cut = np.asarray(cut_background(ramp(100, 100), 150, 400, Random(3))).astype(int)
    jumps = np.abs(np.diff(cut[:, :, 0], axis=1))
    assert jumps.max() <= 2, "a reflection has no seam"
    turns = np.diff(np.sign(np.diff(cut[75, :, 0])[np.diff(cut[75, :, 0]) != 0]))
    assert 2 <= np.count_nonzero(turns) <= 3


def test_cut_outs_follow_from_the_seed_and_differ_among_themselves():
    pictures = [read_image(file) for file in TEST[:2]]
    one, same = (cut_backgrounds(pictures, 4, 48, 64, Random(7)) for _ in range(2))
    assert one.shape == (4, 3, 48, 64)
    assert one.dtype == torch.float32
    assert 0 <= one.min() < 0.2 < 0.8 < one.max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one[0], one[1])
    assert cut_backgrounds(pictures, 0, 48, 64, Random(7)).shape == (0, 3, 48, 64)


def fall(picture: Image.Image) -> float:
    """Slope of the power spectrum over frequency, both logarithmic."""
    grey = np.asarray(picture.convert("L"), float)
    edge = min(grey.shape)
    window = np.hanning(edge)
    power = np.abs(np.fft.fft2((grey[:edge, :edge] - grey.mean()) * np.outer(window, window))) ** 2
    axis = np.fft.fftfreq(edge)
    frequency = np.hypot(axis[:, None], axis)
    bands = np.geomspace(4 / edge, 0.3, 10)
    means = [power[(frequency >= low) & (frequency < high)].mean() for low, high in pairwise(bands)]
    return float(np.polyfit(np.log(np.sqrt(bands[1:] * bands[:-1])), np.log(means), 1)[0])


def test_dead_leaves_have_a_photographs_spectrum_and_follow_from_the_seed():
    generator = Generator().manual_seed(0)
    textures = [dead_leaves(160, generator) for _ in range(8)]
    assert -3.3 < np.mean([fall(texture) for texture in textures]) < -2
    assert -3.3 < np.mean([fall(read_image(file)) for file in TEST]) < -2, "photographs have it"
    assert all(np.asarray(texture).std() > 10 for texture in textures)
    again = dead_leaves(160, Generator().manual_seed(0))
    assert again.size == (160, 160)
    assert again.mode == "RGB"
    assert again.tobytes() == textures[0].tobytes() != textures[1].tobytes()
