"""What only Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5 and GLM-4V do; what all families do is in `test_contract`."""

import pytest
import torch

import qlip
from tests.families.case import Case, deviation
from tests.families.qwens import QWENS
from tests.families.rows import ROWS


@pytest.fixture(params=[name for name in QWENS if name in ROWS])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_text_and_leaves_stand_where_stock_puts_them(case):
    theirs = case.stock_inputs()
    named = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    positions, ahead = case.model.model.get_rope_index(**{name: theirs[name] for name in named})
    model, converted = case.convert(criterion="uniform", max_tokens=None)
    ours = case.inputs(converted, case.natives)
    told = model.model.get_rope_index(**{name: ours[name] for name in named})
    seen = ours["attention_mask"].bool()
    assert told[0].dtype == torch.float32
    assert torch.equal(told[0][:, seen], positions[:, seen].float())
    assert torch.equal(told[1], ahead)  # decides where the answer stands


def test_pixels_are_stocks(case):
    theirs = case.stock_inputs()["pixel_values"].unflatten(1, (3, 2, 14, 14))[:, :, 0]
    ours = case.inputs(case.convert(criterion="uniform", max_tokens=None)[1], case.natives)["pixel_values"]
    assert deviation(torch.cat([patches for patches, _ in ours]), theirs) < 1e-6


def test_what_it_does_not_take_is_refused_by_name(case):
    with pytest.raises(ValueError, match="rotates"):
        qlip.convert(case.model, case.processor, position="solve")
    model, converted = case.convert(max_tokens=40, cover="full")
    with pytest.raises(ValueError, match="got videos"):
        converted(videos=torch.zeros(4, 3, 56, 56), text=["<video> what ?"])
    with pytest.raises(ValueError, match="got videos"):
        model.get_video_features(torch.zeros(1))
    inputs = case.inputs(converted, case.pictures, slice(1))
    with pytest.raises(ValueError, match="got videos"):
        model.generate(**inputs, video_grid_thw=torch.ones(1, 3))
    for call in (model, model.generate):
        with pytest.raises(TypeError, match=r"image_grid_thw: got NoneType.*Pass on all"):
            call(**{name: value for name, value in inputs.items() if name != "image_grid_thw"})
    with pytest.raises(TypeError, match=r"image_grid_thw.*converted processor"):
        model.generate(**case.stock_inputs(slice(1)))
