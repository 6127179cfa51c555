from pathlib import Path

import pytest
from PIL import Image

from qlip.data.photos import find_photos, image_size
from tests.training.conftest import draw_photos


def test_samples_are_shipped_photographs_of_the_promised_sizes() -> None:
    splits = find_photos("samples")
    sizes = [image_size(file) for file in splits.train + splits.val]
    assert len(sizes) >= 10
    assert all(size is not None and min(size) >= 280 and max(size) <= 1420 for size in sizes)
    assert not set(splits.train) & set(splits.val)


def test_a_folder_with_train_and_val_is_split_as_it_is(photos: Path) -> None:
    splits = find_photos(str(photos))
    assert (len(splits.train), len(splits.val)) == (10, 3)


def test_any_other_folder_holds_files_out(tmp_path: Path) -> None:
    draw_photos(tmp_path / "a", 20)
    splits = find_photos(str(tmp_path))
    assert (len(splits.train), len(splits.val)) == (18, 2)
    assert not set(splits.train) & set(splits.val)


@pytest.mark.parametrize(("root", "message"), [("nowhere", "takes a folder"), (".", "found 0|no images")])
def test_nothing_to_train_on(root: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        find_photos(root)


def test_without_a_network_imagenette_names_the_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no route to host")

    monkeypatch.setattr("qlip.data.photos.Imagenette", refuse)
    with pytest.raises(OSError, match=r"qlip fit --config quickstart"):
        find_photos("imagenette", str(tmp_path))


def test_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGB", (40, 30)).save(tmp_path / "plain.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert image_size(tmp_path / "turned.jpg") == (40, 30)
    assert image_size(tmp_path / "plain.png") == (30, 40)
    assert image_size(tmp_path / "broken.png") is None
