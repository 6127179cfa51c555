"""Drawn scenes as picture files: large scenes with small objects, in folders that are drawn once and kept.

They are the source ``pocket`` of `qlip.data.sources`, and the pictures of the benchmarks ``vstar-pocket`` and ``pope-pocket``;
those of ``vstar-photo`` and ``pope-photo`` have photographs behind the same objects.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import torch
from PIL import Image

from qlip.data.backgrounds import cut_backgrounds
from qlip.data.language import Thing, things
from qlip.data.scenes import draw_scenes
from qlip.files import making_folder
from qlip.images.read import read_image

SIZES = ((336, 336), (336, 504), (504, 336), (448, 448), (448, 672), (672, 448), (672, 672), (448, 896), (896, 672))
CACHE = Path("~/.cache/qlip/pocket")


def small_objects(count: int, seed: int, photographs: Sequence[Path] = ()) -> Iterator[tuple[Image.Image, list[Thing]]]:
    """Draw scenes of 336 to 896 pixels with two to five objects of 21 to 56 pixels each.

    Args:
        count: Number of scenes.
        seed: Seed of the scenes; each has a generator of its own, so fewer of them are the first of more.
        photographs: Files of which cut-outs lie behind the objects, one in each scene; if there are none, backgrounds are drawn. The
            objects are the same either way.

    Yields:
        A scene as an RGB picture, and its objects.

    Raises:
        OSError: if a photograph cannot be read.
    """
    for index in range(count):
        number = seed * 1_000_003 + index
        generator, random = torch.Generator().manual_seed(number), Random(f"photograph {number}")
        height, width = SIZES[int(torch.randint(len(SIZES), (), generator=generator))]
        behind = [read_image(random.choice(photographs))] if photographs else []
        backgrounds = cut_backgrounds(behind, len(behind), height, width, random)
        scene = draw_scenes(1, height, width, generator, objects=(2, 5), backgrounds=backgrounds)
        pixels = (scene.images[0].permute(1, 2, 0) * 255).round().byte().numpy()
        yield Image.fromarray(pixels), things(scene, 0)


def drawn(name: str, write: Callable[[Path], None], cache: Path = CACHE) -> Path:
    """Return the folder ``cache/name``, and have it written first if it is not there; it appears whole or not at all.

    Args:
        name: Name of the folder. Give it another one when ``write`` draws something else, or the old folder is found.
        write: Function that fills an empty folder, with the same files at every call.
        cache: Folder in which drawn folders are kept.

    Raises:
        OSError: if it cannot be written.
    """
    folder = cache.expanduser() / name
    if not folder.is_dir():
        with making_folder(folder) as new:
            write(new)
    return folder


def scene_folder() -> Path:
    """Return the folder of large scenes in ``train/`` and ``val/``, drawn on first use."""
    return drawn("scenes-1", write_pictures)


def write_pictures(folder: Path, train: int = 48, val: int = 12, seed: int = 40_000) -> None:
    """Fill ``train/`` and ``val/`` in a folder with scenes as JPEG files, for training the coordinate MLP on them.

    Args:
        folder: An empty folder.
        train: Number of scenes in ``train/``.
        val: Number of scenes in ``val/``.
        seed: Seed of the scenes; far from those of the benchmarks.
    """
    for split, count, start in (("train", train, seed), ("val", val, seed + 1)):
        (folder / split).mkdir()
        for index, (picture, _) in enumerate(small_objects(count, start)):
            picture.save(folder / split / f"{index:03}.jpg", quality=95, subsampling=0)
