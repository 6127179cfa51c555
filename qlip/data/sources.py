"""Where pictures come from: sources with a name, and any folder. Training, ``evaluate.py bias`` and tools all ask here.

A picture is a file on disk; `qlip.images.read` decodes it. To add a source, add an entry to `SOURCES`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import skimage
from torchvision.datasets import Imagenette

from qlip.core.rules import shown
from qlip.data.pictures import scene_folder

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
ENDINGS = ", ".join(sorted(SUFFIXES))
SAMPLES_TRAIN = (  # the photographs in scikit-image's wheel that show a scene; all are free to use
    "camera.png", "chelsea.png", "coins.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
    "retina.jpg", "rocket.jpg",
)  # fmt: skip
SAMPLES_VAL = ("astronaut.png", "coffee.png")


@dataclass(frozen=True)
class Splits:
    """Files to train on and files to validate on, without overlap."""

    train: list[Path]
    val: list[Path]


@dataclass(frozen=True)
class PictureSource:
    """A set of pictures that has a name.

    Attributes:
        splits: Lists its files; takes the folder where downloaded data goes.
        measured: Lists the files that tools measure on, from the same folder; the files to validate on if it is None.
    """

    splits: Callable[[Path], Splits]
    measured: Callable[[Path], list[Path]] | None = None


def find_pictures(
    source: str, download_to: str | Path = "data", val_fraction: float = 0.1, *, option: str = "data.root"
) -> Splits:
    """List the pictures of a source in two splits, for training.

    Args:
        source: A name in `SOURCES`, or else a folder, which is searched recursively. A folder with ``train/`` and ``val/``
            is split as it is; of any other, evenly spaced files are held out.
        download_to: Folder where downloaded data goes.
        val_fraction: Share of the files to hold out of a folder that has no splits of its own.
        option: What the user calls the source; error messages begin with it.

    Raises:
        FileNotFoundError: if the source is neither a registered name nor a folder, or holds fewer than two pictures.
        OSError: if the source has to be downloaded and cannot be.
    """
    if source in SOURCES:
        return SOURCES[source].splits(Path(download_to))
    folder = _folder(source, option)
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        return _train_and_val(folder, option)
    files = pictures_in(folder)
    if len(files) < 2:
        raise FileNotFoundError(
            f"{option}: got {shown(source)}, which holds {len(files)} pictures ({ENDINGS}); needs at least two, one to train "
            f"on and one to hold out"
        )
    step = max(round(1 / val_fraction), 2)
    return Splits([file for i, file in enumerate(files) if i % step], files[::step])


def list_pictures(source: str, download_to: str | Path = "data", *, option: str = "images") -> list[Path]:
    """List the pictures of a source that a tool measures on: those held out of a registered source, all those of a folder.

    Args:
        source: A name in `SOURCES`, or else a folder, which is searched recursively.
        download_to: Folder where downloaded data goes.
        option: What the user calls the source; error messages begin with it.

    Raises:
        FileNotFoundError: if the source is neither a registered name nor a folder, or holds no pictures.
        OSError: if the source has to be downloaded and cannot be.
    """
    if source in SOURCES:
        entry = SOURCES[source]
        return entry.measured(Path(download_to)) if entry.measured else entry.splits(Path(download_to)).val
    files = pictures_in(_folder(source, option))
    if not files:
        raise FileNotFoundError(f"{option}: got {shown(source)}, which holds none; takes a folder with {ENDINGS} files")
    return files


def pictures_in(folder: Path) -> list[Path]:
    """List the files under a folder whose names end as pictures' do, sorted.

    Hidden files and folders are left out: macOS writes a ``._x.jpg`` that is no picture beside each ``x.jpg`` it copies.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _folder(source: str, option: str) -> Path:
    folder = Path(source).expanduser()
    if not os.path.isdir(folder):  # also where no folder can have that name
        names = ", ".join(SOURCES)
        raise FileNotFoundError(
            f"{option}: got {shown(source)}, which is no folder here; takes a folder of pictures, or one of {names}"
        )
    return folder


def _train_and_val(folder: Path, option: str) -> Splits:
    splits = Splits(pictures_in(folder / "train"), pictures_in(folder / "val"))
    for name, files in (("train", splits.train), ("val", splits.val)):
        if not files:
            raise FileNotFoundError(f"{option}: {folder / name} holds no pictures; takes a folder with {ENDINGS} files")
    return splits


def _imagenette(download_to: Path) -> Splits:
    folder = download_to / "imagenette2"
    for split in ("train", "val"):
        if not (folder / split).is_dir():
            try:
                Imagenette(download_to, split=split, size="full", download=True)
            except (OSError, RuntimeError) as error:
                raise OSError(
                    f"imagenette: it is not in {download_to} and could not be downloaded ({error}). What needs no network: "
                    f"qlip fit --config quickstart, or a folder of your own"
                ) from error
    return _train_and_val(folder, "imagenette")


def _samples(download_to: Path) -> Splits:
    folder = Path(skimage.__file__).parent / "data"
    return Splits([folder / name for name in SAMPLES_TRAIN], [folder / name for name in SAMPLES_VAL])


def _scenes(download_to: Path) -> Splits:
    return _train_and_val(scene_folder(), "pocket")


def _samples_and_scenes(download_to: Path) -> Splits:
    samples, scenes = _samples(download_to), _scenes(download_to)
    return Splits(samples.train + scenes.train, samples.val + scenes.val)


SOURCES: dict[str, PictureSource] = {
    # The data set of the paper, at full size; downloaded on first use.
    "imagenette": PictureSource(_imagenette),
    # Photographs that scikit-image ships; needs no network.
    "samples": PictureSource(_samples),
    # The samples and drawn scenes, for the pocket models, which know nothing of photographs: tools measure on scenes alone.
    "pocket": PictureSource(_samples_and_scenes, measured=lambda download_to: _scenes(download_to).val),
}
