"""``qlip.json``, the settings of a processor on disk: what is wrong in one is named."""

import json
import re

import pytest

from qlip import QlipImageProcessor, Quadtree


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.pop("images"), "missing images"),
        (lambda held: held["images"].pop("size"), "images: missing size"),
        (lambda held: held["images"].update(colour="red"), "images: unknown colour"),
        (lambda held: held["images"].update(size="336"), "images: size: got '336'; takes a whole number or null"),
        (lambda held: held["images"].update(mean=[0.5, 0.5]), "images: mean: got .*takes three finite numbers"),
        (lambda held: held["images"].update(mean=[0.5, "0.5", 0.5]), "images: mean: got .*takes three finite numbers"),
        (lambda held: held["images"].update(pad="round"), "images: pad: got 'round'"),
        (lambda held: held["images"]["quadtree"].pop("alpha"), "images: quadtree: missing alpha"),
        (
            lambda held: held["images"]["quadtree"].update(alpha="0.1"),
            "images: quadtree: alpha: got '0.1'; takes a number",
        ),
        (lambda held: held["images"]["quadtree"].update(cover="some"), "images: cover: got 'some'"),
        (lambda held: held["images"]["quadtree"].update(criterion="best"), "images: .*'best'"),
        (lambda held: held["images"]["quadtree"].update(patch_size=10**30), "images: patch_size: got"),
    ],
)
def test_damaged_settings_are_refused_by_field(change, message, tmp_path):
    path = QlipImageProcessor(quadtree=Quadtree(0.3)).save_pretrained(tmp_path)
    assert QlipImageProcessor.read(path) == QlipImageProcessor(quadtree=Quadtree(0.3))
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {message}"):
        QlipImageProcessor.read(path)
