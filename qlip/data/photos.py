"""Photographs on disk: which files, how large, and which subset is which."""

from dataclasses import dataclass
from pathlib import Path

import skimage
from PIL import ExifTags, Image, UnidentifiedImageError
from torchvision.datasets import Imagenette

from qlip.data.pictures import scene_folder

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
SAMPLE_PHOTOS = {  # those that scikit-image's wheel holds and that show a scene; all free to use
    "train": [
        "camera.png",
        "chelsea.png",
        "coins.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "moon.png",
        "motorcycle_left.png",
        "retina.jpg",
        "rocket.jpg",
    ],
    "val": ["astronaut.png", "coffee.png"],
}


@dataclass(frozen=True)
class PhotoSplits:
    """Files to train on and files to validate on, sorted, without overlap."""

    train: list[Path]
    val: list[Path]


def find_photos(root: str, download_to: str = "data", val_fraction: float = 0.1) -> PhotoSplits:
    """Find the photographs that ``root`` names.

    Args:
        root: ``"imagenette"`` downloads the paper's data set (full size) to ``download_to`` on first use; ``"samples"``
            are the photographs that scikit-image ships, ``"pocket"`` the same and drawn scenes; anything else is a folder, searched recursively. A folder with
            ``train/`` and ``val/`` is split as it is, any other by holding out evenly spaced files.
        download_to: Where downloaded data goes.
        val_fraction: Share of files to hold out where the data has no split of its own.

    Raises:
        FileNotFoundError: if the folder does not exist or holds fewer than two images.
        OSError: if Imagenette is not on disk and cannot be downloaded.
    """
    if root in ("samples", "pocket"):
        folder = Path(skimage.__file__).parent / "data"
        samples = PhotoSplits(*([folder / name for name in SAMPLE_PHOTOS[split]] for split in ("train", "val")))
        if root == "samples":
            return samples
        scenes = scene_folder()
        return PhotoSplits(samples.train + _images_in(scenes / "train"), samples.val + _images_in(scenes / "val"))
    if root == "imagenette":
        return PhotoSplits(*(_images_in(_imagenette(Path(download_to), split)) for split in ("train", "val")))
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"data.root: got {root!r}; takes a folder of images, 'imagenette', 'samples' or 'pocket'"
        )
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        return PhotoSplits(_images_in(folder / "train"), _images_in(folder / "val"))
    files = _images_in(folder)
    if len(files) < 2:
        raise FileNotFoundError(
            f"data.root: found {len(files)} images in {root!r}; needs one to train on and one to hold out"
        )
    step = max(round(1 / val_fraction), 2)
    return PhotoSplits([f for i, f in enumerate(files) if i % step], files[::step])


def _images_in(folder: Path) -> list[Path]:
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise FileNotFoundError(f"data.root: no images in {folder}; takes {', '.join(sorted(IMAGE_SUFFIXES))} files")
    return files


def _imagenette(folder: Path, split: str) -> Path:
    here = folder / "imagenette2" / split
    if not here.is_dir():
        try:
            Imagenette(folder, split=split, size="full", download=True)
        except (OSError, RuntimeError) as error:
            raise OSError(
                f"data.root: Imagenette is not in {folder} and could not be downloaded ({error}). Without a network: "
                f"qlip fit --config quickstart, or --data.root FOLDER with images of your own"
            ) from error
    return here


def image_size(path: Path) -> tuple[int, int] | None:
    """Upright ``(height, width)`` from a file's header alone, or None where the header cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except (OSError, UnidentifiedImageError, ValueError):
        return None
    return (width, height) if turned else (height, width)
