import re

import pytest
from huggingface_hub import ModelCard

from qlip.towers.synthetic import random_clip
from qlip.zoo.card import model_card
from qlip.zoo.store import save
from tests.zoo.helpers import describe, same, tiny_position


def test_metadata_is_what_the_hub_reads(position):
    data = ModelCard(model_card(describe(position), "me/tiny")).data
    assert data.library_name == "qlip"
    assert data.license == "apache-2.0"
    assert data.base_model == "openai/clip-vit-large-patch14-336"
    assert data.pipeline_tag == "image-feature-extraction"
    assert "arxiv:2505.23004" in data.tags
    assert data.model_name == "tiny"
    assert [(result.metric_name, result.metric_value) for result in data.eval_results] == [
        ("cos [CLS], 336 px", 0.99),
        ("cos [CLS], 448 px", 0.9),
    ]


def test_metadata_without_cosines(position):
    data = ModelCard(model_card(describe(position, metrics={"R": 1e-7}), "tiny")).data
    assert data.eval_results is None


@pytest.mark.parametrize("backbone", ["random:256x6", "/data/clip", "models/my clip", "clip"])
def test_base_model_is_a_hub_id_or_absent(position, backbone):
    assert ModelCard(model_card(describe(position, backbone=backbone), "tiny")).data.base_model is None


def test_the_card_gives_every_metric_and_the_paper(position):
    text = model_card(describe(position), "tiny")
    assert re.findall(r"^\| (\w+) \| (\S+) \| (.*) \|$", text, re.MULTILINE)[1:] == [
        ("R", "1e-07", "mean absolute difference from CLIP's table, on its grid"),
        ("R2", "2e-14", "mean squared difference from CLIP's table, on its grid"),
        ("offgrid", "0.08", "relative rms difference from bicubic interpolation, between the grid's points"),
        ("cos_cls_336", "0.99", "cosine between [CLS] at 336 px and CLIP's own at its native size"),
        ("cos_cls_448", "0.9", "cosine between [CLS] at 448 px and CLIP's own at its native size"),
    ]
    assert "https://arxiv.org/abs/2505.23004" in text


def test_the_card_says_whether_it_was_trained(position):
    assert "Training: steps 300, gamma 1.0." in model_card(describe(position), "tiny")
    assert "not trained" in model_card(describe(position, training={}), "tiny")


@pytest.mark.parametrize("patch_size", [14, 7])
def test_the_example_runs(patch_size, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random_clip(width=32, layers=1, image_size=4 * patch_size, patch_size=patch_size).save_pretrained("clip")
    position = tiny_position(dim=32)
    entry = save(position, "checkpoints/tiny", describe(position, backbone="clip", patch_size=patch_size))
    (example,) = re.findall(r"```python\n(.*?)```", (entry / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(example, names)
    assert same(names["model"].position, position)
