"""What is computed in bands of rows is what is computed of the whole image, to the last bit, and makes no array of its size."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qlip import Leaves, Quadtree
from qlip.core import bands
from qlip.core.bands import BAND, band_rows
from qlip.core.criteria import CRITERIA, SUMMARIES
from qlip.images.resize import normalise

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
SHAPES = [(1, 1), (2, 9), (7, 4), (13, 21), (32, 5), (33, 17)]  # in patches


def pictures(height: int, width: int, count: int = 1) -> Tensor:
    """Smooth pictures with noise in places."""
    torch.manual_seed(0)
    smooth = F.interpolate(torch.randn(count, 3, 3, 3), (height, width), mode="bilinear")
    return smooth + torch.randn(count, 3, height, width) * (torch.rand(count, 1, height, width) < 0.01)


def fields(leaves: list[Leaves]) -> list[Tensor]:
    return [each.geometry() for each in leaves]


@pytest.fixture(params=[1, 3 * 8 * 40 * 6, BAND], ids=["thin", "some", "one"])
def band(request, monkeypatch):
    """Bands of a row, of some rows, and of all rows."""
    monkeypatch.setattr(bands, "BAND", request.param)


@pytest.mark.parametrize("criterion", SUMMARIES)
@pytest.mark.parametrize("p", [1, 2, 5, 8])
@pytest.mark.usefixtures("band")
def test_bands_are_summed_up_as_the_whole(criterion, p):
    for h, w in SHAPES:
        images = pictures(h * p, w * p, count=2)
        assert torch.equal(SUMMARIES[criterion](images, p), SUMMARIES[criterion].of(images, p))


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.usefixtures("band")
def test_trees_are_those_of_the_whole(monkeypatch, criterion, dtype):
    for h, w in SHAPES:
        images = pictures(h * 5, w * 5, count=2).to(dtype)
        for tree in (
            Quadtree(0.4, criterion, patch_size=5),
            Quadtree(criterion=criterion, max_tokens=h * w, patch_size=5),
        ):
            torch.manual_seed(1)
            got = fields(tree.batch(images))
            with monkeypatch.context() as whole:
                whole.setattr(bands, "BAND", BAND)
                torch.manual_seed(1)
                expected = fields(tree.batch(images.float()))
            assert all(map(torch.equal, got, expected))


@pytest.mark.usefixtures("band")
@pytest.mark.parametrize("shape", [(1, 1), (20, 31), (300, 40)])
def test_pixels_are_normalised_by_the_formula(shape):
    pixels = torch.randint(256, (*shape, 3), dtype=torch.uint8).permute(2, 0, 1)
    floats = normalise(pixels, MEAN, STD)
    shift, scale = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (MEAN, STD))
    torch.testing.assert_close(floats.double(), (pixels.double() / 255 - shift) / scale, rtol=0, atol=2e-6)
    shift, scale = (torch.tensor(x)[:, None, None] * 255 for x in (MEAN, STD))
    assert torch.equal(floats, (pixels.float() - shift) / scale)
    assert floats.is_contiguous()


class Largest(TorchDispatchMode):
    """Remembers how many bytes the largest array has that any operation takes memory for."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if torch.is_tensor(out) and not any(torch.is_tensor(x) and x.data_ptr() == out.data_ptr() for x in args):
            self.bytes = max(self.bytes, out.numel() * out.itemsize)
        return out


@pytest.mark.parametrize("criterion", SUMMARIES)
@pytest.mark.parametrize("options", [{"alpha": 0.4}, {"max_tokens": 200}])
def test_scores_take_no_array_as_large_as_the_image(monkeypatch, criterion, options):
    image = pictures(8 * 200, 8 * 40)
    monkeypatch.setattr(bands, "BAND", image.numel() // 50)
    with Largest() as seen:
        Quadtree(criterion=criterion, patch_size=8, **options).batch(image)
    assert seen.bytes < 4 * image.numel() // 4


def test_a_band_holds_as_many_rows_as_memory_says():
    anywhere_else = torch.empty(1, 3, 1400, 1000, device="meta")
    assert band_rows(anywhere_else, 14) == 100  # all of them
    assert band_rows(torch.empty(3, 1400, 1000), 14) == BAND // (3 * 1000 * 14)
    assert band_rows(torch.empty(3, 14, 10**6), 14) == 1
