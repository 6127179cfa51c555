"""The pages about LLaVA and the example, run as they stand; only the name of the checkpoint is another."""

import doctest
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import qlip
from tests.families.rows import ROWS
from tests.families.tiny_llava import save_tiny_llava, scene
from tests.shaken import shake

ROOT = Path(__file__).parents[2]
NAME = "llava-hf/llava-1.5-7b-hf"


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A folder that holds a tiny LLaVA as the Hub holds a large one."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llava(folder, suppress_tokens=None)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with two photographs to be in."""
    scene(900, 680, 1).save(tmp_path / "street.jpg")
    scene(700, 1000, 2).save(tmp_path / "kitchen.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(code: str, names: dict[str, object]) -> None:
    test = doctest.DocTestParser().get_doctest(code, names, "llava.md", "docs/llava.md", 0)
    test.globs = names
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append, clear_globs=False)
    assert not report, "".join(report)


def test_the_page_on_llava(checkpoint, place, capsys):
    names: dict[str, object] = {}
    first, *others = blocks("llava.md")
    assert NAME in first
    exec(first.replace(NAME, str(checkpoint)), names)
    printed = capsys.readouterr().out
    assert printed.startswith("[")
    assert printed.count("ASSISTANT:") >= 2
    assert sum(">>>" in block for block in others) == 2
    for block in others:
        if ">>>" in block:
            check(block, names)
        else:
            before = names["model"](**names["inputs"]).logits
            exec(block, names)
            assert torch.equal(names["model"](**names["inputs"]).logits, before)
    assert {path.name for path in (place / "mine").iterdir()} >= {"qlip.safetensors", "qlip.json", "config.json"}


RECIPES = {"Qwen/Qwen3-VL-8B-Instruct": "Qwen3VL", "google/gemma-3-4b-it": "gemma3", NAME: None}
CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}MARK "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
)


def save_row(name: str, folder: Path) -> Path:
    """Save the tiny model and processor of a family as the Hub holds large ones, with a chat template."""
    row = ROWS[name]
    shake(row.make()).save_pretrained(folder)
    processor: Any = row.processor()
    processor.chat_template = CHAT.replace("MARK", row.mark)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_answers_within_its_budget(name, checkpoint, place):
    (recipe,) = [block for block in blocks("models.md") if f'"{name}"' in block]
    family = RECIPES[name]
    folder = save_row(family, place / "tiny") if family else checkpoint
    scene(1600, 1200, 1).save("street.jpg")
    names: dict[str, Any] = {}
    exec(recipe.replace(name, str(folder)), names)
    budget = int(re.search(r"max_tokens=(\d+)", recipe)[1])
    used = int((names["inputs"]["input_ids"] == names["model"].config.image_token_id).sum())
    assert budget - 2 <= used <= budget
    assert names["output"].shape[1] > names["inputs"]["input_ids"].shape[1]


def test_the_page_on_serving(llava, own_pair, pictures, answer):
    model, processor = own_pair
    prompts = ["USER: <image>\nwhat is there ? ASSISTANT:", "USER: <image>\nleft or right ? ASSISTANT:"]
    names = {"model": model, "processor": processor, "stock_model": llava, "prompts": prompts, "torch": torch}
    names |= {"a": pictures[0], "b": pictures[1]}
    encode, by_outputs, by_embeddings, vllm = blocks("serving.md")
    inputs = processor(images=pictures[:2], text=prompts, return_tensors="pt", padding=True)
    expected = answer(model, inputs, max_new_tokens=50)
    exec(encode, names)
    width = names["inputs"]["input_ids"].shape[1]
    exec(by_outputs, names)
    assert names["output"][:, width:].tolist() == expected
    exec(by_embeddings, names)
    assert names["output"].tolist() == expected
    compile(vllm, "serving.md", "exec")


@pytest.mark.parametrize(
    "options", [["--alpha", "1.0"], ["--max-tokens", "600", "--position", "bicubic"], ["--size", "0"]]
)
def test_ask(checkpoint, place, options, capsys, monkeypatch):
    command = ["ask.py", "street.jpg", "what is there ?", "--model", str(checkpoint), "--save-overlay", "overlay.png"]
    monkeypatch.setattr(sys, "argv", [*command, "--size", "448", "--max-new-tokens", "4", *options])
    runpy.run_path(str(ROOT / "examples" / "ask.py"), run_name="__main__")
    *_, tokens, times, saved = capsys.readouterr().out.splitlines()
    used, full, h, w = map(int, re.fullmatch(r"(\d+) of (\d+) tokens \((\d+) x (\d+) patches\)", tokens).groups())
    size = None if "--size" in options else 448
    tree = qlip.Quadtree(alpha=1.0) if "--alpha" in options else qlip.Quadtree(max_tokens=576)
    settings = qlip.QlipImageProcessor(size, "units", tree)
    assert (h, w) == settings.grid(680, 900)
    assert full == h * w
    assert 598 <= used <= 600 if "--max-tokens" in options else used == settings.count_tokens("street.jpg")[0]
    assert re.fullmatch(r"\d+\.\d\d s to encode the image, \d+\.\d\d s to answer, encoding included", times)
    assert saved == "leaves drawn in overlay.png"
    with Image.open("overlay.png") as overlay:
        assert overlay.size == (14 * w, 14 * h)
