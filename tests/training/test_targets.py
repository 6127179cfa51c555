import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing as mp
from torch import Tensor

from qlip.core.quadtree import Quadtree
from qlip.data.readable import UnreadableImages
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import read_image
from qlip.training.targets import Encode, Shard, Targets, load_or_compute, weights_digest
from tests.training.conftest import draw_photos

PROCESSOR = QlipImageProcessor(56, "square", Quadtree(criterion="uniform"))


class Killed:
    """An encoder that kills its process when it is asked for the images after the first ``images``."""

    def __init__(self, images: int) -> None:
        self.left = images

    def __call__(self, pixels: Tensor) -> Tensor:
        if self.left < len(pixels):
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= len(pixels)
        return pixels.mean((2, 3))


class CountingEncoder:
    def __init__(self) -> None:
        self.images = 0

    def __call__(self, pixels: Tensor) -> Tensor:
        self.images += len(pixels)
        return pixels.mean((2, 3))


def compute(encoder: Encode, files: list[Path], cache: Path, **options: Any) -> Targets:
    return load_or_compute(encoder, files, PROCESSOR, **{"encoder_digest": "weights", "cache_dir": cache} | options)


def assert_same(first: Targets, second: Targets) -> None:
    assert torch.equal(first.cls, second.cls)
    assert torch.equal(first.sizes, second.sizes)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return sorted(draw_photos(tmp_path / "photos", 5).glob("*"))


def test_a_second_run_reuses_and_says_so(files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = CountingEncoder()
    first = compute(encoder, files, tmp_path / "cache")
    assert encoder.images == 5
    torch.testing.assert_close(first.cls[2], PROCESSOR.prepare(files[2]).mean((1, 2)))
    assert [tuple(size) for size in first.sizes.tolist()] == [read_image(file).size[::-1] for file in files]
    with caplog.at_level(logging.INFO):
        assert_same(first, compute(encoder, files, tmp_path / "cache"))
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
    assert_same(first, compute(encoder, files, cache))


def one_of_two(rank: int, folder: Path, files: list[Path], shared: bool) -> None:
    """Compute targets together with another process; leave what came out and how many images were encoded here."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    encoder, shard = CountingEncoder(), Shard(rank, 2, torch.distributed.barrier)
    targets = compute(
        encoder, files, folder / ("cache" if shared else f"cache{rank}"), shard=shard, block=2, batch_size=2
    )
    torch.save((encoder.images, targets.cls, targets.sizes), folder / f"{rank}.pt")


@pytest.mark.parametrize("shared", [True, False])
def test_two_processes_share_the_work_and_get_what_one_gets(tmp_path: Path, shared: bool) -> None:
    files = sorted(draw_photos(tmp_path / "photos", 101).glob("*"))
    files[7].write_bytes(b"no image")
    mp.spawn(one_of_two, (tmp_path, files, shared), nprocs=2)
    alone = compute(CountingEncoder(), files, tmp_path / "alone")
    counts = []
    for rank in range(2):
        count, cls, sizes = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(cls, alone.cls, equal_nan=True, rtol=0, atol=0)
        assert torch.equal(sizes, alone.sizes)
        counts.append(count)
    assert counts == ([51, 49] if shared else [100, 100])  # of 51 files in turn, one image cannot be read


def test_a_killed_computation_leaves_whole_files_and_goes_on_behind_them(tmp_path: Path) -> None:
    files, cache = sorted(draw_photos(tmp_path / "photos", 20).glob("*")), tmp_path / "cache"
    options = {"block": 4, "batch_size": 2}
    killed = mp.get_context("spawn").Process(target=compute, args=(Killed(14), files, cache), kwargs=options)
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    assert {path.suffix for path in cache.iterdir()} == {".safetensors"}
    encoder = CountingEncoder()
    assert_same(compute(encoder, files, cache, **options), compute(CountingEncoder(), files, tmp_path / "unkilled"))
    assert encoder.images == 20 - 12  # three whole files of the 14 images


def test_a_file_that_is_not_written_to_its_end_does_not_count(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, data: bytes) -> None:
        path.open("wb").write(data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        compute(CountingEncoder(), files, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.safetensors"))


def test_photographs_that_are_added_leave_the_others_in_the_cache(tmp_path: Path) -> None:
    files, encoder = sorted(draw_photos(tmp_path / "photos", 10).glob("*")), CountingEncoder()
    compute(encoder, files[:8], tmp_path / "cache", block=4)
    compute(encoder, files, tmp_path / "cache", block=4)
    assert encoder.images == 10


def test_a_file_without_any_readable_image_fits_the_others(tmp_path: Path) -> None:
    files = sorted(draw_photos(tmp_path / "photos", 201).glob("*"))
    for file in files[100:102]:
        file.write_bytes(b"no image")
    targets = compute(CountingEncoder(), files, tmp_path / "cache", block=2)
    assert (~targets.readable).nonzero().flatten().tolist() == [100, 101]


def test_an_unreadable_image_is_nan_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = sorted(draw_photos(tmp_path / "photos", 101).glob("*"))
    files[7].write_bytes(files[7].read_bytes()[:200])
    targets = compute(CountingEncoder(), files, tmp_path / "cache")
    assert (~targets.readable).nonzero().tolist() == [[7]]
    assert targets.sizes[7].tolist() == [0, 0]
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
