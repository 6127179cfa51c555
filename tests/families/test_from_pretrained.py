"""One way to load what was converted and saved, whatever it is; what is stock is said to be stock."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

import qlip
from qlip.evaluation.cell import Vision
from qlip.evaluation.run.arm import load_arm
from qlip.families.llava import QlipLlavaForConditionalGeneration, QlipLlavaProcessor
from tests.families.conftest import ONE


@pytest.fixture
def stock(llava, processor, tmp_path):
    model = copy.deepcopy(llava)
    model.generation_config = type(model.generation_config)()
    model.save_pretrained(tmp_path / "stock")
    processor.save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


@torch.no_grad()
def test_a_saved_pair(llava, processor, solved, pictures, tmp_path):
    llava.generation_config = type(llava.generation_config)()
    model, converted = qlip.convert(llava, processor, position=solved, quadtree=qlip.Quadtree(0.7), size=224)
    model.save_pretrained(tmp_path)
    converted.save_pretrained(tmp_path)
    loaded, other = qlip.from_pretrained(tmp_path, dtype=torch.float32)
    assert isinstance(loaded, QlipLlavaForConditionalGeneration)
    assert isinstance(other, QlipLlavaProcessor)
    assert other.image_processor.settings == converted.image_processor.settings
    inputs = [p(images=pictures[0], text=ONE, return_tensors="pt") for p in (converted, other)]
    assert torch.equal(model(**inputs[0]).logits, loaded(**inputs[1]).logits)


def test_pocket_llava_comes_converted(pictures):
    model, processor = qlip.from_pretrained("pocket-llava")
    inputs = processor(images=pictures[0], text="USER: <image>\nWhat is there ? ASSISTANT:", return_tensors="pt")
    assert model.generate(**inputs, min_new_tokens=2, max_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2


def test_a_stock_folder_is_said_to_be_stock(stock):
    with pytest.raises(OSError, match=r"has no qlip.safetensors, so it is stock.*qlip\.convert\(model, processor\)"):
        qlip.from_pretrained(stock)
    with pytest.raises(OSError, match=r"has no qlip.json, so it is stock"):
        QlipLlavaProcessor.from_pretrained(stock)


def test_a_position_that_went_missing_is_missed(llava, processor, solved, tmp_path):
    llava.generation_config = type(llava.generation_config)()
    model, converted = qlip.convert(llava, processor, position=solved)
    model.save_pretrained(tmp_path)
    converted.save_pretrained(tmp_path)
    (
        tmp_path / "qlip.safetensors"
    ).unlink()  # qlip.json alone is enough for towers that rotate, and this one has a table
    with pytest.raises(OSError, match=r"has no qlip.safetensors"):
        qlip.from_pretrained(tmp_path)


def test_a_stock_folder_converts_as_the_message_says(stock):
    model = LlavaForConditionalGeneration.from_pretrained(stock)
    model, processor = qlip.convert(model, AutoProcessor.from_pretrained(stock), position="zero")
    assert isinstance(processor, QlipLlavaProcessor)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        qlip.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, name: tensors.pop(name), "lacks the weights .*fc1.weight"),
        (lambda tensors, name: tensors[name].fill_(torch.nan), "has values that are not finite in .*fc1.weight"),
    ],
)
def test_a_model_without_all_its_weights_is_refused(llava, processor, change, message, tmp_path):
    llava.generation_config = type(llava.generation_config)()
    model, converted = qlip.convert(llava, processor)
    model.save_pretrained(tmp_path)
    converted.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors, next(name for name in tensors if name.endswith("fc1.weight")))
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    for load in (qlip.from_pretrained, QlipLlavaForConditionalGeneration.from_pretrained):
        with pytest.raises(ValueError, match=f"model: .*{message}"):
            load(tmp_path)
    for vision in (Vision(), Vision(baseline="own")):
        with pytest.raises(ValueError, match=f"model: .*{message}"):
            load_arm(str(tmp_path), vision)
