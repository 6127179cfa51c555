"""Weights elsewhere, weights in four bits, weights shared: what happens around a model must not reach the position."""

import copy

import pytest
import torch
import torch.nn.functional as F
from accelerate import cpu_offload, disk_offload, dispatch_model
from torch import nn

import qlip
from qlip.towers.base import position_table
from qlip.towers.packing import PackedImages, Packing
from tests.families.conftest import ONE, TWO


@pytest.fixture(scope="session")
def inputs(pair, pictures):
    return pair[1](images=pictures, text=[ONE, TWO], return_tensors="pt", padding=True)


@pytest.fixture(scope="session")
def expected(pair, inputs):
    return pair[0].generate(**inputs, max_new_tokens=4, do_sample=False)


def to_disk(model, tmp_path):
    return disk_offload(model, str(tmp_path), execution_device="cpu")


def to_cpu(model, tmp_path):
    return cpu_offload(model, execution_device="cpu")


def by_parts(model, tmp_path):
    """As device_map="auto" with some of the parts on disk."""
    parts = {"model.vision_tower": "disk", "model.multi_modal_projector": "cpu", "model.language_model": "cpu"}
    return dispatch_model(model, {**parts, "lm_head": "disk"}, main_device="cpu", offload_dir=str(tmp_path))


@pytest.mark.parametrize("offload", [to_cpu, to_disk, by_parts])
@pytest.mark.parametrize("convert_first", [True, False])
def test_hooks_of_accelerate(llava, processor, solved, inputs, expected, tmp_path, offload, convert_first):
    if convert_first:
        model = offload(qlip.convert(llava, position=solved), tmp_path)
    else:
        model = qlip.convert(offload(llava, tmp_path), position=solved)
    assert model.model.vision_tower.embeddings.class_embedding.device.type == "meta"
    assert model.generate(**inputs, max_new_tokens=4, do_sample=False).tolist() == expected.tolist()
    assert model.model.vision_tower.embeddings.class_embedding.device.type == "meta"


def test_positions_are_made_from_offloaded_weights(llava):
    table = position_table(llava.model.vision_tower)
    model = qlip.convert(cpu_offload(llava, execution_device="cpu"), position="bilinear")
    assert torch.equal(model.position.table, table)


def test_device_map(llava, processor, solved, inputs, expected, tmp_path):
    llava.save_pretrained(tmp_path)
    loaded = type(llava).from_pretrained(tmp_path, device_map="auto")
    loaded.generation_config = llava.generation_config
    model = qlip.convert(loaded, position=solved)
    assert model.generate(**inputs, max_new_tokens=4, do_sample=False).tolist() == expected.tolist()


def test_the_position_follows_the_tower(llava, inputs, monkeypatch):
    """The meta device stands for another one: nothing is computed, but places are checked."""
    count = len(inputs["pixel_values"][0][0])
    rows = Packing((1, count), 1, PackedImages.of([1 + count], torch.device("meta")))
    monkeypatch.setattr(Packing, "of", lambda *_, **__: rows)  # looks at values, which meta tensors lack
    model = qlip.convert(llava, position=nn.Linear(2, 64)).to("meta")
    assert model.position.weight.device.type == "cpu"
    features = model.get_image_features(inputs["pixel_values"][:1]).pooler_output[0]
    assert features.shape == (count, 64)
    assert features.device.type == model.position.weight.device.type == "meta"


class FourBitLinear(nn.Linear):
    """Keeps its weight as bitsandbytes does: two numbers to a byte, of another shape and dtype."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.bias = linear.bias
        scale = linear.weight.detach().abs().amax() / 7
        levels = (linear.weight.detach() / scale).round().add(8).to(torch.uint8).flatten()
        self.register_buffer("scale", scale)
        self.weight = nn.Parameter((levels[::2] * 16 + levels[1::2])[:, None], requires_grad=False)

    def float_weight(self) -> torch.Tensor:
        levels = torch.cat([self.weight // 16, self.weight % 16], dim=1)
        return (levels.float() - 8).view(self.out_features, self.in_features) * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.float_weight().to(x.dtype), self.bias)


def replace_linears(module, make):
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, make(child))
        else:
            replace_linears(child, make)


def rounded(linear):
    linear.weight.data = FourBitLinear(linear).float_weight()
    return linear


@pytest.mark.parametrize("convert_first", [True, False])
def test_four_bit_linears(llava, solved, inputs, convert_first):
    reference = copy.deepcopy(llava)
    replace_linears(reference.model, rounded)
    wanted = qlip.convert(reference, position=solved)(**inputs).logits
    if convert_first:
        qlip.convert(llava, position=solved)
    replace_linears(llava.model, FourBitLinear)
    model = llava if convert_first else qlip.convert(llava, position=solved)
    assert model.model.vision_tower.encoder.layers[0].self_attn.q_proj.weight.dtype == torch.uint8
    assert torch.allclose(model(**inputs).logits, wanted, atol=1e-4)


def test_casting_leaves_the_position_alone(own_pair, solved):
    model, _ = own_pair
    model.to(torch.bfloat16).half().to(dtype=torch.bfloat16)
    assert torch.equal(model.position.readout.weight, solved.readout.weight)


def test_casting_a_converted_tower_leaves_the_position_alone(llava, solved):
    vision = qlip.convert(llava.model.vision_tower, position=copy.deepcopy(solved))
    vision.to(torch.bfloat16)
    assert vision.vision_model.embeddings.patch_embedding.weight.dtype == torch.bfloat16
    assert torch.equal(vision.position.readout.weight, solved.readout.weight)
    assert vision.to("meta").position.readout.weight.device.type == "meta"
