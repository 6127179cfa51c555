"""With CLIP's own grid and table nothing changes; LLaVA's configuration says which features are used."""

import copy

import pytest
import torch

import qlip
from qlip import PatchBatch, Quadtree
from qlip.core.quadtree import Leaves
from qlip.images.pixels import to_batch
from tests.families.conftest import ONE
from tests.families.tiny_llava import scene, tiny_llava

UNIFORM = Quadtree(criterion="uniform")


def both(model, processor, text=ONE):
    """Logits of the stock model, and of the same one converted, on the same picture in CLIP's own format."""
    picture = scene(336, 336, 4)  # no resampling: transformers and PIL round it differently
    stock = processor(images=picture, text=text, return_tensors="pt")
    expected = model(**stock).logits
    model, converted = qlip.convert(model, processor, position="bicubic", quadtree=UNIFORM, crop="square")
    inputs = converted(images=picture, text=text, return_tensors="pt")
    assert torch.allclose(to_batch(inputs["pixel_values"]).patches[0, 25, :, 0, 0], stock["pixel_values"][0, :, 14, 14])
    assert inputs["input_ids"].tolist() == stock["input_ids"].tolist()
    return expected, model(**inputs).logits


@pytest.mark.parametrize("layer", [-2, -1, 1, [-2, -3]], ids=str)
def test_logits_are_those_of_the_stock_model(processor, layer):
    expected, got = both(tiny_llava(layer), processor)
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()
    assert expected.std() > 1


def test_the_class_token_stays_where_the_configuration_keeps_it(processor):
    whole = copy.deepcopy(processor)
    whole.vision_feature_select_strategy = "full"
    expected, got = both(tiny_llava(strategy="full"), whole)
    assert expected.shape[1] == 577 + 7
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


def test_feature_layer_and_strategy_of_a_call_go_before_the_configuration(pair, pictures):
    model, processor = pair
    pixels = processor(images=pictures[0], text=ONE)["pixel_values"]
    last = model.get_image_features(pixels, vision_feature_layer=-1).pooler_output[0]
    full = model.get_image_features(pixels, vision_feature_select_strategy="full").pooler_output[0]
    usual = model.get_image_features(pixels).pooler_output[0]
    assert not torch.allclose(last, usual)
    assert torch.equal(full[1:], usual)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_in_the_tower_changes_nothing(own_pair, pictures, attention):
    model, processor = own_pair
    model.set_attn_implementation(attention)
    pixels = processor(images=pictures, text=["<image>"] * 3, return_tensors="pt", padding=True)["pixel_values"]
    together = model.get_image_features(pixels).pooler_output
    for pair_of_one, features in zip(pixels, together, strict=True):
        assert torch.allclose(model.get_image_features([pair_of_one]).pooler_output[0], features, atol=1e-4)


def test_a_patch_batch_is_taken_too(pair, pictures):
    model, processor = pair
    pixels = processor(images=pictures, text=["<image>"] * 3, return_tensors="pt", padding=True)["pixel_values"]
    batch = processor.image_processor.settings(pictures)
    assert isinstance(batch, PatchBatch)
    for a, b in zip(
        model.get_image_features(batch).pooler_output, model.get_image_features(pixels).pooler_output, strict=True
    ):
        assert torch.allclose(a, b, atol=1e-5)


def test_pairs_hold_patches_and_leaves(pair, pictures):
    settings = pair[1].image_processor.settings
    for picture, (patches, geometry) in zip(
        pictures, pair[1](images=pictures, text=["<image>"] * 3)["pixel_values"], strict=True
    ):
        seen, leaves = settings.cut(picture)
        got = Leaves.from_geometry(geometry)
        assert (got.grid, len(got)) == (leaves.grid, len(patches))
        assert torch.equal(got.coords(), leaves.coords())
        torch.testing.assert_close(patches, qlip.patchify(seen.floats, leaves), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "pixels",
    [torch.zeros(1, 3, 336, 336), [torch.zeros(3, 336, 336)], [(torch.zeros(4, 3, 14, 14), torch.zeros(4, 5))], [None]],
    ids=["dense", "images", "float leaves", "nothing"],
)
def test_pixels_of_an_unconverted_processor_are_refused(pair, pixels):
    with pytest.raises(TypeError, match=r"pixel_values: got .* Use the processor that qlip\.convert"):
        pair[0].get_image_features(pixels)


def test_a_stock_processor_is_refused_by_generate(pair, processor):
    inputs = processor(images=scene(336, 336, 4), text=ONE, return_tensors="pt")
    with pytest.raises(TypeError, match=r"pixel_values: got a tensor \(1, 3, 336, 336\)"):
        pair[0].generate(**inputs)
