"""A folder of drawn photographs and a tiny CLIP, enough for whole training runs in seconds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qlip.core.patches import PatchBatch
from qlip.core.quadtree import Quadtree
from qlip.towers.synthetic import random_clip
from qlip.training.batch import Item


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("clip")
    random_clip(32, 2, image_size=56, patch_size=14).save_pretrained(folder)
    return str(folder)


def draw_photos(folder: Path, count: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        height, width = rng.integers(60, 130, 2)
        noise = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((int(width), int(height))).save(folder / f"{i:02}.png")
    return folder


def cut_images(*grids: tuple[int, int], width: int, seed: int = 0) -> list[Item]:
    """Noise of ``(h, w)`` patches each, some of it merged, with targets ``(width,)``."""
    generator, items = torch.Generator().manual_seed(seed), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for h, w in grids:
            image = torch.randn(3, 14 * h, 14 * w, generator=generator)
            (leaves,) = Quadtree(0.4, "random", cover="roots").batch(image[None])
            items.append(Item(PatchBatch.from_image(image, leaves), torch.randn(width, generator=generator)))
    return items


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    draw_photos(root / "train", 10)
    draw_photos(root / "val", 3, seed=1)
    return root


def arguments(clip_folder: str, photos: Path, folder: Path) -> list[str]:
    """Arguments of a short fit that keeps its cache in ``folder``; append to them, later ones win."""
    return [
        f"--model.backbone={clip_folder}", "--model.mlp.hidden=32", "--model.mlp.fourier=8", "--model.mlp.depth=2",
        f"--data.root={photos}", "--data.batch_size=2", "--data.workers=0", f"--data.cache_dir={folder}/cache",
        "--data.max_size=84", "--data.val_sizes=[42,56,84]", "--trainer.max_epochs=2",
        "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=1",
        "--seed_everything=0", "--export.name=tiny",
    ]  # fmt: skip


@pytest.fixture
def fit_args(clip_folder: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a short fit in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])  # Lightning warns of arguments from two sides
    return arguments(clip_folder, photos, tmp_path)
