"""The entry point of lmms-eval, against a stub of its interface (0.7.3)."""

import configparser
import importlib
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

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
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    @property
    def rank(self):
        return self._rank

    @property
    def world_size(self):
        return self._world_size


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
    documents = [{"images": [scene(140 + 28 * k, 112, i) for k in range(n)]} for i, n in enumerate((1, 1, 1, 2, 0))]

    def ask(i, until=()):
        generation = {"max_new_tokens": 6, "until": list(until)}
        return Instance(
            (f"what is there {i} ?", generation, lambda document: document["images"] or None, i, "tiny", "test")
        )

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
        item = arm.prepare(documents[i]["images"], CHATS["llava"].format(f"what is there {i} ?"), 0)
        tokens = arm.model.generate(**arm.collate([item]), max_new_tokens=6, do_sample=False)
        assert answer == arm.decode(tokens[:, len(item.input_ids) :])[0]
    word = got[0].split()[3]
    cut = model.generate_until([ask(2, until=[word])])[0]
    assert cut == got[0].split(word)[0]


def test_unknown_arguments_are_named(harness, model_folder):
    with pytest.raises(ValueError, match="model_args: got colour; takes baseline, position, size"):
        harness.QlipLlava(str(model_folder), device="cpu", colour="red")


def tiny(harness, documents, folder, **options):
    model = harness.QlipLlava(str(folder), dtype="float32", **{"device": "cpu", "size": 112, "alpha": 0.5, **options})
    model.task_dict["tiny"] = {"test": documents}
    return model


@pytest.mark.parametrize("baseline", [None, "crop"])
def test_questions_about_several_images_or_none_share_a_batch(harness, requests, model_folder, baseline):
    documents, ask = requests
    model = tiny(harness, documents, model_folder, baseline=baseline, batch_size=4)
    answers = model.generate_until([ask(i) for i in (3, 4, 0, 3)])
    assert answers == [
        tiny(harness, documents, model_folder, baseline=baseline).generate_until([ask(i)])[0] for i in (3, 4, 0, 3)
    ]
    assert len({*answers}) == 3
    text = CHATS["llava"].format("what is there 3 ?").replace("<image>", "<image> <image>")
    item = model.arm.prepare(documents[3]["images"], text, 0)
    tokens = model.arm.model.generate(**model.arm.collate([item]), max_new_tokens=6, do_sample=False)
    assert answers[0] == model.arm.decode(tokens[:, len(item.input_ids) :])[0]
    with pytest.raises(KeyError):  # of a question without images no input speaks of them
        model.arm.prepare([], "what is there ?", 0).inputs["pixel_values"]


def test_an_automatic_batch_is_halved_while_memory_ends(harness, requests, model_folder, monkeypatch):
    documents, ask = requests
    asked = [ask(i) for i in (0, 1, 2, 0, 1, 2, 0)]
    expected = tiny(harness, documents, model_folder).generate_until(asked)
    sizes, answer = [], harness.QlipLlava._answer

    def limited(self, batch):
        sizes.append(len(batch))
        if len(batch) > self.room:
            raise torch.OutOfMemoryError
        return answer(self, batch)

    monkeypatch.setattr(harness.QlipLlava, "_answer", limited)
    monkeypatch.setattr(harness.QlipLlava, "room", 3, raising=False)
    assert tiny(harness, documents, model_folder, batch_size="auto").generate_until(asked) == expected
    assert sizes == [7, 3, 3, 1]
    sizes.clear()
    monkeypatch.setattr(harness.QlipLlava, "room", 9)
    alike = [*asked[:3], ask(0, until=["x"]), *asked[4:]]  # one ends elsewhere
    assert len(tiny(harness, documents, model_folder, batch_size="auto").generate_until(alike)) == 7
    assert sizes == [3, 1, 3]
    monkeypatch.setattr(harness.QlipLlava, "room", 3)
    sizes.clear()
    assert tiny(harness, documents, model_folder, batch_size="auto", max_batch_size=2).generate_until(asked) == expected
    assert sizes == [2, 2, 2, 1]
    with pytest.raises(torch.OutOfMemoryError):
        tiny(harness, documents, model_folder, batch_size=4).generate_until(asked)
    monkeypatch.setattr(harness.QlipLlava, "room", 0)
    with pytest.raises(torch.OutOfMemoryError):
        tiny(harness, documents, model_folder, batch_size="auto").generate_until(asked)


def test_each_process_computes_on_its_own_device(harness, requests, model_folder, monkeypatch):
    """lmms-eval deals out the questions by rank and counts them in a tensor on ``device``."""
    alone = tiny(harness, requests[0], model_folder)
    assert (alone.rank, alone.world_size, alone.device) == (0, 1, torch.device("cpu"))
    second = SimpleNamespace(process_index=1, num_processes=2, device=torch.device("cpu", 0))
    monkeypatch.setattr(harness, "Accelerator", lambda: second)
    model = tiny(harness, requests[0], model_folder, device="cuda")
    assert (model.rank, model.world_size, model.device) == (1, 2, second.device)
    assert model.accelerator is second
