"""The page on adapters, run as it stands but for fewer examples and steps; PEFT and TRL need not be installed."""

import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
FEWER = {"small_objects(64": "small_objects(12", "max_steps=40": "max_steps=8", "batch_size=8": "batch_size=4", "logging_steps=10": "logging_steps=1"}  # fmt: skip


@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("peft", "trl"))), reason="needs pip install peft trl")
def test_the_page_on_adapters(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    for many, few in FEWER.items():
        assert code.count(many) == 1
        code = code.replace(many, few)
    exec(code, names)
    losses = [entry["loss"] for entry in names["trainer"].state.log_history if "loss" in entry]
    assert len(losses) == 8
    assert sum(losses[-2:]) < sum(losses[:2]) / 1.25
    assert "yellow" in capsys.readouterr().out.split("\n")  # the base, before it learns
    assert (tmp_path / "adapter" / "qlip.json").is_file()
    assert (tmp_path / "mine" / "qlip.safetensors").is_file()
    batch = names["collate"]([names["example"](names["picture"], names["things"])] * 2)
    assert math.isfinite(names["model"](**batch).loss)
