"""The vision tower against Hugging Face's own, and against CLIP's modules called one after the other."""

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection

from qlip import PatchBatch, PositionMLP, QlipVisionModel, Quadtree
from qlip.towers.load import load_clip, position_table, vision_tower
from qlip.towers.synthetic import random_clip, random_clip_from_name
from qlip.zoo.solve import solved_position

SHAPES = {  # image side and patch side of the CLIPs in use
    "B/32": (224, 32),
    "B/16": (224, 16),
    "L/14": (224, 14),
    "L/14@336": (336, 14),
    "H/14": (224, 14),
}
ATTENTION = ("eager", "sdpa")


def uniform(images: torch.Tensor, patch_size: int = 14) -> PatchBatch:
    tree = Quadtree(criterion="uniform", patch_size=patch_size)
    return PatchBatch.collate(PatchBatch.from_image(image, tree(image)) for image in images)


def random_images(*shapes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *shape, generator=generator) for shape in shapes]


def mixed(image: torch.Tensor, seed: int = 0) -> PatchBatch:
    """Leaves of several sizes."""
    torch.manual_seed(seed)
    leaves = Quadtree(0.5, "random")(image)
    assert len(leaves.size.unique()) > 1
    return PatchBatch.from_image(image, leaves)


def assert_close(got: torch.Tensor, expected: torch.Tensor, within: float = 1e-5) -> None:
    """Largest difference relative to the largest entry: hidden states of CLIP reach tens and hundreds."""
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= within * expected.abs().max()


@torch.no_grad()
def assert_same_as_hugging_face(clip: CLIPVisionModelWithProjection, side: int, patch: int, position: str) -> None:
    images = torch.stack(random_images((side, side), (side, side)))
    expected = clip(images, output_hidden_states=True)
    pooled = clip.vision_model(images).pooler_output
    got = QlipVisionModel.from_clip(clip, position)(uniform(images, patch), output_hidden_states=True)
    assert len(got.hidden_states) == len(expected.hidden_states)
    for ours, theirs in zip(got.hidden_states, expected.hidden_states, strict=True):
        assert_close(ours, theirs)
    assert_close(got.last_hidden_state, expected.last_hidden_state)
    assert_close(got.pooler_output, pooled)
    assert_close(got.image_embeds, expected.image_embeds)
    assert (got.image_embeds[0] - got.image_embeds[1]).abs().max() > 1e-2 * got.image_embeds.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_uniform_leaves_at_native_size_are_clip(shape):
    side, patch = SHAPES[shape]
    clip = random_clip(64, 2, image_size=side, patch_size=patch)
    assert_same_as_hugging_face(clip, side, patch, "bicubic")


