"""LLaVA over SigLIP, which has no class token: as LLaVA over CLIP, with the family and the tower in files of their own."""

import pytest
import torch
from transformers import LlavaForConditionalGeneration, SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

import qlip
from qlip import Quadtree
from tests.families.conftest import ONE, TWO
from tests.families.tiny_llava import scene, tiny_llava, tiny_processor
from tests.shaken import shake

SIDE = 12 * 14


@pytest.fixture
def llava() -> LlavaForConditionalGeneration:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = SiglipVisionConfig(**sizes, image_size=SIDE, patch_size=14, vision_use_head=False)
    return shake(tiny_llava(strategy="full", tower=SiglipVisionModel(config)))


@pytest.fixture
def processor():
    processor = tiny_processor()
    processor.image_processor = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    processor.vision_feature_select_strategy, processor.num_additional_image_tokens = "full", 0
    return processor


def words_of(model, inputs):
    return model.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1] :].tolist()


@torch.no_grad()
def test_logits_and_answers_are_those_of_the_stock_model(llava, processor):
    picture = scene(SIDE, SIDE, 4)
    stock = processor(images=picture, text=ONE, return_tensors="pt")
    expected, answer = llava(**stock).logits, words_of(llava, stock)
    tree = Quadtree(criterion="uniform")
    model, converted = qlip.convert(llava, processor, position="bicubic", quadtree=tree, size=SIDE)
    assert converted.image_processor.settings.mean == tuple(processor.image_processor.image_mean)
    inputs = converted(images=picture, text=ONE, return_tensors="pt")
    assert inputs["input_ids"].tolist() == stock["input_ids"].tolist()
    got = model(**inputs).logits
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()
    assert words_of(model, inputs) == answer


@torch.no_grad()
def test_a_ragged_batch_answers_as_its_prompts_alone(llava, processor):
    model, converted = qlip.convert(llava, processor, quadtree=Quadtree(0.5), size=224)
    pictures = [scene(224, 224, 0), scene(360, 240, 1), scene(230, 400, 2)]
    batch = converted(images=pictures, text=[ONE, TWO], return_tensors="pt", padding=True)
    alone = [
        converted(images=images, text=[text], return_tensors="pt")
        for images, text in ((pictures[:1], ONE), (pictures[1:], TWO))
    ]
    assert words_of(model, batch) == [words_of(model, inputs)[0] for inputs in alone]


@torch.no_grad()
def test_it_is_saved_loaded_and_restored(llava, processor, tmp_path):
    picture = scene(SIDE, SIDE, 4)
    expected = llava(**processor(images=picture, text=ONE, return_tensors="pt")).logits
    model, converted = qlip.convert(llava, processor, position="nearest", quadtree=Quadtree(0.5), size=224)
    inputs = converted(images=picture, text=ONE, return_tensors="pt")
    model.generation_config.eos_token_id = 2  # transformers saves no None
    for each in (model, converted):
        each.save_pretrained(tmp_path)
    loaded, other = qlip.from_pretrained(tmp_path)
    assert torch.equal(loaded(**other(images=picture, text=ONE, return_tensors="pt")).logits, model(**inputs).logits)
    restored = qlip.restore(model)
    assert torch.equal(restored(**processor(images=picture, text=ONE, return_tensors="pt")).logits, expected)
