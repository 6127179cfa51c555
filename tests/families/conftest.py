import copy

import pytest
import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor

import qlip
from qlip.core.position import PositionMLP
from qlip.towers.base import position_table
from qlip.zoo.solve import solved_position
from tests.families.case import Case
from tests.families.rows import ROWS
from tests.families.tiny_llava import scene, tiny_llava, tiny_processor

ONE = "USER: <image>\nwhat is there ? ASSISTANT:"
TWO = "USER: <image> <image>\nleft or right is the red circle ? ASSISTANT:"
NONE = "USER: yes or no ? ASSISTANT:"
NEW = 6


@pytest.fixture(params=ROWS)
def case(request: pytest.FixtureRequest) -> Case:
    """A row of the contract, with a model that the test may change."""
    return Case(request.param)


@pytest.fixture(scope="session")
def _llava() -> LlavaForConditionalGeneration:
    return tiny_llava()


@pytest.fixture
def llava(_llava: LlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    """A stock LLaVA that the test may change."""
    return copy.deepcopy(_llava)


@pytest.fixture(scope="session")
def processor() -> LlavaProcessor:
    """Its stock processor; qlip must not change it."""
    return tiny_processor()


@pytest.fixture(scope="session")
def solved(_llava: LlavaForConditionalGeneration) -> PositionMLP:
    """A PositionMLP solved for the tiny tower; a smaller one than the default, which takes seconds."""
    return solved_position(position_table(_llava.model.vision_tower), hidden=640, depth=2, fourier=24)


@pytest.fixture(scope="session")
def _pair(_llava, processor, solved):
    return qlip.convert(copy.deepcopy(_llava), processor, position=solved, quadtree=qlip.Quadtree(alpha=0.5), size=224)


@pytest.fixture(scope="session")
def pair(_pair):
    """A converted model and processor for all tests that change neither."""
    yield _pair
    assert _pair[0].position.frequencies.dtype == torch.float32
    assert _pair[1].image_processor.settings.size == 224


@pytest.fixture
def own_pair(_pair):
    """A converted model that the test may change, and its processor."""
    return copy.deepcopy(_pair[0]), _pair[1]


@pytest.fixture(scope="session")
def pictures():
    """Three pictures of different shapes that become different numbers of leaves."""
    return [scene(224, 224, 0), scene(360, 240, 1), scene(230, 400, 2)]


@pytest.fixture
def answer():
    """New tokens of a greedy answer, other modes by keyword."""

    def run(model, inputs, **mode):
        output = model.generate(**inputs, **{"max_new_tokens": NEW, "do_sample": False, **mode})
        return output[:, inputs["input_ids"].shape[1] :].tolist()

    return run
