import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qlip import Quadtree
from qlip.zoo.config import EntryError, ZooConfig, quadtree_fields
from tests.zoo.helpers import describe


def edited(entry, **changes):
    path = entry / "config.json"
    data = json.loads(path.read_text())
    for key, value in changes.items():
        data.pop(key, None)
        if value is not None:
            data[key] = value
    path.write_text(json.dumps(data))
    return path


def test_what_is_written_is_what_is_read(position, entry):
    assert ZooConfig.read(entry / "config.json") == describe(position)


def test_tuples_come_back_as_they_will_be_read(position, tmp_path):
    config = describe(position, training={"sizes": (224, 336), "range": {"low": 0}, "cache": None})
    config.write(tmp_path / "config.json")
    assert ZooConfig.read(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red", "aroma": 1}, "unknown keys aroma, colour"),
        ({"sigma": None, "depth": None}, "missing keys depth, sigma"),
        ({"dim": "8"}, "dim: got '8'; takes a positive integer"),
        ({"sigma": -1}, "sigma: got -1"),
        ({"backbone": ""}, "backbone: got ''"),
        ({"metrics": {"R": "small"}}, r"metrics\['R'\]: got 'small'; takes a number"),
        ({"training": [1]}, r"training: got \[1\]"),
        ({"model_type": "clip"}, "describes a 'clip' model; solve:"),
    ],
)
def test_wrong_configs_are_refused_by_name(entry, changes, message):
    with pytest.raises(EntryError, match=message):
        ZooConfig.read(edited(entry, **changes))


@pytest.mark.parametrize(("text", "message"), [("{", "damaged"), ("[]", "holds a list")])
def test_what_is_no_object_is_refused(entry, text, message):
    (entry / "config.json").write_text(text)
    with pytest.raises(EntryError, match=message):
        ZooConfig.read(entry / "config.json")


@pytest.mark.parametrize(
    "changes",
    [{"metrics": {"R": float("nan")}}, {"training": {"table": torch.zeros(2)}}, {"training": {"loss": float("inf")}}],
    ids=["nan", "tensor", "inf"],
)
def test_values_that_json_cannot_hold_are_refused(position, changes):
    with pytest.raises(EntryError, match=r"\['(R|table|loss)'\]: got"):
        describe(position, **changes)


def test_metrics_may_be_tensors(position):
    assert describe(position, metrics={"R": torch.tensor(0.5)}).metrics == {"R": 0.5}


def test_a_users_own_criterion_goes_by_its_name():
    def brightness(blocks):
        return blocks.mean((-3, -2, -1))

    assert quadtree_fields(Quadtree(criterion=brightness, max_tokens=100)) == {
        "alpha": 0.1,
        "criterion": "brightness",
        "max_tokens": 100,
        "patch_size": 14,
        "cover": "full",
    }


def test_a_zoo_can_be_listed_without_torch(entry):
    code = (
        "import sys; from pathlib import Path; from qlip.zoo.config import ZooConfig; from qlip.zoo.entries import local_entries;"
        "from qlip.zoo.registry import REGISTRY; root = Path(sys.argv[1]);"
        "print(REGISTRY.keys() and [ZooConfig.read(root / name / 'config.json').dim for name in local_entries(root)]);"
        "print({'torch', 'transformers', 'huggingface_hub', 'httpx'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, str(entry.parent)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[8]", "set()"]
