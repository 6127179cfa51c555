"""Fits for towers that are no CLIP: places, statistics and targets are the tower's own, and the entry fits it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessor,
    Dinov2Config,
    Dinov2Model,
    InternVLVisionConfig,
    InternVLVisionModel,
    PreTrainedModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

import qlip
from qlip.cli import main
from qlip.core.quadtree import Quadtree
from qlip.towers.load import load_tower
from qlip.training.batch import Item, TrainBatch
from qlip.training.config import MLPConfig
from qlip.training.data import Photos, TrainingPhotos
from qlip.training.module import QlipModule
from qlip.training.sampler import SeededIndex
from tests.shaken import shake

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SQUARE = {**SMALL, "image_size": 56, "patch_size": 14}
MLP = MLPConfig(hidden=32, fourier=8, depth=2)
TOWERS: dict[str, Callable[[], PreTrainedModel]] = {
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**SQUARE)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**SQUARE)),
    "vit": lambda: ViTModel(ViTConfig(**SQUARE)),
    "internvit": lambda: InternVLVisionModel(InternVLVisionConfig(**SMALL, image_size=[56] * 2, patch_size=[14] * 2)),
}


def save(name: str, folder: Path) -> str:
    shake(TOWERS[name]()).save_pretrained(folder)
    sides = {"size": {"height": 56, "width": 56}}
    images = (
        SiglipImageProcessor(**sides)
        if name == "siglip"
        else BitImageProcessor(image_mean=[0.4] * 3, image_std=[0.2] * 3)
    )
    images.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", ["siglip", "dinov2"])
def test_a_fit_from_the_command_line_leaves_an_entry_that_fits_the_tower(
    name: str, fit_args: list[str], tmp_path: Path
) -> None:
    backbone = save(name, tmp_path / name)
    main(["fit", *fit_args, f"--model.backbone={backbone}", "--trainer.max_epochs=1"], "train.py")
    position = qlip.load("checkpoints/tiny")
    tower = qlip.load_tower(backbone)
    assert (position.grid, position.dim) == (4, 32)
    converted = qlip.convert(tower, position=position)
    assert converted.position is position
    fresh, last = (
        QlipModule(backbone, mlp=MLP).position,
        qlip.load("checkpoints/tiny-last"),
    )  # the best may be the start
    assert any(not torch.equal(a, b) for a, b in zip(last.parameters(), fresh.parameters(), strict=True))
    assert qlip.convert(tower, position="checkpoints/tiny-last").position.grid == 4


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_on_its_own_grid_the_solved_start_has_the_target(name: str, photos: Path, tmp_path: Path) -> None:
    """What the frozen tower says of its standard view is what the converted one says of whole patches, with its own places."""
    module = QlipModule(save(name, tmp_path), mlp=MLPConfig(hidden=128, fourier=24, depth=2))
    files = sorted((photos / "train").glob("*"))[:3]
    standard = module.view.processor(56, "square")
    assert standard.mean == ((0.5,) * 3 if name == "siglip" else (0.4,) * 3)
    pixels = torch.stack([standard.prepare(file) for file in files])
    targets = module.encode_standard(pixels)
    items = [Item(module.view.place(standard(file)), target) for file, target in zip(files, targets, strict=True)]
    batch = TrainBatch.collate(items)
    assert batch.coords.abs().max() == pytest.approx(1, abs=1e-6)  # the corners of the table
    assert module.losses(batch)["l_cls"] < 1e-6 * targets.square().mean()
    assert targets.std() > 0.01


@pytest.mark.parametrize("name", ["siglip", "dinov2"])
@torch.no_grad()
def test_at_other_sizes_places_are_those_of_the_converted_tower(name: str, photos: Path, tmp_path: Path) -> None:
    module = QlipModule(save(name, tmp_path), mlp=MLP)
    files = sorted((photos / "train").glob("*"))[:1]
    data = TrainingPhotos(Photos(files, torch.zeros(1, 32), [1]), 84, (0.3, 0.3), module.view)
    placed, *_ = data[SeededIndex(0, 0)]
    plain = module.view.processor(84, criterion="random", alpha=0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.rand(())
        batch = plain(files[0])
    assert torch.equal(placed.coords, module.vision.coords_of(placed))
    assert placed.coords.abs().max() > 1  # the outer patches of a larger picture stand outside
    assert batch.patches.shape[2:] == placed.patches.shape[2:]


def test_a_whole_siglip_gives_its_vision_side(tmp_path: Path) -> None:
    words = {**SMALL, "vocab_size": 32}
    whole = shake(SiglipModel(SiglipConfig(vision_config=SQUARE, text_config=words)))
    whole.save_pretrained(tmp_path)
    loaded = load_tower(str(tmp_path)).state_dict()
    own = whole.vision_model.state_dict()
    assert loaded.keys() == own.keys()
    assert all(torch.equal(loaded[name], own[name]) for name in own)


def test_a_merged_leaf_counts_as_the_patches_it_covers(tmp_path: Path) -> None:
    """Where a tower pools nothing, the mean is over the picture: one flat picture, cut or not, has one mean of its area."""
    module = QlipModule(save("internvit", tmp_path), mlp=MLP)
    merged = qlip.QlipImageProcessor(84, "square", Quadtree(1.0, "random", patch_size=14))
    batch = module.view.place(merged(Image.new("RGB", (84, 84), (200, 30, 60))))
    states = module.vision(batch, positions=module.position(batch.coords)).last_hidden_state[0, 1:]
    area = batch.geometry[0, :, 2].square()
    assert area.max() > 1
    expected = torch.repeat_interleave(states, area, dim=0).mean(0)
    got = module.encode_at(batch, module.position(batch.coords))[0]
    assert torch.allclose(got, expected, atol=1e-5)


def test_what_cannot_be_trained_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"backbone: got .*, a 'bert' model; takes one of clip_vision_model, dinov2, "):
        load_tower(str(tmp_path))
    bare = tmp_path / "bare"
    shake(TOWERS["dinov2"]()).save_pretrained(bare)
    with pytest.raises(ValueError, match=r"has no preprocessor_config.json, which says the mean"):
        QlipModule(str(bare), mlp=MLP)
    free = tmp_path / "free"
    Siglip2VisionModel(Siglip2VisionConfig(**SMALL, num_patches=36, patch_size=14)).save_pretrained(free)
    SiglipImageProcessor().save_pretrained(free)
    with pytest.raises(
        ValueError, match=r"backbone: got a Siglip2VisionModel, which resizes its table .* It needs no training"
    ):
        QlipModule(str(free), mlp=MLP)
