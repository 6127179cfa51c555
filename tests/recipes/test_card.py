"""The cards of the shipped models are what the recipe writes, and their code runs as it stands."""

import re
from collections.abc import Callable, Mapping

import pytest
import torch

from qlip.shipped import FOLDER
from recipes.pocket.card import clip_card, llava_card, qwen_card
from recipes.pocket.clip import CLIP_SCHEDULE
from recipes.pocket.qwen import QWEN_SCHEDULE
from recipes.pocket.reader import READER_SCHEDULE
from recipes.pocket.run import Schedule

CARDS = {
    "pocket-clip": (clip_card, CLIP_SCHEDULE),
    "pocket-llava": (llava_card, READER_SCHEDULE),
    "pocket-qwen": (qwen_card, QWEN_SCHEDULE),
}


def shipped_card(name: str) -> str:
    return (FOLDER / name / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CARDS)
def test_the_shipped_card_is_what_the_recipe_writes(name: str) -> None:
    write: Callable[[Mapping[str, float], int, Schedule], str]
    write, schedule = CARDS[name]
    text = shipped_card(name)
    metrics = {measure: float(value) for measure, value in re.findall(r"^\| (.+) \| (\d\.\d+) \|$", text, re.MULTILINE)}
    assert metrics
    assert write(metrics, 0, schedule) == text


@pytest.mark.parametrize("name", CARDS)
def test_the_code_of_a_card_runs(name: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", shipped_card(name), re.DOTALL)
    assert blocks[0].startswith("import qlip\n")
    for block in blocks:
        names: dict[str, object] = {}
        exec(block, names)
        models = [value for value in names.values() if isinstance(value, torch.nn.Module)]
        assert models
        assert all(parameter.dtype == torch.float32 for model in models for parameter in model.parameters())
