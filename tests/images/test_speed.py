"""What keeps the preprocessing fast and small, without a clock: copies of pixels, pictures held, faults of a worker."""

import ctypes
import gc
import io
import platform
import resource
import struct
import warnings
import weakref
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from qlip import PatchBatch, QlipImageProcessor, Quadtree
from qlip.core import compiled
from qlip.families.image_processor import LeafImageProcessor
from qlip.images import read
from qlip.images.eight_bit import EightBitImage
from qlip.images.read import open_picture, read_size, to_pixels
from qlip.images.worker import keep_memory
from tests.images.test_read import RGB
from tests.operation_counters import Written

PICTURE = np.random.default_rng(0).integers(0, 256, (700, 1000, 3), dtype=np.uint8)
PROCESSOR = QlipImageProcessor(224, quadtree=Quadtree(max_tokens=60))


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, kind)
    return file.getvalue()


def test_pixels_are_scaled_as_bytes_and_become_floats_once():
    with Written() as seen:
        prepared = PROCESSOR.prepare(PICTURE)
    assert seen.bytes < 5.5 * prepared.numel()  # a byte each when they are scaled, four when they are normalised


@pytest.mark.parametrize("cover", ["full", "roots"])
def test_a_tree_makes_one_copy_of_the_pixels(cover):
    image = torch.randn(1, 3, 14 * 17, 14 * 30)  # no whole number of roots
    tree = Quadtree(0.3, cover=cover)
    tree.batch(image)
    with Written() as seen:
        tree.batch(image)
    assert seen.bytes < 1.7 * 4 * image.numel()  # differences, the largest of the channels, and summaries


def test_a_batch_is_put_together_by_one_copy():
    items = [PatchBatch.from_image(torch.randn(3, 140, 140), Quadtree(0.3)(torch.randn(3, 140, 140))) for _ in range(8)]
    with Written() as seen:
        patches = PatchBatch.collate(items).patches
    assert seen.bytes < 1.1 * 4 * patches.numel()


def test_a_jpeg_is_not_decoded_by_pil(monkeypatch):
    data = encoded("JPEG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded by PIL"))
    assert to_pixels(data).stride() == (1, 3000, 3)
    assert to_pixels(Image.open(io.BytesIO(data))).stride() == (1, 3000, 3)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_a_jpeg_has_the_pixels_that_pil_decodes(mode, options):
    file = io.BytesIO()
    Image.fromarray(PICTURE).convert(mode).resize((333, 217)).save(file, "JPEG", **options)
    with Image.open(file) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(to_pixels(file.getvalue()).permute(1, 2, 0), expected)


@pytest.mark.parametrize("left", [0.2, 0.9, 0.999])
def test_a_jpeg_that_is_cut_short_is_an_os_error_that_names_it(tmp_path, left):
    data = encoded("JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(left * len(data))])
    for picture in (path, open_picture(path), Image.open(path)):
        with pytest.raises(OSError, match=r"cut\.jpg cannot be read as a picture: .+"):
            to_pixels(picture)
    with pytest.raises(OSError, match=f"image: {path.stat().st_size} bytes cannot be read as a picture: .+"):
        to_pixels(path.read_bytes())


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("way", ["path", "bytes", "opened"])
@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("processor", [PROCESSOR, QlipImageProcessor(None)], ids=["scaled", "at its own size"])
def test_one_decoded_picture_is_held_at_a_time(tmp_path, monkeypatch, kind, way, loops, processor):
    if not loops:
        monkeypatch.setattr(compiled, "kernels", lambda: None)
    alive, most, decode = weakref.WeakSet[np.ndarray](), [], read._decode

    class Tracked(np.ndarray):
        __hash__ = object.__hash__

    def tracked(*args: object) -> np.ndarray:
        most.append(len(alive))
        pixels = decode(*args).view(Tracked)
        alive.add(pixels)
        return pixels

    monkeypatch.setattr(read, "_decode", tracked)
    path: Path = tmp_path / "picture"
    path.write_bytes(encoded(kind))
    pictures = [
        {"path": lambda: path, "bytes": path.read_bytes, "opened": lambda: Image.open(path)}[way]() for _ in range(4)
    ]
    gc.disable()
    try:
        processor(pictures)
        LeafImageProcessor(processor).preprocess(pictures)
    finally:
        gc.enable()
    assert most == [0] * 8
    if way == "opened":
        assert all(picture.tile for picture in pictures)  # PIL would hold the pixels of each from here on


@pytest.mark.parametrize("fit", ["prune", "scale"])
def test_counting_tokens_resamples_no_leaf(monkeypatch, fit):
    monkeypatch.setattr(EightBitImage, "patches", lambda *_: pytest.fail("patches were cut"))
    assert LeafImageProcessor(PROCESSOR).count_tokens(PICTURE, fit=fit)[0] <= 60


def bitmap(width: int, height: int) -> bytes:
    """The header of a BMP file."""
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("warned", ["error", "always"])
def test_a_hundred_million_pixels_are_taken_without_a_warning(warned):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter(warned)
        assert read_size(bitmap(11_548, 8_660)) == (11_548, 8_660)
        with pytest.raises(OSError, match="takes at most 134,217,728 pixels"):
            read_size(bitmap(12_000, 12_000))
    assert not seen


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "CMYK", "I", "F"])
def test_odd_modes_are_converted_in_strips(monkeypatch, mode):
    wide = np.tile(RGB, (1, 10, 1))
    grey = wide[..., 0]
    values = {"I;16": grey * np.uint16(257), "I": grey * np.int32(257), "F": (grey / 255).astype(np.float32)}
    picture = Image.fromarray(values[mode]) if mode in values else Image.fromarray(wide).convert(mode)
    whole = to_pixels(picture)
    monkeypatch.setattr(read, "_STRIP", 70)
    sizes, crop = [], Image.Image.crop
    monkeypatch.setattr(Image.Image, "crop", lambda self, box: sizes.append(box[3] - box[1]) or crop(self, box))
    assert torch.equal(to_pixels(picture), whole)
    assert sizes == [1] * 20  # strips that are longer and thinner than any picture may be


def faults() -> int:
    """Page faults of the last of some batches of pictures."""
    taken = 0
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        QlipImageProcessor(672, quadtree=Quadtree(0.3))([PICTURE] * 8)
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return taken


class OldLibrary:
    """glibc's mallopt before 2.35, and what it has been told."""

    def __init__(self):
        self.told = {}

    def mallopt(self, option, value):
        taken = option != -3 or value <= 2**25
        self.told |= {option: value} if taken else {}
        return int(taken)


def test_an_old_library_is_told_the_largest_that_it_takes(monkeypatch):
    library = OldLibrary()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.28"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_memory()
    assert library.told == {-3: 2**25, -1: 2**31 - 1}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nothing is set elsewhere")
def test_a_worker_keeps_the_memory_of_its_batches():
    with get_context("spawn").Pool(
        1
    ) as pool:  # a fork would have the memory and the thresholds that its parent has come to
        by_default = pool.apply(faults)
        pool.apply(keep_memory)
        assert pool.apply(faults) < 0.5 * by_default
