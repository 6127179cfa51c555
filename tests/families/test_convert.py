"""What convert takes, what it refuses, what it shares, and that restore undoes it."""

import copy
import gc
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from transformers import (
    AutoModelForImageTextToText,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPVisionModel,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)
from transformers.models.llava.modeling_llava import LlavaModel

import qlip
from qlip import PositionMLP, QlipImageProcessor, QlipVisionModel, Quadtree, TablePosition
from qlip.families.clip import QlipCLIPModel, QlipCLIPProcessor
from qlip.families.llava import QlipLlavaForConditionalGeneration, QlipLlavaModel, QlipLlavaProcessor
from qlip.towers.base import position_table
from qlip.towers.synthetic import random_clip
from tests.families.conftest import ONE
from tests.families.tiny_llava import SPECIAL, WORDS, scene, tiny_tokenizer


@pytest.fixture(scope="session")
def clip() -> CLIPModel:
    """Image and text, with the same tower as the tiny LLaVA."""
    vision = random_clip(64, 3)
    text = CLIPTextConfig(
        vocab_size=len(SPECIAL + WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=32,
        eos_token_id=2,
        bos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision.vision_model.config, projection_dim=32)
    model = CLIPModel(config).eval()
    model.vision_model.load_state_dict(vision.vision_model.state_dict())
    return model


@pytest.fixture(scope="session")
def clip_processor() -> CLIPProcessor:
    return CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=336), tiny_tokenizer())


def storages() -> dict[int, int]:
    """Address and size of everything that tensors anywhere in the program hold."""
    gc.collect()
    tensors = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor) and not issubclass(type(x), FakeTensor)]
    tensors = [x for x in tensors if x.device.type == "cpu"]
    held = [x.untyped_storage() for x in tensors]
    return {x.data_ptr(): x.nbytes() for x in held}


def test_weights_are_shared_and_memory_grows_by_the_position_alone(llava, processor):
    before, addresses = storages(), {name: x.data_ptr() for name, x in llava.state_dict().items()}
    model, _ = qlip.convert(llava, processor, position="bicubic")
    after = storages()
    assert model is llava
    assert {name: x.data_ptr() for name, x in model.state_dict().items()} == addresses
    grown = sum(size for address, size in after.items() if address not in before)
    assert 0 < grown <= 1.01 * model.position.table.nbytes


def test_restore_gives_the_original_back_bit_for_bit(llava, processor, solved, pictures):
    inputs = processor(images=pictures[:1], text=ONE, return_tensors="pt")
    logits, weights = llava(**inputs).logits, copy.deepcopy(llava.state_dict())
    config, attributes = llava.config.to_json_string(), (set(vars(llava)), set(vars(llava.model)))
    model, converted = qlip.convert(llava, processor, position=solved)
    model.generate(**converted(images=pictures[:1], text=ONE, return_tensors="pt"), max_new_tokens=2)
    assert qlip.restore(model) is llava
    assert type(llava) is LlavaForConditionalGeneration
    assert type(llava.model) is LlavaModel
    assert (set(vars(llava)), set(vars(llava.model))) == attributes
    assert llava.config.to_json_string() == config
    assert weights.keys() == llava.state_dict().keys()
    assert all(torch.equal(weights[name], x) for name, x in llava.state_dict().items())
    assert torch.equal(llava(**inputs).logits, logits)
    assert qlip.convert(qlip.restore(qlip.convert(llava, position=solved)), position=solved) is llava


def test_the_old_processor_is_left_as_it_was(llava, processor, solved):
    before = processor.to_json_string(), processor.tokenizer.padding_side
    _, converted = qlip.convert(llava, processor, position=solved, size=224)
    assert isinstance(converted, QlipLlavaProcessor)
    assert (processor.to_json_string(), processor.tokenizer.padding_side) == before
    assert converted.tokenizer is not processor.tokenizer
    assert converted.tokenizer.padding_side == "left"
    assert converted.chat_template == processor.chat_template


