import logging
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from qlip.training.data import Photos, QlipDataModule, TrainingPhotos, ValidationPhotos, View
from qlip.training.sampler import SeededIndex
from tests.training.conftest import draw_photos


def encode(pixels: Tensor) -> Tensor:
    return pixels.mean((2, 3))


def built(root: Path, tmp_path: Path, **kwargs: object) -> QlipDataModule:
    data = QlipDataModule(str(root), batch_size=2, workers=0, cache_dir=str(tmp_path / "cache"), **kwargs)
    data.build(encode, "digest", 56, View(14))
    return data


def photo(path: Path, width: int, height: int) -> Photos:
    noise = torch.randint(255, (height, width, 3), dtype=torch.uint8).numpy()
    Image.fromarray(noise).save(path)
    return Photos([path], torch.zeros(1, 3), [])


@pytest.mark.parametrize(
    ("size", "patches"),
    [((200, 100), (7, 14)), ((1200, 700), (40, 68)), ((700, 1200), (68, 40)), ((560, 560), (40, 40))],
)
def test_shortest_edge_is_at_most_560_and_the_aspect_stays(
    size: tuple[int, int], patches: tuple[int, int], tmp_path: Path
) -> None:
    dataset = TrainingPhotos(photo(tmp_path / "x.png", *size), 560, (0.0, 0.0), View(14))
    batch, *_ = dataset[SeededIndex(0, 0)]
    assert len(batch.coords[0]) == patches[0] * patches[1]


def test_merging_happens_with_the_given_probability(tmp_path: Path) -> None:
    photos = photo(tmp_path / "x.png", 560, 560)
    counts = {
        merge: [
            len(TrainingPhotos(photos, 560, merge, View(14))[SeededIndex(0, seed)][0].coords[0]) for seed in range(8)
        ]
        for merge in ((0.0, 0.0), (0.1, 0.1), (0.0, 0.3), (1.0, 1.0))
    }
    assert set(counts[0.0, 0.0]) == {1600}
    mean = sum(counts[0.1, 0.1]) / 8
    kept = 0.9**4  # a patch stays alone if none of its four levels merges
    assert 576 + 1024 * kept < mean < 1600
    assert max(counts[0.0, 0.3]) - min(counts[0.0, 0.3]) > max(counts[0.1, 0.1]) - min(counts[0.1, 0.1])
    assert set(counts[1.0, 1.0]) == {580}  # four whole roots and the 576 patches around them


def test_an_item_follows_from_its_seed_alone(tmp_path: Path) -> None:
    dataset = TrainingPhotos(photo(tmp_path / "x.png", 280, 210), 560, (0.0, 0.5), View(14))
    torch.manual_seed(0)
    first, *_ = dataset[SeededIndex(0, 7)]
    before = torch.random.get_rng_state()
    again, *_ = dataset[SeededIndex(0, 7)]
    other, *_ = dataset[SeededIndex(0, 8)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.coords, again.coords)
    assert first.coords.shape != other.coords.shape


@pytest.mark.parametrize("workers", [0, 2])
def test_same_seed_same_batches_whatever_the_workers(photos: Path, tmp_path: Path, workers: int) -> None:
    data = built(photos, tmp_path)
    reference = [batch.micro_batches[0].patches.coords for batch in data.train_dataloader()]
    data.workers = workers
    torch.manual_seed(123)
    coords = [batch.micro_batches[0].patches.coords for batch in data.train_dataloader()]
    assert all(torch.equal(a, b) for a, b in zip(reference, coords, strict=True))


