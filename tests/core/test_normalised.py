"""Pictures of bytes give the trees and patches of their floats, to the last bit, and are never all floats at once."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qlip import Leaves, Quadtree, patchify
from qlip.core import normalised
from qlip.core.criteria import CRITERIA, SUMMARIES
from qlip.core.normalised import BAND, Normalised, band_rows

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
SHAPES = [(1, 1), (2, 9), (7, 4), (13, 21), (32, 5), (33, 17)]  # in patches


def pictures(height: int, width: int, count: int = 1, seed: int = 0) -> Normalised:
    """Smooth pictures with noise in places, in bytes."""
    torch.manual_seed(seed)
    smooth = torch.nn.functional.interpolate(torch.rand(count, 3, 3, 3), (height, width), mode="bilinear") * 200
    noise = torch.randn(count, 3, height, width) * 25 * (torch.rand(count, 1, height, width) < 0.01)
    return Normalised((smooth + noise).clamp(0, 255).byte(), MEAN, STD)


def fields(leaves: list[Leaves]) -> list[Tensor]:
    return [each.geometry() for each in leaves]


@pytest.fixture(params=[1, 3 * 8 * 40 * 6, BAND], ids=["thin", "some", "one"])
def band(request, monkeypatch):
    """Bands of a row, of some rows, and of all rows."""
    monkeypatch.setattr(normalised, "BAND", request.param)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("cover", ["full", "roots"])
@pytest.mark.parametrize("p", [2, 5])
@pytest.mark.usefixtures("band")
def test_trees_equal_those_of_the_floats_in_one_piece(monkeypatch, criterion, cover, p):
    for h, w in SHAPES:
        images = pictures(h * p, w * p, count=2)
        for tree in (
            Quadtree(0.4, criterion, None, p, cover),
            Quadtree(criterion=criterion, max_tokens=h * w, patch_size=p),
        ):
            torch.manual_seed(1)
            got = fields(tree.batch(images))
            with monkeypatch.context() as whole:
                whole.setattr(normalised, "BAND", BAND)
                torch.manual_seed(1)
                expected = fields(tree.batch(images.float()))
            assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize("criterion", SUMMARIES)
@pytest.mark.parametrize("p", [1, 2, 5, 8])
@pytest.mark.usefixtures("band")
def test_bands_are_summed_up_as_the_whole(criterion, p):
    for h, w in SHAPES:
        images = pictures(h * p, w * p, count=2)
        assert torch.equal(SUMMARIES[criterion](images, p), SUMMARIES[criterion].of(images.float(), p))


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("cover", ["full", "roots"])
@pytest.mark.usefixtures("band")
def test_patches_equal_those_of_the_floats_in_one_piece(cover, unit):
    for h, w in [(2, 9), (13, 21), (32, 5), (34, 18)]:
        for alpha in (0.0, 0.4, 10.0):
            image = pictures(h * 8, w * 8)[0]
            leaves = Quadtree(alpha, patch_size=8, cover=cover)(image).parts(unit)
            assert torch.equal(patchify(image, leaves), patchify(image.float(), leaves))


def test_floats_are_those_of_the_formula():
    image = pictures(20, 30)
    shift, scale = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)
    expected = (image.pixels.double() / 255 - shift[:, None, None]) / scale[:, None, None]
    torch.testing.assert_close(image.float().double(), expected, rtol=0, atol=2e-6)
    assert image.float().is_contiguous()
    assert torch.equal(image[0, :, 3:7].float(), image.float()[0, :, 3:7])


class Largest(TorchDispatchMode):
    """Remembers how many elements the largest float tensor has that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if torch.is_tensor(tensor) and tensor.is_floating_point():
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // 4)
        return out


@pytest.mark.parametrize("criterion", SUMMARIES)
@pytest.mark.parametrize("options", [{"alpha": 0.4}, {"max_tokens": 200}])
def test_no_floats_of_a_whole_picture_are_made(monkeypatch, criterion, options):
    image = Normalised(torch.zeros(3, 8 * 200, 8 * 40, dtype=torch.uint8), MEAN, STD)
    image.pixels[:, 700:800, :90] = torch.randint(256, (3, 100, 90))
    monkeypatch.setattr(normalised, "BAND", image.pixels.numel() // 50)
    tree = Quadtree(criterion=criterion, patch_size=8, **options)
    with Largest() as seen:
        leaves = tree(image)
        patches = patchify(image, leaves)
    assert len(leaves) < 1000
    most = max(patches.numel(), int(leaves.size.max()) * 8 * 3 * 8 * 40)
    assert seen.elements <= max(most, image.pixels.numel() // 4)


def test_a_band_holds_as_many_rows_as_memory_says():
    assert (
        band_rows(torch.empty(1, 3, 1400, 1000, device="meta"), 14) == 100
    )  # all of them where there is no cache to keep to
    assert band_rows(torch.empty(3, 1400, 1000), 14) == BAND // (3 * 1000 * 14)
    assert band_rows(torch.empty(3, 14, 10**6), 14) == 1


def test_small_pictures_are_made_floats_once(monkeypatch):
    image = pictures(20, 30)[0]
    assert torch.equal(image.ready(), image.float())
    monkeypatch.setattr(normalised, "WHOLE", image.pixels.numel() - 1)
    assert image.ready() is image
