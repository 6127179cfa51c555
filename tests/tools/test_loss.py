"""Measures of loss, each against what it says of pictures whose answer is known."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from skimage.filters import gaussian

from qlip.tools.loss import can_read, downscale, edges_kept, fine_edges, grey, similarity, words, words_kept


def picture(seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_plain_downscaling_keeps_as_many_pixels_as_it_is_given():
    image = picture()
    assert downscale(image, 48 * 64) is image
    for part in (2, 4):
        small = image.resize((64 // part, 48 // part), Image.Resampling.BICUBIC)
        expected = small.resize(image.size, Image.Resampling.BICUBIC)
        assert np.array_equal(np.asarray(downscale(image, 48 * 64 // part**2)), np.asarray(expected))


def test_nothing_lost_is_one_and_more_blur_is_less():
    original = grey(picture())
    edges = fine_edges(original)
    blurred = [gaussian(original, sigma).astype(np.float32) for sigma in (0.4, 0.8, 3)]
    similar = [similarity(original, other) for other in (original, *blurred)]
    kept = [edges_kept(edges, other) for other in (original, *blurred)]
    assert similar[0] == kept[0] == 1
    assert similar == sorted(similar, reverse=True)
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < 0.1


def test_a_blur_loses_narrow_edges_and_keeps_wide_ones():
    narrow, wide = np.zeros((40, 60), np.float32), np.zeros((40, 60), np.float32)
    narrow[:, 30] = 1
    wide[:] = np.clip((np.arange(60) - 26) / 8, 0, 1)
    for image, expected in ((narrow, 0.0), (wide, 1.0)):
        assert edges_kept(fine_edges(image), gaussian(image, 2)) == expected


def test_a_flat_picture_has_no_edges_to_keep():
    flat = np.full((20, 20), 0.5, np.float32)
    assert edges_kept(fine_edges(flat), flat) is None


@pytest.mark.skipif(not can_read(), reason="tesseract is not installed")
def test_words_are_read_and_lost_with_the_detail():
    page = Image.new("RGB", (640, 120), "white")
    ImageDraw.Draw(page).text(
        (20, 40), "several words under the river mountain", fill="black", font=ImageFont.load_default(28)
    )
    found = words(page)
    assert found.keys() >= {"several", "words", "under", "river", "mountain"}
    assert words_kept(found, words(page)) == 1
    assert words_kept(found, words(downscale(page, 300))) == 0
    assert words_kept(words(Image.new("RGB", (200, 100), "white")), found) is None


def test_words_are_counted_as_often_as_they_stand():
    from collections import Counter

    assert words_kept(Counter(river=3, sea=1), Counter(river=1, sea=2, lake=9)) == 0.5
