"""Drawn scenes as files: the same from the same seed, and in a folder that is there whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from qlip.data import pictures
from qlip.data.backgrounds import TEST
from qlip.data.pictures import SIZES, drawn, small_objects, write_pictures
from qlip.images.read import read_image


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        drawn("scenes", broken, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert drawn("scenes", lambda folder: (folder / "whole").write_text("1"), tmp_path) == tmp_path / "scenes"
    assert drawn("scenes", broken, tmp_path) == tmp_path / "scenes", "what is there is not drawn again"


def test_a_folder_that_another_process_wrote_meanwhile_is_left_alone(tmp_path: Path) -> None:
    def overtaken(folder: Path) -> None:
        (folder / "ours").touch()
        (tmp_path / "scenes").mkdir()
        (tmp_path / "scenes" / "theirs").touch()

    assert [file.name for file in drawn("scenes", overtaken, tmp_path).iterdir()] == ["theirs"]
    assert [folder.name for folder in tmp_path.iterdir()] == ["scenes"]


def test_scenes_are_large_and_their_objects_small() -> None:
    for picture, scene in small_objects(8, seed=0):
        assert (picture.height, picture.width) in SIZES
        assert 1 <= len(scene) <= 5
        assert all(21 <= thing.side <= 56 for thing in scene)


def test_photographs_lie_behind_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(pictures, "read_image", lambda path: read.append(path) or read_image(path))
    pairs = list(zip(small_objects(4, seed=0), small_objects(4, seed=0, photographs=TEST), strict=True))
    for (plain, scene), (photo, same) in pairs:
        assert same == scene
        assert photo.size == plain.size
        differ = (np.asarray(photo) != np.asarray(plain)).any(-1)
        assert differ.mean() > 0.8
        for thing in scene:
            if thing.shape != "ring":  # a ring's middle is background
                assert not differ[int(thing.y * photo.height), int(thing.x * photo.width)]
    fewer = [picture.tobytes() for picture, _ in small_objects(2, seed=0, photographs=TEST)]
    assert fewer == [photo.tobytes() for _, (photo, _) in pairs[:2]]
    assert len({photo.crop((0, 0, 9, 9)).tobytes() for _, (photo, _) in pairs}) == 4
    assert len({path.name for path in read}) > 1, "each scene chooses its own"


def test_the_same_seed_writes_the_same_pictures(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_pictures(tmp_path / name, train=3, val=2)
    names = [f"train/00{i}.jpg" for i in range(3)] + ["val/000.jpg", "val/001.jpg"]
    files = (path for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert sorted(str(path.relative_to(tmp_path / "one")) for path in files) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