@pytest.mark.parametrize("position", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize("attention", ATTENTION)
def test_every_table_and_attention_is_clip(attention, position):
    clip = random_clip(128, 3, image_size=112)
    clip.set_attn_implementation(attention)
    assert_same_as_hugging_face(clip, 112, 14, position)


@torch.no_grad()
def test_deep_towers_agree_too():
    assert_same_as_hugging_face(random_clip(64, 12, image_size=112), 112, 14, "bicubic")


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("side", [84, 154, 224])
@torch.no_grad()
def test_other_sizes_equal_a_clip_whose_table_was_resized(side, mode):
    clip = random_clip(64, 2, image_size=112)
    resized = random_clip(64, 2, image_size=side)
    resized.load_state_dict({k: v for k, v in clip.state_dict().items() if "position" not in k}, strict=False)
    weight = clip.vision_model.embeddings.position_embedding.weight
    planes = weight[1:].view(8, 8, 64).permute(2, 0, 1)[None]
    table = F.interpolate(planes, size=(side // 14, side // 14), mode=mode, align_corners=True)
    rows = torch.cat([weight[:1], table[0].flatten(1).T])
    resized.vision_model.embeddings.position_embedding.weight.copy_(rows)

    images = torch.stack(random_images((side, side)))
    got = QlipVisionModel.from_clip(clip, mode)(uniform(images))
    expected = resized(images)
    assert_close(got.last_hidden_state, expected.last_hidden_state)
    assert_close(got.image_embeds, expected.image_embeds)


@torch.no_grad()
def test_mixed_leaves_equal_clips_modules_by_hand():
    clip = random_clip(64, 3, image_size=112)
    (image,) = random_images((168, 224))
    batch = mixed(image)
    position = PositionMLP(64, 8, hidden=128)
    tower = clip.vision_model
    tokens = [tower.embeddings.patch_embedding(patch[None]).flatten() for patch in batch.patches[0]]
    encodings = [position(centre) for centre in batch.coords[0]]
    first = tower.embeddings.class_embedding + tower.embeddings.position_embedding(torch.tensor(0))
    states = torch.stack([first, *(a + b for a, b in zip(tokens, encodings, strict=True))])[None]
    states = tower.encoder(inputs_embeds=tower.pre_layrnorm(states)).last_hidden_state
    pooled = tower.post_layernorm(states[:, 0])

    got = QlipVisionModel.from_clip(clip, position)(batch)
    assert_close(got.last_hidden_state, states)
    assert_close(got.pooler_output, pooled)
    assert_close(got.image_embeds, clip.visual_projection(pooled))


@pytest.mark.parametrize("attention", ATTENTION)
@torch.no_grad()
def test_a_ragged_batch_equals_its_images_one_by_one(attention):
    clip = random_clip(64, 3, image_size=112)
    clip.set_attn_implementation(attention)
    model = QlipVisionModel.from_clip(clip, "bicubic")
    singles = [mixed(image, seed) for seed, image in enumerate(random_images((112, 112), (168, 70), (280, 224)))]
    counts = [single.mask.shape[1] for single in singles]
    assert len(set(counts)) == 3
    batch = PatchBatch.collate(singles)
    batch.patches[~batch.mask] = 100.0  # whatever padding holds, nobody may see it
    together = model(batch, output_hidden_states=True)
    for i, single in enumerate(singles):
        alone = model(single, output_hidden_states=True)
        assert_close(together.image_embeds[i], alone.image_embeds[0])
        for a, b in zip(together.hidden_states, alone.hidden_states, strict=True):
            assert_close(a[i, : 1 + counts[i]], b[0])


@torch.no_grad()
def test_the_solved_position_keeps_cls():
    clip = random_clip(64, 4)
    images = torch.stack(random_images((336, 336)))
    got = QlipVisionModel.from_clip(clip, "solve")(uniform(images))
    expected = clip(images)
    assert_close(got.pooler_output, clip.vision_model(images).pooler_output, 1e-3)
    assert_close(got.image_embeds, expected.image_embeds, 1e-3)


@torch.no_grad()
def test_positions_matter_and_zero_has_none():
    clip = random_clip(64, 3, image_size=112)
    (image,) = random_images((112, 112))
    batch = uniform(image[None])
    shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    moved = PatchBatch(batch.patches[:, shuffled], batch.coords, batch.mask)
    for position, changes in (("bicubic", True), ("zero", False)):
        model = QlipVisionModel.from_clip(clip, position)
        a, b = model(batch).pooler_output, model(moved).pooler_output
        assert ((a - b).abs().max() > 1e-3 * a.abs().max()) == changes


def test_given_positions_replace_the_models_own_and_carry_gradients():
    clip = random_clip(64, 2, image_size=112)
    model = QlipVisionModel.from_clip(clip, "bicubic")
    (image,) = random_images((112, 112))
    batch = uniform(image[None])
    positions = model.position(batch.coords).detach().requires_grad_()
    got = QlipVisionModel.from_clip(clip, "zero")(batch, positions=positions).image_embeds
    assert torch.equal(got, model(batch).image_embeds)
    got.square().sum().backward()
    assert positions.grad.abs().amax(-1).min() > 0


def test_clip_stays_as_it_was_and_its_weights_are_shared():
    clip = random_clip(64, 2, image_size=112)
    images = torch.stack(random_images((112, 112)))
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    modules, output = dict(clip.named_modules()), clip(images).image_embeds
    model = QlipVisionModel.from_clip(clip, "solve")
    model(uniform(images)).image_embeds.sum().backward()
    after = clip.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {name: id(m) for name, m in modules.items()} == {name: id(m) for name, m in clip.named_modules()}
    assert torch.equal(clip(images).image_embeds, output)

    pointers = {parameter.data_ptr() for parameter in clip.parameters()}
    own = [name for name, parameter in model.named_parameters() if parameter.data_ptr() not in pointers]
    assert own
    assert all(name.startswith("position.") for name in own)
    assert len({parameter.data_ptr() for parameter in model.parameters()} & pointers) == len(pointers)


def test_every_kind_of_clip_is_taken():
    clip = random_clip(64, 2, image_size=112)
    vision = CLIPVisionModel(clip.config)
    vision.load_state_dict(clip.vision_model.state_dict(), strict=False)
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = CLIPModel(CLIPConfig(text_config=text, vision_config=clip.config.to_dict(), projection_dim=32)).eval()
    images = torch.stack(random_images((112, 112)))
    batch = uniform(images)
    for model in (clip, vision_tower(clip), whole):
        assert vision_tower(model) is vision_tower(vision_tower(model))
    assert QlipVisionModel.from_clip(vision_tower(clip), "bicubic")(batch).image_embeds is None
    got = QlipVisionModel.from_clip(whole, "bicubic")(batch)
    pooled = whole.vision_model(images).pooler_output
    assert_close(got.pooler_output, pooled)
    assert_close(got.image_embeds, whole.visual_projection(pooled))


@torch.no_grad()
def test_a_bfloat16_tower_keeps_its_position_in_float32():
    clip = random_clip(64, 2, image_size=112).bfloat16()
    model = QlipVisionModel.from_clip(clip, solved_position(position_table(clip).float(), hidden=128))
    images = torch.stack(random_images((112, 112)))
    got = model(uniform(images))
    assert got.image_embeds.dtype == torch.bfloat16
    assert model.position.readout.weight.dtype == torch.float32
    assert_close(got.image_embeds.float(), clip(images.bfloat16()).image_embeds.float(), 0.05)


def test_the_table_is_clips_without_the_class_token():
    clip = random_clip(64, 1, image_size=112)
    table = position_table(clip)
    assert table.shape == (8, 8, 64)
    assert torch.equal(table[2, 5], clip.vision_model.embeddings.position_embedding.weight[1 + 2 * 8 + 5])
    assert not table.requires_grad


def test_solved_positions_are_the_same_every_time_and_leave_the_random_state_alone():
    table = position_table(random_clip(64, 1, image_size=112))
    torch.manual_seed(5)
    first = solved_position(table, hidden=128)
    after = torch.rand(1)
    torch.manual_seed(6)
    second = solved_position(table, hidden=128)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_random_clip_is_a_function_of_its_arguments():
    torch.manual_seed(0)
    first = random_clip_from_name("random:64x2")
    torch.manual_seed(1)
    second = load_clip("random:64x2")
    other = random_clip(64, 2, seed=1)
    assert all(torch.equal(a, second.state_dict()[name]) for name, a in first.state_dict().items())
    assert not torch.equal(first.visual_projection.weight, other.visual_projection.weight)
    assert first.config.image_size // first.config.patch_size == 24


@pytest.mark.parametrize("kind", [CLIPVisionModel, CLIPVisionModelWithProjection])
def test_load_clip_takes_a_folder(tmp_path, kind):
    clip = random_clip(64, 1, image_size=112)
    saved = clip if kind is CLIPVisionModelWithProjection else clip.vision_model
    saved.save_pretrained(tmp_path)
    loaded = load_clip(str(tmp_path))
    assert isinstance(loaded, kind)
    weights = loaded.state_dict()
    assert weights.keys() == saved.state_dict().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved.state_dict().items())


CLIP = random_clip(64, 1, image_size=112)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: QlipVisionModel.from_clip(torch.nn.Linear(2, 2)), TypeError, "clip: got Linear; takes a CLIPModel"),
        (
            lambda: QlipVisionModel.from_clip(CLIP, "zero")(uniform(torch.zeros(1, 3, 64, 64), 16)),
            ValueError,
            r"patches of shape \(3, 16, 16\); this tower takes \(3, 14, 14\). Set patch_size=14",
        ),
        (lambda: load_clip("random:64"), ValueError, "got 'random:64'; takes random:<width>x<layers>"),
    ],
)
def test_errors_say_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_model_that_is_no_clip_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="a 'bert' model; takes a CLIP"):
        load_clip(str(tmp_path))
