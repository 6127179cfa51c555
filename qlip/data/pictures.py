"""Large scenes with small objects as pictures, and folders of them that are drawn once and kept."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image

from qlip.data.language import Thing, things
from qlip.data.scenes import draw_scenes
from qlip.files import making_folder

SIZES = ((336, 336), (336, 504), (504, 336), (448, 448), (448, 672), (672, 448), (672, 672), (448, 896), (896, 672))
CACHE = Path("~/.cache/qlip/pocket")


def small_objects(count: int, seed: int) -> Iterator[tuple[Image.Image, list[Thing]]]:
    """Scenes of 336 to 896 pixels and several shapes, with two to five objects of 21 to 56 pixels."""
    for index in range(count):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        height, width = SIZES[int(torch.randint(len(SIZES), (), generator=generator))]
        scene = draw_scenes(1, height, width, generator, objects=(2, 5))
        pixels = (scene.images[0].permute(1, 2, 0) * 255).round().byte().numpy()
        yield Image.fromarray(pixels), things(scene, 0)


def drawn(name: str, write: Callable[[Path], None], cache: Path = CACHE) -> Path:
    """The folder ``cache/name``, filled by ``write`` if it is not there; there whole or not at all.

    Args:
        name: Of the folder; another one where ``write`` draws something else.
        write: Fills a folder, always with the same.
        cache: Where such folders are kept.
    """
    folder = cache.expanduser() / name
    if not folder.is_dir():
        with making_folder(folder) as new:
            write(new)
    return folder


def scene_folder() -> Path:
    """The folder of large scenes, ``train/`` and ``val/``, drawn on first use."""
    return drawn("scenes-1", write_pictures)


def write_pictures(folder: Path, train: int = 48, val: int = 12, seed: int = 40_000) -> None:
    """Fill ``train/`` and ``val/`` with scenes, for training the coordinate MLP on them."""
    for split, count, start in (("train", train, seed), ("val", val, seed + 1)):
        (folder / split).mkdir()
        for index, (picture, _) in enumerate(small_objects(count, start)):
            picture.save(folder / split / f"{index:03}.jpg", quality=95, subsampling=0)
