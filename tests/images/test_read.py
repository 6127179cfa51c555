"""Pictures of every kind, and the preprocessing of a picture against Hugging Face's."""

import os
import re
import struct
import warnings
import zlib
from pathlib import Path
from random import Random

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPImageProcessorPil
from transformers.image_utils import OPENAI_CLIP_STD

from qlip import QlipImageProcessor, Quadtree
from qlip.images.read import read_image, read_size, to_pixels, to_rgb
from qlip.images.resize import centre_crop

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


def test_the_wide_mode_of_integers_holds_sixteen_bits() -> None:
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.int32)
    np.testing.assert_array_equal(pixels(to_rgb(Image.fromarray(values)))[..., 0], values // 257)


def test_the_wide_mode_of_floats_is_an_array_of_floats() -> None:
    np.testing.assert_array_equal(pixels(to_rgb(Image.fromarray((GREY / 255).astype(np.float32)))), grey_as_rgb(GREY))


@pytest.mark.parametrize("top", [1, 255, 256, 65535])
def test_a_dim_picture_of_sixteen_bits_stays_dim(tmp_path, top):
    values = (RNG.random((20, 30)) * top).astype(np.uint16)
    for name in ("dim.png", "dim.tif", "dim.pgm"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(pixels(read_image(tmp_path / name)), grey_as_rgb(values // 257))


def test_the_transparent_grey_of_sixteen_bits_is_white(tmp_path):
    values = np.array([[7000, 7001, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "image.png", transparency=7001)
    assert pixels(read_image(tmp_path / "image.png"))[0, :, 0].tolist() == [27, 255, 255]


def test_a_file_that_is_no_whole_picture_is_an_os_error_that_names_it(tmp_path):
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    Image.fromarray(RGB).save(whole)
    cut.write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    names = ["cut", "text", "empty", "dangling", "circle", "folder", "pipe", "missing"]
    for path in [*(tmp_path / f"{name}.png" for name in names), Path("/dev/zero"), Path("nul\0")]:
        for read in (read_image, to_rgb, read_size):
            if path.stem == "cut" and read is read_size:
                continue
            with pytest.raises(OSError, match=f"^image: {re.escape(str(path))} cannot be read as a picture: .+"):
                read(path)


def test_only_formats_of_pixels_are_read(tmp_path, monkeypatch):
    """Pillow hands PostScript to Ghostscript."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("started a program"))
    Image.fromarray(RGB).save(tmp_path / "image.png", "EPS")
    with pytest.raises(OSError, match="of no format that is read"):
        read_image(tmp_path / "image.png")


def header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\0\0\0\0IDAT"


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (201, 1), (1, 3000), (11586, 11586), (0, 5)])
def test_the_size_is_checked_before_anything_is_decoded(tmp_path, width, height):
    (tmp_path / "image.png").write_bytes(header(width, height))
    for picture in (tmp_path / "image.png", header(width, height)):
        with pytest.raises(OSError, match="takes at most 134,217,728 pixels" if height - 5 else "."):
            to_rgb(picture)


@pytest.mark.parametrize("kind", [Image.fromarray, np.asarray, torch.from_numpy])
def test_pictures_in_memory_have_the_same_limits(kind):
    to_rgb(kind(np.zeros((1, 200), np.uint8)))
    with pytest.raises(ValueError, match="got 201 x 1 pixels; takes at most 134,217,728 pixels, and at most 200 times"):
        to_rgb(kind(np.zeros((1, 201), np.uint8)))


def in_every_way(picture: Image.Image, folder: Path) -> dict[str, object]:
    """One picture without loss by path, as bytes, opened and not decoded, decoded, and as array and tensor where they can say
    the same."""
    path = folder / "image.png"
    if picture.mode in ("CMYK", "F"):
        path = path.with_suffix(".tif")
    picture.save(path)
    ways: dict[str, object] = {"path": path, "text": str(path), "bytes": path.read_bytes(), "opened": Image.open(path)}
    if "transparency" not in picture.info:
        ways["decoded"] = picture
    if picture.mode in ("1", "L", "RGB", "RGBA", "I;16", "F") and "transparency" not in picture.info:
        values = np.asarray(picture)
        ways["array"] = values
        ways["tensor"] = torch.from_numpy(
            values.copy() if values.ndim == 2 else np.ascontiguousarray(np.moveaxis(values, -1, 0))
        )
        if values.ndim == 3:
            ways |= {
                "array, channels first": np.moveaxis(values, -1, 0),
                "tensor, channels last": torch.from_numpy(values.copy()),
            }
    return ways


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("seed", range(6))
def test_a_picture_is_the_same_however_it_is_handed_over(tmp_path, mode, seed):
    random = np.random.default_rng(seed)
    height, width = random.integers(5, 40, 2)
    values = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(random.integers(0, [300, 65536][seed % 2], (height, width), dtype=np.uint16))
    elif mode == "F":
        picture = Image.fromarray(random.random((height, width), dtype=np.float32))
    else:
        picture = Image.fromarray(values).convert(mode)
    results = {name: pixels(to_rgb(way)) for name, way in in_every_way(picture, tmp_path).items()}
    for name, result in results.items():
        np.testing.assert_array_equal(result, results["path"], err_msg=name)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_is_applied_by_every_way(tmp_path, mode, orientation):
    upright = {"L": GREY, "RGB": RGB, "I;16": GREY.astype(np.uint16) * 257}[mode]
    turned = ORIENTATIONS[orientation](upright if upright.ndim == 3 else upright[..., None])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turned if mode == "RGB" else turned[..., 0])).save(
        tmp_path / "image.png", exif=exif
    )
    for way in (tmp_path / "image.png", (tmp_path / "image.png").read_bytes(), Image.open(tmp_path / "image.png")):
        read = to_rgb(way)
        np.testing.assert_array_equal(pixels(read), RGB if mode == "RGB" else grey_as_rgb(GREY))
        assert to_rgb(read) is read  # not turned a second time, nor copied
    assert read_size(tmp_path / "image.png") == read_size((tmp_path / "image.png").read_bytes()) == (30, 20)


def test_colour_of_sixteen_bits_is_what_pillow_makes_of_the_file(tmp_path):
    values = RNG.integers(0, 65536, (6, 8, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    np.testing.assert_array_equal(pixels(to_rgb(b"\x89PNG\r\n\x1a\n" + body)), pixels(to_rgb(values)))


@pytest.mark.parametrize("seed", range(300))
def test_damaged_files_are_read_or_are_one_os_error(seed, tmp_path):
    """Bytes of files with EXIF are changed at random; the EXIF block of a JPEG raises half a dozen kinds of errors."""
    random, exif = Random(seed), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    kind = ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"][seed % 6]
    Image.fromarray(RGB).save(tmp_path / "image", kind, **({} if kind in ("GIF", "BMP") else {"exif": exif}))
    data = bytearray((tmp_path / "image").read_bytes())
    for _ in range(random.choice([1, 3, 10])):
        data[random.randrange(min(len(data), 200))] = random.randrange(256)
    (tmp_path / "image").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert to_rgb(tmp_path / "image").mode == "RGB"
        except OSError as error:
            assert str(tmp_path / "image") in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (None, TypeError, "image: got NoneType; takes a PIL image, a path"),
        (np.zeros((5, 4, 2), np.uint8), ValueError, r"got an array of shape \(5, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, r"got an array of shape \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"got an array of shape \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), ValueError, "got an array of int64; takes uint8, uint16, booleans or floats"),
        (np.full((4, 4), 1.5), ValueError, "got floats from 1.5 to 1.5; takes floats in"),
        (np.full((4, 4), -0.5), ValueError, "not normalised: qlip normalises"),
        (np.full((4, 4), np.nan), ValueError, "got floats from nan to nan.*every value finite"),
        (np.full((4, 4), np.inf), ValueError, "got floats from inf to inf.*every value finite"),
        (
            RGB.astype(np.float32),
            ValueError,
            "got floats from 0 to 255.*for values in 0..255, do_rescale=True of a converted processor",
        ),
        (Image.fromarray(GREY).convert("F"), ValueError, "got floats from 0 to 255"),
        (
            Image.fromarray(GREY).convert("I"),
            ValueError,
            "mode I with values from 0 to 255, which may be of any number",
        ),
        (np.zeros((4, 4, 3), object), ValueError, "got an array of object"),
        (torch.zeros(2, 3, 4, 4), ValueError, "got an array of shape"),
    ],
)
def test_errors_say_what_is_taken(image, error, message):
    with pytest.raises(error, match=message):
        to_rgb(image)


def test_a_tensor_without_values_is_refused():
    for tensor in (torch.zeros(3, 4, 4, device="meta"), torch.zeros(3, 4, 4).to_sparse()):
        with pytest.raises(ValueError, match="without readable values"):
            to_rgb(tensor)


def test_an_odd_margin_leaves_the_extra_pixel_at_the_end():
    np.testing.assert_array_equal(pixels(to_rgb(centre_crop(to_pixels(RGB), 17, 27))), RGB[1:18, 1:28])


@pytest.mark.parametrize("size", [336, 224])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
@pytest.mark.parametrize("upright", [False, True])
def test_square_crop_is_hugging_faces_preprocessing(name, size, upright):
    picture = getattr(skimage.data, name)()
    picture = np.ascontiguousarray(picture.transpose(1, 0, 2)) if upright else picture
    got = QlipImageProcessor(size=size, crop="square").prepare(picture)
    assert got.is_contiguous()
    options = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    expected, by_pil = (
        kind(**options)(Image.fromarray(picture), return_tensors="pt")["pixel_values"][0]
        for kind in (CLIPImageProcessor, CLIPImageProcessorPil)
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    levels = (got - by_pil).abs() * 255 * torch.tensor(OPENAI_CLIP_STD).view(3, 1, 1)
    assert levels.max() < 2.01  # their own two differ by so much: PIL rounds its weights more finely
    assert (levels > 1.01).float().mean() < 1e-5


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
        (
            lambda: QlipImageProcessor(10**5)(RGB),
            r"got 30 x 20 pixels, which size=100000 makes .* at most 16,777,216 pixels",
        ),
        (
            lambda: QlipImageProcessor(pad="square")(np.zeros((100, 12_000), np.uint8)),
            "got 12000 x 12000 pixels; takes at most",
        ),
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


@pytest.mark.parametrize(("height", "width", "shape"), [(10, 50, (14, 70)), (3, 3, (14, 14)), (1, 200, (14, 2800))])
@pytest.mark.parametrize("crop", ["patch", "units"])
def test_a_picture_smaller_than_a_patch_is_enlarged_to_one(height, width, shape, crop):
    processor = QlipImageProcessor(None, crop)
    assert processor.prepare(np.zeros((height, width, 3), np.uint8)).shape == (3, *shape)
    assert processor.count_tokens(np.zeros((height, width, 3), np.uint8)) == [shape[1] // 14]


def test_an_array_that_runs_backwards_is_taken():
    values = np.arange(2 * 11 * 3, dtype=np.uint8).reshape(2, 11, 3)
    for backwards in (values[::-1], values[:1][::-1], values[:, ::-1], values[:, :1][:, ::-1]):
        assert np.array_equal(to_pixels(backwards).permute(1, 2, 0).numpy(), backwards)
