"""Every tower against its own class of transformers, one row each: adding a tower is adding a row."""

from collections import Counter
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
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    Gemma4VisionConfig,
    Gemma4VisionModel,
    InternVLVisionConfig,
    InternVLVisionModel,
    PixtralVisionConfig,
    PixtralVisionModel,
    PreTrainedModel,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionConfig, Idefics3VisionTransformer
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionConfig, SmolVLMVisionTransformer

import qlip
from qlip import PatchBatch, QlipVisionModel, Quadtree
from qlip.towers.base import TOWERS, find_tower
from qlip.towers.packing import takes_mask
from tests.operation_counters import Operations
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
        stock: Runs it on pictures ``(B, 3, H, W)``.
        position: With it the two are equal; None for what the tower itself does.
        solves: Whether it has a table, for which a position can be solved.
    """

    make: Callable[[], PreTrainedModel]
    grids: tuple[tuple[int, int], ...] = ()
    stock: Callable[..., BaseModelOutputWithPooling] = lambda tower, pictures, **options: tower(pictures, **options)
    position: str | None = "bicubic"
    solves: bool = True


def in_patches(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures as naflex and Gemma 4 take them: patches ``(B, N, p * p * 3)``, and (row, column) of each, ``(B, N, 2)``."""
    patches = pictures.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # (B, 3, h, p, w, p)
    rows, cols = patches.shape[2], patches.shape[4]
    at = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))
    return patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2), at.expand(len(pictures), -1, -1)


def naflex(tower: PreTrainedModel, pictures: Tensor, **options: object) -> BaseModelOutputWithPooling:
    patches, at = in_patches(pictures)
    return tower(patches, torch.ones(patches.shape[:2], dtype=torch.long), at[:, -1] + 1, **options)


def gemma4(tower: PreTrainedModel, pictures: Tensor, **options: object) -> BaseModelOutputWithPooling:
    """Gemma 4's tower without its pooling, which is the family's."""
    seen = {}
    hook = tower.encoder.register_forward_hook(lambda module, args, output: seen.update(last=output.last_hidden_state))
    patches, at = in_patches(pictures)
    hidden = tower(patches, at.flip(-1), **options).hidden_states
    hook.remove()
    return BaseModelOutputWithPooling(last_hidden_state=seen["last"], hidden_states=hidden)


