"""Pictures of every kind, and the preprocessing of a picture against Hugging Face's."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from qlip import QlipImageProcessor, Quadtree
from qlip.images.read import centre_crop, read_image, to_rgb

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
ORIENTATIONS = {  # EXIF tag -> what a camera did to the upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


def grey_as_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(GREY), grey_as_rgb(GREY)),
        (Image.fromarray(GREY > 127), grey_as_rgb((GREY > 127).astype(np.uint8) * 255)),
        (RGB, RGB),
        (GREY, grey_as_rgb(GREY)),
        (GREY[..., None], grey_as_rgb(GREY)),
        (GREY.astype(np.uint16) * 257, grey_as_rgb(GREY)),
        (RGB.astype(np.uint16) * 257, RGB),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float32), RGB),
        (GREY.astype(np.float32) / 255, grey_as_rgb(GREY)),
        ((GREY - 0.4).clip(0, 255) / 255, grey_as_rgb(GREY)),
        (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1) / 255, RGB),
        ((torch.from_numpy(RGB).permute(2, 0, 1) / 255).requires_grad_(), RGB),
        (torch.from_numpy(GREY)[None], grey_as_rgb(GREY)),
    ],
)
def test_values_survive(image, expected):
    np.testing.assert_array_equal(pixels(to_rgb(image)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_tensors_keep_their_precision(dtype):
    got = pixels(to_rgb((torch.from_numpy(RGB).permute(2, 0, 1) / 255).to(dtype)))
    assert np.abs(got.astype(int) - RGB).max() <= 1


@pytest.mark.parametrize("as_array", [False, True])
def test_transparency_lies_over_white(as_array):
    alpha = np.array([[0, 128, 255]], dtype=np.uint8)
    rgba = np.concatenate([np.full((1, 3, 3), 100, dtype=np.uint8), alpha[..., None]], axis=-1)
    got = pixels(to_rgb(rgba if as_array else Image.fromarray(rgba)))
    assert got[0, :, 0].tolist() == [255, round(100 * 128 / 255 + 255 * 127 / 255), 100]


def test_grey_with_alpha():
    image = Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (30, 20), 0)])
    assert (pixels(to_rgb(image)) == 255).all()


def test_palettes_with_and_without_a_transparent_colour(tmp_path):
    colours = np.array([[10, 20, 30], [200, 100, 50], [0, 0, 0]], dtype=np.uint8)
    index = RNG.integers(0, 3, (6, 8), dtype=np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putdata(index.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    np.testing.assert_array_equal(pixels(to_rgb(image)), colours[index])
    image.save(tmp_path / "image.png", transparency=2)
    expected = colours.copy()
    expected[2] = 255
    np.testing.assert_array_equal(pixels(to_rgb(tmp_path / "image.png")), expected[index])


def test_cmyk():
    cyan = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    assert pixels(to_rgb(cyan))[0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied(tmp_path, orientation):
    stored = Image.fromarray(np.ascontiguousarray(ORIENTATIONS[orientation](RGB)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(pixels(read_image(tmp_path / "image.png")), RGB)


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_sixteen_bit_grey_is_scaled_and_not_cut_off(tmp_path, name):
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    got = pixels(to_rgb(str(tmp_path / name)))
    assert np.abs(got[..., 0].astype(float) - values / 257).max() <= 1
    assert got[-1, -1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
@pytest.mark.parametrize(("top", "scale"), [(200, 1), (65535, 257)])
def test_wide_modes_of_either_range(mode, top, scale):
    values = np.linspace(0, top, 600).reshape(20, 30).astype(np.int32)
    got = pixels(to_rgb(Image.fromarray(values).convert(mode)))
    assert np.abs(got[..., 0].astype(float) - values / scale).max() <= 1


def test_a_broken_file_is_an_os_error(tmp_path):
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    Image.fromarray(RGB).save(whole)
    cut.write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "text.png").write_text("no image")
    for name in ("cut.png", "text.png", "missing.png"):
        with pytest.raises(OSError, match=r".+"):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (None, TypeError, "image: got NoneType; takes a PIL image, a path"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"got an array of shape \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, r"got an array of shape \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"got an array of shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), ValueError, "got an array of int64; takes uint8, uint16 or floats"),
        (np.full((4, 4), 1.5), ValueError, "got floats from 1.5 to 1.5; takes floats in"),
        (np.full((4, 4), -0.5), ValueError, "not normalised: qlip normalises"),
        (np.full((4, 4), np.nan), ValueError, "got floats from nan to nan"),
        (torch.zeros(2, 3, 4, 4), ValueError, "got an array of shape"),
    ],
)
def test_errors_say_what_is_taken(image, error, message):
    with pytest.raises(error, match=message):
        to_rgb(image)


def test_an_odd_margin_leaves_the_extra_pixel_at_the_end():
    np.testing.assert_array_equal(pixels(centre_crop(Image.fromarray(RGB), 17, 27)), RGB[1:18, 1:28])


@pytest.mark.parametrize("size", [336, 224])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
@pytest.mark.parametrize("upright", [False, True])
def test_square_crop_is_hugging_faces_preprocessing(name, size, upright):
    picture = getattr(skimage.data, name)()
    picture = np.ascontiguousarray(picture.transpose(1, 0, 2)) if upright else picture
    theirs = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    expected = theirs(Image.fromarray(picture), return_tensors="pt")["pixel_values"][0]
    got = QlipImageProcessor(size=size, crop="square").prepare(picture)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert got.is_contiguous()


@pytest.mark.parametrize(
    ("size", "crop", "shape"),
    [
        (336, "patch", (336, 448)),  # 336 x 459 after resizing
        (336, "square", (336, 336)),
        (None, "patch", (294, 406)),
        (None, "square", (294, 294)),
        (100, "patch", (98, 126)),  # 100 x 136
    ],
)
def test_sides_are_whole_patches_from_the_middle(size, crop, shape):
    picture = np.asarray(Image.fromarray(skimage.data.chelsea()).resize((410, 300)))
    processor = QlipImageProcessor(size, crop, Quadtree(criterion="uniform"))
    assert processor.prepare(picture).shape == (3, *shape)
    if size is None:
        top, left = (300 - shape[0]) // 2, (410 - shape[1]) // 2
        expected = picture[top : top + shape[0], left : left + shape[1]]
        np.testing.assert_array_equal(pixels(processor.view(picture)), expected)


def test_images_of_any_kind_and_size_make_one_batch(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "image.png")
    processor = QlipImageProcessor(size=None, quadtree=Quadtree(0.3, patch_size=4))
    pictures = [RGB, str(tmp_path / "image.png"), torch.from_numpy(GREY)[None], Image.fromarray(RGB).resize((50, 40))]
    batch = processor(pictures)
    assert batch.patches.shape[2:] == (3, 4, 4)
    assert batch.num_tokens[0] == batch.num_tokens[1]
    for i, picture in enumerate(pictures):
        alone = processor(picture)
        assert torch.equal(alone.patches[0], batch.patches[i][batch.mask[i]])
        assert torch.equal(alone.coords[0], batch.coords[i][batch.mask[i]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: QlipImageProcessor(crop="centre"), "crop: got 'centre'; takes 'patch', 'square', 'units'"),
        (lambda: QlipImageProcessor(size=10), r"size: got 10; takes at least one patch \(14 pixels\), or None"),
        (lambda: QlipImageProcessor(None)(np.zeros((10, 50, 3), np.uint8)), "got 50 x 10 pixels, .* one patch of 14"),
        (lambda: QlipImageProcessor()([]), "takes at least one item"),
    ],
)
def test_processor_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_flat_tensor_is_grey_and_upright() -> None:
    grey = torch.arange(6, dtype=torch.uint8).view(2, 3)
    assert to_rgb(grey).size == (3, 2)
    assert to_rgb(grey).getpixel((2, 1)) == (5, 5, 5)
