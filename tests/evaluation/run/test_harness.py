"""The entry point of lmms-eval, against a stub of its interface (0.7.3)."""

import configparser
import importlib
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from qlip.evaluation.cell import Vision
from qlip.evaluation.run.arm import load_arm
from qlip.evaluation.run.prompts import CHATS
from tests.families.tiny_llava import scene

Instance = namedtuple("Instance", "args")
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None


class Lmms:
    """What a model inherits: the harness puts the documents into ``task_dict``."""

    def __init__(self):
        self.task_dict = {}


@pytest.fixture
def harness(monkeypatch):
    api = ModuleType("lmms_eval.api.model")
    api.lmms = Lmms
    registry = ModuleType("lmms_eval.models.registry_v2")
    registry.ModelManifest = ModelManifest
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.models")
    modules = {name: ModuleType(name) for name in names} | {api.__name__: api, registry.__name__: registry}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "qlip.evaluation.run.harness", raising=False)
    yield importlib.import_module("qlip.evaluation.run.harness")
    sys.modules.pop("qlip.evaluation.run.harness", None)


@pytest.fixture
def requests():
    documents = [{"image": scene(140 + 28 * i, 112, i)} for i in range(3)]

    def ask(i, until=()):
        generation = {"max_new_tokens": 6, "until": list(until)}
        return Instance((f"what is there {i} ?", generation, lambda document: [document["image"]], i, "tiny", "test"))

    return documents, ask


def test_the_entry_point_names_what_is_there(harness):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    target = config["options.entry_points"]["lmms_eval.models"].strip()
    assert target == "qlip = qlip.evaluation.run.harness:MANIFEST"
    module, name = harness.MANIFEST.simple_class_path.rsplit(".", 1)
    assert getattr(importlib.import_module(module), name) is harness.QlipLlava
    assert harness.MANIFEST.model_id == "qlip"


@pytest.mark.parametrize("baseline", [None, "crop"])
def test_answers_are_those_of_the_arm_in_the_order_asked(harness, requests, model_folder, baseline):
    documents, ask = requests
    fields = {"size": 112, "alpha": 0.5, "baseline": baseline}
    model = harness.QlipLlava(str(model_folder), dtype="float32", device="cpu", batch_size=2, **fields)
    model.task_dict["tiny"] = {"test": documents}
    got = model.generate_until([ask(i) for i in (2, 0, 1)])
    arm = load_arm(str(model_folder), Vision(**fields))
    for i, answer in zip((2, 0, 1), got, strict=True):
        item = arm.prepare(documents[i]["image"], CHATS["llava"].format(f"what is there {i} ?"), 0)
        tokens = arm.model.generate(**arm.collate([item]), max_new_tokens=6, do_sample=False)
        assert answer == arm.decode(tokens[:, len(item.input_ids) :])[0]
    word = got[0].split()[3]
    cut = model.generate_until([ask(2, until=[word])])[0]
    assert cut == got[0].split(word)[0]


def test_unknown_arguments_are_named(harness, model_folder):
    with pytest.raises(ValueError, match="model_args: got colour; takes baseline, position, size"):
        harness.QlipLlava(str(model_folder), device="cpu", colour="red")
