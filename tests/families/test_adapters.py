"""What trains in a converted model: the position if it is asked for, and adapters wherever they are put."""

import copy

import pytest
import torch
from torch import nn

import qlip
from tests.families.case import deviation
from tests.families.conftest import ONE
from tests.families.tiny_llava import scene

PICTURES = [scene(360, 240, 0)]


def trained(llava, processor, **options: object):
    return qlip.convert(copy.deepcopy(llava), processor, size=112, **options)


def loss(model, processor) -> torch.Tensor:
    inputs = processor(images=PICTURES, text=[ONE], return_tensors="pt", max_tokens=40)
    return model(**inputs, labels=inputs["input_ids"]).loss


def test_convert_freezes_the_position(llava, processor, solved):
    model, new = trained(llava, processor, position=solved.requires_grad_(True))
    assert not any(weight.requires_grad for weight in model.position.parameters())
    assert dict(model.named_parameters()).keys() == dict(llava.named_parameters()).keys()
    model.model.vision_tower.requires_grad_(False)
    seen = model.get_image_features(new(images=PICTURES, text=[ONE])["pixel_values"], return_dict=True)
    assert not seen.last_hidden_state.requires_grad  # nothing runs backwards through a frozen tower


def test_a_trained_position_is_a_part_of_the_model(llava, processor, tmp_path):
    model, new = trained(llava, processor, position="solve", train_position=True)
    names = [name for name, _ in model.named_parameters() if name.startswith("qlip_position.")]
    assert len(names) == len(list(model.position.parameters())) > 0
    loss(model, new).backward()
    assert all(model.get_parameter(name).grad.abs().sum() > 0 for name in names)
    model.zero_grad()
    assert all(model.get_parameter(name).grad is None for name in names)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.position.state_dict())
    loss(model, new).backward()
    optimiser.step()
    assert not all(torch.equal(before[name], value) for name, value in model.position.state_dict().items())
    rounded = copy.deepcopy(model).to(torch.bfloat16).position.state_dict()
    for name, value in model.position.state_dict().items():
        assert torch.equal(value, rounded[name])  # places need all their digits
    with torch.no_grad():
        expected = loss(model, new)
    model.save_pretrained(tmp_path)
    new.save_pretrained(tmp_path)
    assert "qlip_position.readout.weight" in model.state_dict()  # it is still there
    type(llava).from_pretrained(tmp_path)  # the stock class reads the folder
    loaded, again = qlip.from_pretrained(tmp_path)
    assert deviation(loss(loaded, again), expected) < 1e-6
    assert not any(weight.requires_grad for weight in loaded.position.parameters())


def test_restore_takes_a_trained_position_away(llava, processor):
    model, _ = trained(llava, processor, position="solve", train_position=True)
    restored = qlip.restore(model)
    assert restored.state_dict().keys() == llava.state_dict().keys()


def test_training_nothing_is_refused(llava, processor):
    with pytest.raises(ValueError, match=r"train_position: got True with position=.*takes a position with weights"):
        trained(llava, processor, position="bilinear", train_position=True)


def test_a_towers_position_is_frozen_too(llava):
    tower = llava.model.vision_tower
    assert not any(weight.requires_grad for weight in qlip.convert(tower).position.parameters())
    assert all(weight.requires_grad for weight in qlip.convert(tower, train_position=True).position.parameters())


class Adapter(nn.Module):
    """A layer with a trained one of low rank beside it, as PEFT's LoRA wraps them."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        rows = base.weight.flatten(1)
        self.down, self.up = (nn.Parameter(torch.randn(*shape) / 8) for shape in ((2, rows.shape[1]), (len(rows), 2)))

    @property
    def weight(self) -> torch.Tensor:
        return self.base_layer.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, change = self.base_layer(x), x.flatten(1) if x.ndim == 4 else x
        change = change @ self.down.T @ self.up.T
        return out + (change[..., None, None] if out.ndim == 4 else change)


def adapted(llava, processor, name: str):
    """A converted model of which only an adapter in the tower trains."""
    model, new = trained(llava, processor, position="solve")
    model.requires_grad_(False)
    layer = next(path for path, _ in model.named_modules() if "vision_tower" in path and path.endswith(name))
    adapter = Adapter(model.get_submodule(layer))
    model.set_submodule(layer, adapter)
    return model, new, adapter


@pytest.mark.parametrize("name", ["patch_embedding", "q_proj", "fc1"])
@pytest.mark.parametrize("reentrant", [None, False, True], ids=["plain", "checkpointing", "reentrant"])
def test_adapters_in_the_tower_get_their_gradients(llava, processor, name, reentrant):
    torch.manual_seed(0)
    model, new, adapter = adapted(llava, processor, name)
    without = loss(trained(llava, processor, position="solve")[0], new)
    expected = torch.autograd.grad(loss(model, new), list(adapter.parameters())[:2])
    if reentrant is not None:
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
    value = loss(model, new)
    assert value != without
    value.backward()
    for got, wanted in zip((adapter.down.grad, adapter.up.grad), expected, strict=True):
        assert wanted.abs().max() > 0
        assert deviation(got, wanted) < 1e-4


def test_an_adapter_on_the_patch_embedding_equals_its_merged_weights(llava, processor):
    model, new, adapter = adapted(llava, processor, "patch_embedding")
    merged, _ = trained(llava, processor, position="solve")
    change = (adapter.up @ adapter.down).view_as(adapter.weight)
    (layer,) = (each for name, each in merged.named_modules() if name.endswith("patch_embedding"))
    with torch.no_grad():
        layer.weight.add_(change)
    torch.testing.assert_close(loss(merged, new), loss(model, new), rtol=1e-5, atol=1e-6)