@pytest.mark.parametrize("name", ["solve", "bicubic", "bilinear", "nearest", "zero"])
def test_positions_by_name(llava, name):
    position = qlip.convert(llava, position=name).position
    assert isinstance(position, PositionMLP if name == "solve" else TablePosition)
    table = position_table(llava.model.vision_tower)
    if name == "solve":
        assert position.residual(table)[0] < 1e-6
    else:
        assert (position.mode, torch.equal(position.table, table)) == (name, True)


def test_positions_of_the_zoo(llava, tmp_path):
    llava.model.vision_tower.save_pretrained(tmp_path)
    position = qlip.convert(llava, position=f"solve:{tmp_path}").position
    assert isinstance(position, PositionMLP)
    assert position.residual(position_table(llava.model.vision_tower))[0] < 1e-6


def test_a_position_that_nobody_has(llava):
    with pytest.raises(OSError, match="no-such-position"):
        qlip.convert(llava, position="no-such-position")
    assert type(llava) is LlavaForConditionalGeneration


def test_a_position_of_ones_own(llava):
    assert qlip.convert(llava, position=torch.sin).position is torch.sin


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        (
            {"position": PositionMLP(32, 24, 8, 1, 4)},
            ValueError,
            "24 x 24 grid of width 32; this tower has 24 x 24 of width 64",
        ),
        ({"position": PositionMLP(64, 16, 8, 1, 4)}, ValueError, "16 x 16 grid .* Fit one for it, or use 'solve'"),
        ({"position": 3}, TypeError, "position: got int"),
        (
            {"quadtree": Quadtree(patch_size=16)},
            ValueError,
            r"got patch_size=16; .* or pass quadtree=Quadtree\(patch_size=14\)",
        ),
        ({"size": 7}, ValueError, "size: got 7; takes at least one patch"),
        ({"crop": "middle"}, ValueError, "crop: got 'middle'"),
        ({"pad": "circle"}, ValueError, "pad: got 'circle'"),
        ({"processor": "me"}, TypeError, "processor: got str"),
        ({"processor": CLIPImageProcessor()}, TypeError, "takes a LlavaProcessor"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_changed(llava, processor, changes, error, says):
    with pytest.raises(error, match=says):
        qlip.convert(llava, **{"processor": processor, "position": "zero", **changes})
    assert type(llava) is LlavaForConditionalGeneration
    assert not hasattr(llava.model, "qlip")


def test_a_second_conversion_is_refused(pair, llava, clip, processor):
    tower = qlip.convert(clip.vision_model, position="zero")
    for model in (pair[0], tower):
        with pytest.raises(ValueError, match=r"converted already; qlip\.restore"):
            qlip.convert(model)
    with pytest.raises(ValueError, match="processor: got a QlipLlavaProcessor, which is converted already"):
        qlip.convert(llava, pair[1])


def test_unknown_models_are_refused(pair, llava, processor):
    for model in (
        llava.model.language_model,
        torch.nn.Linear(2, 2),
        LlamaForCausalLM(llava.config.text_config),
        "llava",
    ):
        with pytest.raises(TypeError, match=f"model: got {type(model).__name__}; takes a CLIPModel, CLIPVisionModel, "):
            qlip.convert(model)
        with pytest.raises(TypeError, match=r"takes what qlip\.convert returned"):
            qlip.restore(model)


def test_a_llava_with_another_tower_is_refused(llava):
    llava.model.vision_tower = torch.nn.Identity()
    with pytest.raises(TypeError, match="got LlavaModel with a Identity; takes a vision tower"):
        qlip.convert(llava)


def test_a_processor_of_another_model_is_refused(llava, processor):
    other = copy.deepcopy(processor)
    other.image_token_id = 7
    with pytest.raises(ValueError, match="'<image>' is token 7, the model's is 3"):
        qlip.convert(llava, other, position="zero")


def test_clip_towers(clip, clip_processor, pictures):
    with_projection = random_clip(64, 3)
    for tower in (clip.vision_model, with_projection):
        kind = type(tower)
        model, images = qlip.convert(tower, clip_processor.image_processor, position="bicubic", size=224)
        assert isinstance(model, QlipVisionModel)
        assert isinstance(images, QlipImageProcessor)
        assert (
            model.vision_model.embeddings.patch_embedding
            is getattr(tower, "vision_model", tower).embeddings.patch_embedding
        )
        assert not any("original" in name for name in model.state_dict())
        output = model(images(pictures))
        assert output.pooler_output.shape == (3, 64)
        assert (output.image_embeds is None) == (kind is CLIPVisionModel)
        assert qlip.restore(model) is tower
        assert type(tower) is kind
    with pytest.raises(TypeError, match=r"takes what qlip\.convert returned"):
        qlip.restore(QlipVisionModel.from_clip(clip, "zero"))


def test_clip_of_image_and_text(clip, clip_processor, pictures):
    words = ["a red circle", "the square in the picture"]
    square = [picture.resize((336, 336)) for picture in pictures]
    stock = clip(**clip_processor(text=words, images=square, return_tensors="pt", padding=True))
    tree = Quadtree(criterion="uniform")
    model, processor = qlip.convert(copy.deepcopy(clip), clip_processor, position="bicubic", quadtree=tree)
    assert isinstance(model, QlipCLIPModel)
    assert isinstance(processor, QlipCLIPProcessor)
    inputs = processor(text=words, images=square, return_tensors="pt", padding="max_length", max_length=8)
    output = model(**inputs)
    assert torch.allclose(model.get_image_features(inputs["pixel_values"]).pooler_output, output.vision_model_output[1])
    assert torch.allclose(output.image_embeds, stock.image_embeds, atol=1e-5)
    assert output.logits_per_image.shape == (3, 2)
    ragged = processor(text=words, images=pictures, return_tensors="pt", padding=True, alpha=1.0, size=224)
    assert len(set(map(len, (patches for patches, _ in ragged["pixel_values"])))) > 1
    assert processor.count_tokens(pictures, alpha=1.0, size=224) == [len(x) for x, _ in ragged["pixel_values"]]
    together = model(**ragged).image_embeds
    alone = model.get_image_features(ragged["pixel_values"][:1]).pooler_output[0]
    assert torch.allclose(together[0], alone / alone.norm(), atol=1e-5)
    assert type(qlip.restore(model)) is CLIPModel


def test_the_classes_are_what_they_were_to_those_who_ask_by_name(pair):
    model, _ = pair
    assert isinstance(model, QlipLlavaForConditionalGeneration)
    assert isinstance(model.model, QlipLlavaModel)
    assert (type(model).__name__, type(model.model).__name__) == ("LlavaForConditionalGeneration", "LlavaModel")
    assert type(model).__qualname__ == "QlipLlavaForConditionalGeneration"


def test_importing_qlip_changes_nothing_of_transformers():
    code = """
import transformers
from transformers.models.llava import modeling_llava, processing_llava
from transformers.models.clip import modeling_clip
import transformers.generation.utils as generation
modules = [modeling_llava, processing_llava, modeling_clip, generation, transformers.processing_utils]
classes = [x for m in modules for x in vars(m).values() if isinstance(x, type)]
before = {c: dict(vars(c)) for c in classes}, [dict(vars(m)) for m in modules]
auto = transformers.AutoModelForImageTextToText._model_mapping._extra_content
extra = dict(auto)
import qlip
after = {c: dict(vars(c)) for c in classes}, [dict(vars(m)) for m in modules]
assert before == after, "changed"
assert auto == extra
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_an_unconverted_llava_beside_a_converted_one_is_untouched(pair, llava, processor):
    inputs = processor(images=[scene(100, 80, 3)], text=ONE, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 336, 336)
    assert llava(**inputs).logits.shape[1] == 576 + 7
    assert type(llava) is LlavaForConditionalGeneration
    assert AutoModelForImageTextToText._model_mapping[type(llava.config)] is LlavaForConditionalGeneration
