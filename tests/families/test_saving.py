"""A converted pair is saved as a plain LLaVA and two files of ours; the loaded pair answers identically."""

import copy
import json

import pytest
import safetensors.torch
import torch
from transformers import AutoProcessor, CLIPImageProcessor, LlavaForConditionalGeneration, LlavaProcessor

import qlip
from qlip import Quadtree, TablePosition
from qlip.families.llava import QlipLlavaForConditionalGeneration, QlipLlavaProcessor
from tests.families.conftest import ONE, TWO
from tests.families.tiny_llava import scene

TREE = Quadtree(alpha=0.7, criterion="gradient", cover="full")


@pytest.fixture(scope="session")
def saved(_llava, processor, solved, tmp_path_factory):
    """Folders of a stock pair and of a converted one, and that pair."""
    plain, ours = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("ours")
    model = copy.deepcopy(_llava)
    model.generation_config = type(model.generation_config)()  # the fixture's own settings are not all to be saved
    model.save_pretrained(plain)
    processor.save_pretrained(plain)
    model, converted = qlip.convert(model, processor, position=solved, quadtree=TREE, size=224, pad="square")
    model.save_pretrained(ours)
    converted.save_pretrained(ours)
    return plain, ours, model, converted


def test_the_loaded_pair_answers_identically(saved, pictures):
    _, ours, model, converted = saved
    other = QlipLlavaForConditionalGeneration.from_pretrained(ours)
    processor = QlipLlavaProcessor.from_pretrained(ours)
    assert processor.image_processor.settings == converted.image_processor.settings
    assert type(other) is type(model)
    inputs = [p(images=pictures, text=[ONE, TWO], return_tensors="pt", padding=True) for p in (converted, processor)]
    assert inputs[0]["input_ids"].tolist() == inputs[1]["input_ids"].tolist()
    assert torch.equal(model(**inputs[0]).logits, other(**inputs[1]).logits)
    assert type(qlip.restore(other)) is LlavaForConditionalGeneration


def test_the_checkpoint_is_a_plain_one(saved):
    plain, ours, *_ = saved
    files = {path.name for path in ours.iterdir()} - {path.name for path in plain.iterdir()}
    assert files == {"qlip.safetensors", "qlip.json"}
    weights = [safetensors.torch.load_file(folder / "model.safetensors") for folder in (plain, ours)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    config = json.loads((ours / "config.json").read_text())
    assert config.pop("qlip_weighting") == "once"  # the one thing added: it says that the model was converted
    assert config == json.loads((plain / "config.json").read_text())
    for name in ("processor_config.json", "chat_template.jinja", "tokenizer.json"):
        assert (ours / name).read_text() == (plain / name).read_text()


def test_a_program_without_qlip_reads_it(saved, processor):
    plain, ours, *_ = saved
    picture = scene(300, 200, 1)
    outputs = []
    for folder in (plain, ours):
        model, loaded = LlavaForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        assert (type(model), type(loaded)) == (LlavaForConditionalGeneration, LlavaProcessor)
        assert isinstance(loaded.image_processor, CLIPImageProcessor)
        outputs.append(model(**loaded(images=picture, text=ONE, return_tensors="pt")).logits)
    assert torch.equal(*outputs)


def test_the_model_goes_on_after_saving(saved, pictures, tmp_path):
    _, _, model, converted = saved
    inputs = converted(images=pictures[0], text=ONE, return_tensors="pt")
    before = model(**inputs).logits
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert torch.equal(model(**inputs).logits, before)
    loaded, info = QlipLlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert torch.equal(loaded(**inputs).logits, before)
    assert not info["missing_keys"]


def test_dtype_and_device_map_are_passed_on(saved):
    model = QlipLlavaForConditionalGeneration.from_pretrained(saved[1], dtype=torch.bfloat16, device_map="auto")
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.position.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["bilinear", "zero"])
def test_table_positions_are_saved_too(llava, tmp_path, name):
    model = qlip.convert(llava, position=name)
    model.save_pretrained(tmp_path)
    position = QlipLlavaForConditionalGeneration.from_pretrained(tmp_path).position
    assert isinstance(position, TablePosition)
    assert position.mode == name
    assert torch.equal(position.table, model.position.table)


def test_what_cannot_be_saved_is_refused_before_anything_is_written(llava, processor, tmp_path):
    model, converted = qlip.convert(
        llava, processor, position=torch.sin, quadtree=Quadtree(criterion=lambda blocks: blocks.amax((-3, -2, -1)))
    )
    with pytest.raises(TypeError, match=r"position: got builtin_function_or_method; .* A function cannot be saved"):
        model.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="criterion: got the function <lambda>"):
        converted.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_saving_never_touches_the_network(pair, tmp_path):
    for part in pair:
        with pytest.raises(ValueError, match="push_to_hub: got True; save here first"):
            part.save_pretrained(tmp_path, push_to_hub=True)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_our_files_is_refused(saved):
    with pytest.raises(OSError, match=r"qlip\.safetensors"):
        QlipLlavaForConditionalGeneration.from_pretrained(saved[0])
    with pytest.raises(OSError, match=r"qlip\.json"):
        QlipLlavaProcessor.from_pretrained(saved[0])
