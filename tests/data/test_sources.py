"""Every source lists the pictures it promises, to training and to tools; what is no picture is left out."""

from pathlib import Path

import pytest
from PIL import Image

from qlip.data import sources
from qlip.data.sources import SOURCES, PictureSource, Splits, find_pictures, list_pictures, pictures_in
from qlip.images.read import read_image
from qlip.training.data import QlipDataModule

ROOT = Path(__file__).parents[2]


def draw(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(folder / name, "PNG")
    return folder


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small folder in place of the drawn scenes."""
    folder = draw(tmp_path / "scenes", "train/000.jpg", "train/001.jpg", "val/000.jpg")
    monkeypatch.setattr(sources, "scene_folder", lambda: folder)
    return folder


def test_samples_are_shipped_photographs_of_the_promised_sizes() -> None:
    splits = find_pictures("samples")
    sizes = [read_image(file).size for file in splits.train + splits.val]
    assert (len(splits.train), len(splits.val)) == (9, 2)
    assert all(min(size) >= 280 and max(size) <= 1420 for size in sizes)
    assert not set(splits.train) & set(splits.val)


def test_pocket_trains_on_samples_and_scenes_and_tools_measure_on_held_out_scenes(scenes: Path) -> None:
    samples, splits = find_pictures("samples"), find_pictures("pocket")
    assert splits.train == [*samples.train, scenes / "train/000.jpg", scenes / "train/001.jpg"]
    assert splits.val == [*samples.val, scenes / "val/000.jpg"]
    assert list_pictures("pocket") == [scenes / "val/000.jpg"]


def test_tools_measure_on_what_a_source_holds_out() -> None:
    assert list_pictures("samples") == find_pictures("samples").val


def test_imagenette_on_disk_is_not_downloaded(tmp_path: Path) -> None:
    folder = draw(tmp_path / "imagenette2", "train/n01/a.JPEG", "val/n01/b.JPEG")
    assert find_pictures("imagenette", tmp_path) == Splits([folder / "train/n01/a.JPEG"], [folder / "val/n01/b.JPEG"])


def test_without_a_network_imagenette_names_the_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no route to host")

    monkeypatch.setattr(sources, "Imagenette", refuse)
    with pytest.raises(OSError, match=r"no route to host.*--config quickstart"):
        find_pictures("imagenette", tmp_path)


def test_one_entry_makes_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = draw(tmp_path, "a.png", "b.png")
    monkeypatch.setitem(SOURCES, "mine", PictureSource(lambda _: Splits([folder / "a.png"], [folder / "b.png"])))
    assert find_pictures("mine").train == [folder / "a.png"]
    assert list_pictures("mine") == [folder / "b.png"]
    with pytest.raises(FileNotFoundError, match="mine"):
        find_pictures("nowhere")


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_in_the_help_and_the_documentation(name: str) -> None:
    assert f"``{name}``" in (QlipDataModule.__doc__ or "")
    assert f"`{name}`" in (ROOT / "docs/training.md").read_text()


def test_a_folder_with_train_and_val_is_split_as_it_is(tmp_path: Path) -> None:
    folder = draw(tmp_path, *(f"train/{i}.png" for i in range(10)), *(f"val/{i}.png" for i in range(3)))
    splits = find_pictures(str(folder))
    assert (len(splits.train), len(splits.val)) == (10, 3)
    assert len(list_pictures(str(folder))) == 13


def test_any_other_folder_holds_files_out(tmp_path: Path) -> None:
    draw(tmp_path / "a", *(f"{i:02}.png" for i in range(20)))
    splits = find_pictures(str(tmp_path))
    assert (len(splits.train), len(splits.val)) == (18, 2)
    assert not set(splits.train) & set(splits.val)
    assert [len(find_pictures(str(tmp_path), val_fraction=share).val) for share in (0.25, 0.5)] == [5, 10]


def test_a_folder_is_searched_to_any_depth_and_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    names = ["b.TIF", "deep/er/a.jpeg", *(f"c{suffix}" for suffix in sorted(sources.SUFFIXES))]
    draw(tmp_path, *names)
    draw(tmp_path, "._b.TIF", "deep/._a.jpeg", ".thumbnails/a.png", "notes.txt")
    (tmp_path / "folder.jpg").mkdir()
    assert pictures_in(tmp_path) == sorted(tmp_path / name for name in names)


def test_a_hidden_folder_that_was_asked_for_is_listed(tmp_path: Path) -> None:
    folder = draw(tmp_path / ".cache" / "pictures", "a.png")
    assert list_pictures(str(folder)) == [folder / "a.png"]


@pytest.mark.parametrize("find", [find_pictures, list_pictures])
def test_a_wrong_name_is_answered_with_the_registered_ones(find, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"got 'imagenete'.*folder.*one of {', '.join(SOURCES)}"):
        find("imagenete")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"^data\.root: got '\.', which holds 0"),
        (("a.png",), r"^data\.root: got '\.', which holds 1"),
        (("train/a.png", "val/notes.txt"), r"^data\.root: val holds no"),
    ],
)
def test_nothing_to_train_on(names: tuple[str, ...], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(draw(tmp_path, *names))
    with pytest.raises(FileNotFoundError, match=message):
        find_pictures(".")


def test_nothing_to_measure_on(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^images: got .*, which holds none; takes a folder with \.bmp, "):
        list_pictures(str(tmp_path))