FREE = {"position": None, "grids": ((20, 27), (9, 16))}  # the tower takes any picture, and places patches itself
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
    "Siglip2VisionModel": Row(
        lambda: Siglip2VisionModel(Siglip2VisionConfig(**SMALL, num_patches=GRID**2, patch_size=PATCH)),
        stock=naflex,
        **FREE,
    ),
    "Dinov2WithRegistersModel": Row(
        lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SQUARE, num_register_tokens=3)), **FREE
    ),
    "DINOv3ViTModel": Row(
        lambda: DINOv3ViTModel(DINOv3ViTConfig(**SQUARE, num_register_tokens=3)), **FREE, solves=False
    ),
    "PixtralVisionModel": Row(lambda: PixtralVisionModel(PixtralVisionConfig(**SQUARE)), **FREE, solves=False),
    "Gemma4VisionModel": Row(
        lambda: Gemma4VisionModel(
            Gemma4VisionConfig(
                **SMALL,
                num_key_value_heads=4,
                head_dim=16,
                patch_size=PATCH,
                position_embedding_size=64,
                pooling_kernel_size=1,
            )
        ),
        stock=gemma4,
        **FREE,
        solves=False,
    ),
    "Idefics3VisionTransformer": Row(
        lambda: Idefics3VisionTransformer(Idefics3VisionConfig(**SQUARE)), ((32, 16), (16, 48)), position="nearest"
    ),
    "SmolVLMVisionTransformer": Row(
        lambda: SmolVLMVisionTransformer(SmolVLMVisionConfig(**SQUARE)), ((32, 16), (16, 48)), position="nearest"
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
    expected = row.stock(tower, picture[None], output_hidden_states=True)
    got = qlip.convert(tower, position=row.position)(
        cut(picture, criterion="uniform", max_tokens=None), output_hidden_states=True
    )
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
        expected = row.stock(tower, picture[None], **asked)
        got = qlip.convert(tower, position=row.position)(cut(picture, criterion="uniform", max_tokens=None))
        assert_close(got.last_hidden_state, expected.last_hidden_state, 2e-5)


@torch.no_grad()
def test_a_solved_position_is_near_the_towers_own(row):
    tower = shake(row.make())
    if not row.solves:
        with pytest.raises(ValueError, match=r"position: got 'solve'; .* takes no position"):
            qlip.convert(tower, position="solve")
        return
    picture = image(GRID, GRID)
    expected = row.stock(tower, picture[None]).last_hidden_state
    assert_close(
        qlip.convert(tower, position="solve")(cut(picture, criterion="uniform", max_tokens=None)).last_hidden_state,
        expected,
        1e-3,
    )


@torch.no_grad()
def test_a_ragged_batch_equals_its_images_one_by_one_and_budgets_hold(row):
    model = qlip.convert(shake(row.make()), position=row.position)
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
    model = qlip.convert(shake(row.make()), position=row.position)
    batch = cut(image(24, 25), max_tokens=200)
    moved = PatchBatch(batch.patches, batch.coords.flip(1), batch.mask, batch.geometry.flip(1))
    a, b = model(batch).last_hidden_state, model(moved).last_hidden_state
    assert (a - b).abs().max() > 0.01 * a.abs().max()


def test_a_converted_tower_says_where_it_is_and_is_saved_and_restored(row, tmp_path):
    tower = shake(row.make())
    processor = qlip.QlipImageProcessor(size=224, quadtree=Quadtree(0.3, patch_size=PATCH))
    model = qlip.convert(tower, position="bilinear" if row.solves else None)
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    other = qlip.convert(row.make(), position="zero" if row.solves else None)
    assert other.to(torch.bfloat16).dtype == torch.bfloat16
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, settings = qlip.from_pretrained(tmp_path)
    assert settings == processor
    batch = cut(image(GRID, 20), max_tokens=90)
    with torch.no_grad():
        assert torch.equal(loaded(batch).last_hidden_state, model(batch).last_hidden_state)
        stock = type(tower).from_pretrained(tmp_path)
        picture = image(GRID, GRID)[None]
        assert torch.equal(row.stock(stock, picture)[0], row.stock(tower, picture)[0])
    assert qlip.restore(model) is tower


def test_a_tower_that_looks_at_edges_needs_the_geometry():
    model = qlip.convert(shake(ROWS["SiglipVisionModel"].make()), position="bicubic")
    batch = cut(image(GRID, GRID))
    with pytest.raises(
        ValueError, match=r"batch.geometry: got None; a SiglipVisionModel with weighting='once' needs more"
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


def repeated(batch: PatchBatch) -> PatchBatch:
    """Each leaf of a single image as often as it has patches, all copies in one place."""
    times = batch.geometry[0, :, 2].square()
    values = (batch.patches, batch.coords, batch.mask, batch.geometry)
    return PatchBatch(*(value.repeat_interleave(times, dim=1) for value in values))


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_leaf_counted_by_its_area_is_as_many_tokens_as_it_has_patches(row, attention):
    tower = shake(row.make())
    if not takes_mask(type(next(QlipVisionModel(tower, None).layers())).forward):
        with pytest.raises(ValueError, match="weighting: got 'area'; a InternVLVisionLayer takes no mask"):
            qlip.convert(tower, weighting="area")
        return
    tower.set_attn_implementation(attention)
    by_area = qlip.convert(tower, position=row.position, weighting="area")
    once = qlip.convert(tower, position=row.position, weighting="once")
    singles = [cut(image(GRID, GRID), max_tokens=100), cut(image(20, 27), max_tokens=252)]
    together = by_area(PatchBatch.collate(singles))
    assert (together.last_hidden_state - once(PatchBatch.collate(singles)).last_hidden_state).abs().max() > 0.01
    for i, batch in enumerate(singles):
        expected = once(repeated(batch))
        prefix, sizes = by_area.tower.prefix_length, batch.geometry[0, :, 2]
        first = torch.cat([torch.arange(prefix), prefix + sizes.square().cumsum(0) - sizes.square()])
        got = together.last_hidden_state[i, : len(first)]
        assert_close(got, expected.last_hidden_state[0, first])
        if expected.pooler_output is not None:
            assert_close(together.pooler_output[i], expected.pooler_output[0])
        alone = by_area(batch)
        assert_close(alone.last_hidden_state[0], got)


@torch.no_grad()
def test_where_nothing_merged_area_costs_a_look_at_the_sizes_and_nothing_else(row):
    tower, counted = shake(row.make()), {}
    if not takes_mask(type(next(QlipVisionModel(tower, None).layers())).forward):
        return
    whole = [cut(image(GRID, GRID), criterion="uniform"), cut(image(20, 27), criterion="uniform")]
    for weighting in ("once", "area"):
        model, biases = qlip.convert(tower, position=row.position, weighting=weighting), []
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, args, told, seen=biases: seen.append(told["attention_mask"]), with_kwargs=True
            )
            for layer in model.layers()
        ]
        for batch in (PatchBatch.collate(whole), PatchBatch.collate(whole[:1] * 2)):  # in one row, in a row each
            with Operations() as operations:
                model(batch)
            counted[weighting] = counted.get(weighting, Counter()) + operations.counts
        assert all(getattr(bias, "bias", bias) is None for bias in biases)
        model(cut(image(GRID, GRID), max_tokens=100))
        assert (getattr(biases[-1], "bias", biases[-1]) is not None) == (weighting == "area")
        for hook in hooks:
            hook.remove()
    looks = {"aten.select.int", "aten.slice.Tensor", "aten.clamp.default", "aten.gt.Scalar", "aten.any.default"}
    looks |= {"aten.is_nonzero.default", "aten._local_scalar_dense.default"}
    assert (counted["area"] - counted["once"]).keys() <= looks
    assert not counted["once"] - counted["area"]


def test_flash_attention_cannot_count_by_area():
    tower = shake(ROWS["SiglipVisionModel"].make())
    model = qlip.convert(tower, position="bicubic", weighting="area")
    tower.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=r"weighting: got 'area' with attn_implementation='flash_attention_2'.*'sdpa'"):
        model(cut(image(GRID, GRID), max_tokens=100))


@torch.no_grad()
def test_a_tower_saved_again_without_a_position_has_none(tmp_path):
    tower, batch = shake(ROWS["Siglip2VisionModel"].make()), cut(image(20, 27), max_tokens=200)
    (tmp_path / "notes.txt").write_text("mine")
    qlip.QlipImageProcessor(quadtree=Quadtree(patch_size=PATCH)).save_pretrained(tmp_path)
    for position in ("zero", None):
        model = qlip.convert(tower, position=position, weighting="area")
        model.save_pretrained(tmp_path)
        loaded, _ = qlip.from_pretrained(tmp_path)
        assert loaded.weighting == "area"
        assert torch.equal(loaded(batch).last_hidden_state, model(batch).last_hidden_state)
    assert (tmp_path / "notes.txt").read_text() == "mine"
