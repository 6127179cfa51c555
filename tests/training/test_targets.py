import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qlip.core.quadtree import Quadtree
from qlip.models.processing import QlipImageProcessor
from qlip.training.targets import UnreadableImages, load_or_compute, weights_digest
from tests.training.conftest import draw_photos

PROCESSOR = QlipImageProcessor(56, "square", Quadtree(criterion="uniform"))


class CountingEncoder:
    def __init__(self) -> None:
        self.images = 0

    def __call__(self, pixels: Tensor) -> Tensor:
        self.images += len(pixels)
        return pixels.mean((2, 3))


def compute(encoder: CountingEncoder, files: list[Path], cache: Path, digest: str = "weights") -> Tensor:
    return load_or_compute(encoder, files, PROCESSOR, encoder_digest=digest, cache_dir=cache)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return sorted(draw_photos(tmp_path / "photos", 5).glob("*"))


def test_a_second_run_reuses_and_says_so(files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = CountingEncoder()
    first = compute(encoder, files, tmp_path / "cache")
    assert encoder.images == 5
    torch.testing.assert_close(first[2], PROCESSOR.prepare(files[2]).mean((1, 2)))
    with caplog.at_level(logging.INFO):
        assert torch.equal(first, compute(encoder, files, tmp_path / "cache"))
    assert encoder.images == 5
    assert "reusing 5 cached targets" in caplog.text


@pytest.mark.parametrize("change", ["weights", "file", "list", "preprocessing"])
def test_whatever_it_depends_on_makes_it_stale(change: str, files: list[Path], tmp_path: Path) -> None:
    encoder, cache = CountingEncoder(), tmp_path / "cache"
    compute(encoder, files, cache)
    if change == "file":
        draw_photos(files[0].parent, 1, seed=9)
    digest = "other" if change == "weights" else "weights"
    processor = QlipImageProcessor(42, "square", PROCESSOR.quadtree) if change == "preprocessing" else PROCESSOR
    used = files[:4] if change == "list" else files
    load_or_compute(encoder, used, processor, encoder_digest=digest, cache_dir=cache)
    assert encoder.images == 5 + len(used)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "swapped"])
def test_a_damaged_cache_is_rebuilt(damage: str, files: list[Path], tmp_path: Path) -> None:
    encoder, cache = CountingEncoder(), tmp_path / "cache"
    first = compute(encoder, files, cache)
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[:-7]
    elif damage == "flipped":
        content[-3] ^= 0x40
    else:  # the cache of other files under this name
        compute(encoder, files[:4], cache)
        other = next(p for p in cache.iterdir() if p != path)
        content = bytearray(other.read_bytes())
    path.write_bytes(content)
    assert torch.equal(first, compute(encoder, files, cache))


def test_an_unreadable_image_is_a_row_of_nan_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = sorted(draw_photos(tmp_path / "photos", 101).glob("*"))
    files[7].write_bytes(files[7].read_bytes()[:200])
    targets = compute(CountingEncoder(), files, tmp_path / "cache")
    assert targets.isnan().any(1).nonzero().tolist() == [[7]]
    assert caplog.text.count(files[7].name) == 1


def test_too_many_unreadable_images_stop_the_run(files: list[Path], tmp_path: Path) -> None:
    files[0].write_bytes(b"no image")
    with pytest.raises(UnreadableImages, match="1 of 5 images cannot be read"):
        compute(CountingEncoder(), files, tmp_path / "cache")


def test_the_digest_sees_every_weight() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 3).bfloat16()
    before = weights_digest(layer)
    assert before == weights_digest(layer)
    with torch.no_grad():
        layer.bias[2] += 1
    assert weights_digest(layer) != before
