"""Every tower against its own class of transformers, one row each: adding a tower is adding a row."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    InternVLVisionConfig,
    InternVLVisionModel,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionConfig, Idefics3VisionTransformer
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionConfig, SmolVLMVisionTransformer

import qlip
from qlip import PatchBatch, QlipVisionModel, Quadtree
from qlip.towers.base import TOWERS, find_tower
from tests.shaken import shake

GRID, PATCH = 16, 14
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
SQUARE = {**SMALL, "image_size": GRID * PATCH, "patch_size": PATCH}


@dataclass(frozen=True)
class Row:
    """A tower to try.

    Attributes:
        make: Builds it with few weights.
        grids: Other grids at which it equals its own interpolation.
        position: What its own interpolation is called.
    """

    make: Callable[[], PreTrainedModel]
    grids: tuple[tuple[int, int], ...] = ()
    position: str = "bicubic"


ROWS = {
    "CLIPVisionModel": Row(lambda: CLIPVisionModel(CLIPVisionConfig(**SQUARE))),
    "SiglipVisionModel": Row(lambda: SiglipVisionModel(SiglipVisionConfig(**SQUARE)), ((20, 27), (9, 16))),
    "ViTModel": Row(lambda: ViTModel(ViTConfig(**SQUARE)), ((20, 27), (9, 16))),
    "Dinov2Model": Row(lambda: Dinov2Model(Dinov2Config(**SQUARE)), ((20, 27), (9, 16))),
    "InternVLVisionModel": Row(
        lambda: InternVLVisionModel(
            InternVLVisionConfig(**SMALL, image_size=[GRID * PATCH] * 2, patch_size=[PATCH] * 2)
        ),
        ((20, 27), (9, 16)),
    ),
    "Idefics3VisionTransformer": Row(
        lambda: Idefics3VisionTransformer(Idefics3VisionConfig(**SQUARE)), ((32, 16), (16, 48)), "nearest"
    ),
    "SmolVLMVisionTransformer": Row(
        lambda: SmolVLMVisionTransformer(SmolVLMVisionConfig(**SQUARE)), ((32, 16), (16, 48)), "nearest"
    ),
}


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


def image(height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth ground and a noisy corner, ``(3, H, W)`` for a grid of ``height x width`` patches."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.linspace(-1, 1, width * PATCH).expand(3, height * PATCH, -1).clone()
    corner = picture[:, : height * PATCH // 2, : width * PATCH // 2]
    corner += torch.randn(corner.shape, generator=generator)
    return picture


def cut(picture: Tensor, **tree: object) -> PatchBatch:
    return PatchBatch.from_image(picture, Quadtree(patch_size=PATCH, cover="full", **tree)(picture))


def assert_close(got: Tensor, expected: Tensor, within: float = 1e-5) -> None:
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= within * expected.abs().max()


def test_every_tower_has_a_row():
    assert set(ROWS) == set(TOWERS)


@torch.no_grad()
def test_uniform_leaves_at_the_native_size_are_the_stock_tower(row):
    tower = shake(row.make())
    picture = image(GRID, GRID)
    expected = tower(picture[None], output_hidden_states=True)
    got = qlip.convert(tower, position="bicubic")(cut(picture, criterion="uniform"), output_hidden_states=True)
    assert_close(got.last_hidden_state, expected.last_hidden_state)
    assert (got.pooler_output is None) == (expected.pooler_output is None)
    if expected.pooler_output is not None:
        assert_close(got.pooler_output, expected.pooler_output)
    for ours, theirs in zip(got.hidden_states[:-1], expected.hidden_states[:-1], strict=True):
        assert_close(ours, theirs)


@torch.no_grad()
def test_other_sizes_are_the_towers_own_interpolation(row):
    tower = shake(row.make())
    for grid in row.grids:
        picture = image(*grid)
        asked = {"interpolate_pos_encoding": True} if row.position == "bicubic" else {}  # others always do
        expected = tower(picture[None], **asked)
        got = qlip.convert(tower, position=row.position)(cut(picture, criterion="uniform"))
        assert_close(got.last_hidden_state, expected.last_hidden_state, 2e-5)


@torch.no_grad()
def test_a_solved_position_is_near_the_towers_own(row):
    tower = shake(row.make())
    picture = image(GRID, GRID)
    expected = tower(picture[None]).last_hidden_state
    assert_close(qlip.convert(tower)(cut(picture, criterion="uniform")).last_hidden_state, expected, 1e-3)


@torch.no_grad()
def test_a_ragged_batch_equals_its_images_one_by_one_and_budgets_hold(row):
    model = qlip.convert(shake(row.make()), position="bicubic")
    shapes, budgets = ((GRID, GRID), (20, 27), (24, 25)), (100, 252, 301)
    singles = [cut(image(*shape), max_tokens=budget) for shape, budget in zip(shapes, budgets, strict=True)]
    batch = PatchBatch.collate(singles)
    assert all(0 <= budget - count <= 2 for budget, count in zip(budgets, batch.num_tokens.tolist(), strict=True))
    batch.patches[~batch.mask] = 100.0  # whatever padding holds, nobody may see it
    together = model(batch)
    for i, single in enumerate(singles):
        alone = model(single)
        assert_close(together.last_hidden_state[i, : alone.last_hidden_state.shape[1]], alone.last_hidden_state[0])
        if alone.pooler_output is not None:
            assert_close(together.pooler_output[i], alone.pooler_output[0])


@torch.no_grad()
def test_leaves_told_to_stand_elsewhere_are_encoded_otherwise(row):
    model = qlip.convert(shake(row.make()), position="bicubic")
    batch = cut(image(24, 25), max_tokens=200)
    moved = PatchBatch(batch.patches, batch.coords.flip(1), batch.mask, batch.geometry.flip(1))
    a, b = model(batch).last_hidden_state, model(moved).last_hidden_state
    assert (a - b).abs().max() > 0.01 * a.abs().max()


def test_a_converted_tower_says_where_it_is_and_is_saved_and_restored(row, tmp_path):
    tower = shake(row.make())
    processor = qlip.QlipImageProcessor(size=224, quadtree=Quadtree(0.3, patch_size=PATCH))
    model = qlip.convert(tower, position="bilinear")
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert qlip.convert(tower, position="zero").to(torch.bfloat16).dtype == torch.bfloat16
    tower.float()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, settings = qlip.from_pretrained(tmp_path)
    assert settings == processor
    batch = cut(image(GRID, 20), max_tokens=90)
    with torch.no_grad():
        assert torch.equal(loaded(batch).last_hidden_state, model(batch).last_hidden_state)
        stock = type(tower).from_pretrained(tmp_path)
        assert torch.equal(stock(image(GRID, GRID)[None])[0], tower(image(GRID, GRID)[None])[0])
    assert qlip.restore(model) is tower


def test_a_tower_that_looks_at_edges_needs_the_geometry():
    model = qlip.convert(shake(ROWS["SiglipVisionModel"].make()), position="bicubic")
    batch = cut(image(GRID, GRID))
    with pytest.raises(
        ValueError, match=r"batch.geometry: got None; a SiglipVisionModel places patches by the image's"
    ):
        model(PatchBatch(batch.patches, batch.coords, batch.mask))


def test_an_encoder_without_an_original_cannot_be_saved(tmp_path):
    model = QlipVisionModel.from_clip(ROWS["CLIPVisionModel"].make(), "zero")
    with pytest.raises(TypeError, match=r"takes one made by qlip\.convert"):
        model.save_pretrained(tmp_path)


def test_unknown_towers_are_named():
    with pytest.raises(
        TypeError,
        match=r"got Linear; takes a vision tower, or a model that holds one: CLIPVisionModel, .*SiglipVisionModel",
    ):
        find_tower(torch.nn.Linear(2, 2))