@pytest.mark.parametrize("tokens_at_once", [None, 1])
def test_targets_belong_to_their_photographs(photos: Path, tmp_path: Path, tokens_at_once: int | None) -> None:
    data = built(photos, tmp_path, merge=0.0, tokens_at_once=tokens_at_once)
    assert data.train is not None
    counts = set()
    for seeded, batch in zip(data.train_sampler(), data.train_dataloader(), strict=True):
        target = torch.cat([micro_batch.target for micro_batch in batch.micro_batches])
        assert torch.equal(target, data.train.targets[[s.index for s in seeded]])
        assert batch.tokens == sum(data.train.tokens[s.index] for s in seeded)  # also: the sampler knows the lengths
        counts.add(len(batch.micro_batches))
    assert counts == ({1} if tokens_at_once is None else {2})


def test_validation_shows_squares_of_every_size(photos: Path, tmp_path: Path) -> None:
    data = built(photos, tmp_path, val_sizes=(42, 84))
    assert data.val is not None
    views = ValidationPhotos(data.val, data.val_sizes, View(14))[1]
    assert [len(view.patches.coords[0]) for view in views] == [9, 36]
    assert all(torch.equal(view.target, data.val.targets[1]) and view.standard is None for view in views)
    assert sum(len(batch[0]) for batch in data.val_dataloader()) == 3


def test_val_limit_takes_evenly_spaced_photographs(tmp_path: Path) -> None:
    draw_photos(tmp_path / "p/train", 2)
    draw_photos(tmp_path / "p/val", 9)
    data = built(tmp_path / "p", tmp_path, val_limit=3)
    assert data.val is not None
    assert [file.name for file in data.val.files] == ["00.png", "03.png", "06.png"]


def test_unreadable_photographs_are_left_out_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw_photos(tmp_path / "p/train", 110)
    draw_photos(tmp_path / "p/val", 2)
    (tmp_path / "p/train/05.png").write_bytes(b"no image")
    with caplog.at_level(logging.INFO):
        data = built(tmp_path / "p", tmp_path)
    assert [file.name for file in data.unreadable] == ["05.png"]
    assert data.train is not None
    assert len(data.train.files) == 109
    assert "1 unreadable" in caplog.text


def test_repeats_lengthen_the_epoch(photos: Path, tmp_path: Path) -> None:
    assert len(built(photos, tmp_path, repeats=3).train_sampler()) == 3 * len(built(photos, tmp_path).train_sampler())


def test_tokens_at_once_must_be_positive() -> None:
    with pytest.raises(ValueError, match="tokens_at_once: got 0"):
        QlipDataModule("samples", tokens_at_once=0)


@pytest.mark.parametrize("merge", [-0.1, 1.5, (0.3, 0.1)])
def test_merge_must_be_a_probability(merge: float | tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="merge: got"):
        QlipDataModule("samples", merge=merge)


def test_odd_photographs_among_many_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = draw_photos(tmp_path / "photos", 300)
    Image.new("RGB", (9, 30)).save(root / "tiny.png")  # smaller than a patch, which is enlarged
    (root / "dangling.png").symlink_to(root / "gone")
    Image.new("RGB", (190, 1)).save(root / "thin.png")  # can be read, but not shown at 560 x 106,400 pixels
    data = built(root, tmp_path, max_size=560, val_sizes=(42, 900))
    assert {path.name for path in data.unreadable} == {"dangling.png", "thin.png"}
    assert "dangling.png cannot be read" in caplog.text
    assert "thin.png: image: got 190 x 1 pixels" in caplog.text
    files = data.train.files + data.val.files
    assert root / "tiny.png" in files
    for photos in (data.train, data.val):
        for index, file in enumerate(photos.files):
            if file.name == "tiny.png":
                dataset = TrainingPhotos(photos, data.max_size, data.merge, data.view)
                assert len(dataset[SeededIndex(index, 0)][0].coords[0]) == photos.tokens[index] == 3


def test_too_many_that_cannot_be_shown_stop_the_run(tmp_path: Path) -> None:
    root = draw_photos(tmp_path / "photos", 20)
    Image.new("RGB", (190, 1)).save(root / "thin.png")
    with pytest.raises(OSError, match=r"data.root: 1 of 2\d images cannot be read"):
        built(root, tmp_path, val_sizes=(900,), val_limit=100)
