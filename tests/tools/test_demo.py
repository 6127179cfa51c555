"""`qlip demo`: what the page shows, without Gradio; and the page itself, once, in a real browser.

The browser test needs what no other does: ``pip install 'qlip[demo]' selenium``, Chromium and its driver.
"""

import importlib.util
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import qlip
from qlip.cli import main
from qlip.core.quadtree import Quadtree
from qlip.data.pictures import small_objects
from qlip.evaluation.cell import Vision
from qlip.images.processor import QlipImageProcessor
from qlip.shipped import shipped
from qlip.tools.config import DemoConfig
from qlip.tools.demo import Demo, first
from qlip.tools.loss import downscale
from qlip.tools.panels import draw_panels
from tests.evaluation.tiny_families import save_tiny

DRIVERS = {"chromium": shutil.which("chromium"), "chromedriver": shutil.which("chromedriver")}
FLAGS = (
    "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def demo() -> Demo:
    return Demo(DemoConfig(device="cpu"))


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return next(small_objects(1, seed=11))[0]


def test_three_panels_of_one_size_and_one_price(picture):
    settings = QlipImageProcessor(size=224, quadtree=Quadtree(max_tokens=50))
    panels = draw_panels(picture, settings)
    view = settings.view(picture)
    assert panels.tokens == settings.count_tokens(picture)[0] <= 50
    assert panels.leaves.size == panels.held.size == panels.downscaled.size == (view.width * 2, view.height * 2)
    assert panels.grid == (view.height // 14, view.width // 14)
    small = downscale(view, panels.tokens * 14**2)
    assert small.size == view.size
    expected = small.resize(panels.downscaled.size, Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(panels.downscaled), np.asarray(expected))
    away = [
        np.abs(np.asarray(panel, dtype=float) - np.asarray(view.resize(panel.size, Image.Resampling.BICUBIC))).mean()
        for panel in (panels.held, panels.downscaled, panels.leaves)
    ]
    assert min(away) > 0
    assert downscale(view, view.width * view.height) is view


def test_a_downscale_holds_no_more_pixels_than_it_is_paid_for():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 240), dtype=np.uint8))
    spectrum = np.abs(np.fft.rfft2(np.asarray(downscale(noise, 30 * 60), dtype=float)))
    assert spectrum[40:80, 80:].mean() < 0.02 * spectrum[1:10, 1:20].mean()  # a quarter a side: nothing finer is left


@torch.no_grad()
def test_both_answers_by_turns_from_the_same_weights(demo, picture):
    question, vision = "What is the color of the star?", Vision(size=224, max_tokens=40, fit="scale", alpha=0.3)
    stock, converted = demo.ask(picture, question, vision)
    assert stock.tokens == demo.stock_tokens == 64
    assert converted.tokens == demo.look(picture, vision).tokens <= 40
    text = f"USER: <image>\n{question} ASSISTANT:"
    model, processor = (
        kind.from_pretrained(shipped("pocket-llava")) for kind in (AutoModelForImageTextToText, AutoProcessor)
    )
    assert stock.text == answer(model, processor, picture, text)
    model, processor = qlip.from_pretrained("pocket-llava")
    options = {"size": 224, "max_tokens": 40, "fit": "scale", "alpha": 0.3}
    assert converted.text == answer(model, processor, picture, text, **options)
    again = demo.ask(picture, question, vision)
    assert [reply.text for reply in again] == [stock.text, converted.text]


def answer(model: Any, processor: Any, picture: Image.Image, text: str, **options: Any) -> str:
    system = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    system += "detailed, and polite answers to the user's questions. "
    inputs = processor(images=[picture], text=[system + text], return_tensors="pt", **options)
    tokens = model.generate(**inputs, max_new_tokens=128, do_sample=False)
    return processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_a_family_that_takes_pictures_of_any_size(picture, tmp_path):
    demo = Demo(DemoConfig(model=str(save_tiny("qwen2.5", tmp_path)), device="cpu"))
    vision = Vision(size=None, max_tokens=30)
    stock, converted = demo.ask(picture, "word1 word2", vision)
    assert demo.look(picture, vision).tokens == converted.tokens <= 30 < stock.tokens
    assert first(demo.config.model) == (None, "")


def test_without_gradio_one_line_says_how_to_get_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gradio" else find(name, *rest)
    )
    with pytest.raises(SystemExit, match=r"^qlip: demo: Gradio is not installed; pip install 'qlip\[demo\]'$"):
        main(["demo"])


@pytest.fixture
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    pytest.importorskip("gradio")
    missing = [name for name, path in DRIVERS.items() if path is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}")
    options = webdriver.ChromeOptions()
    options.binary_location = DRIVERS["chromium"]
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVERS["chromedriver"]))
    try:
        yield driver
    finally:
        driver.quit()


def test_the_page_in_a_browser(browser, demo, picture, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait

    from qlip.tools.demo_page import build_page, launch

    page = build_page(demo, *first("pocket-llava"))
    wait = WebDriverWait(browser, 60)

    def text(name: str) -> str:
        return browser.find_element("id", name).text

    def field(name: str) -> Any:
        return browser.find_element("css selector", f"#{name} :is(input, textarea)")

    try:
        browser.get(launch(page, wait=False))
        wait.until(lambda _: "of the whole grid of" in text("told"))
        start = text("told")
        file = tmp_path / "picture.png"
        picture.resize((300, 300)).save(file)
        browser.find_element("css selector", "input[type=file]").send_keys(str(file))
        wait.until(lambda _: text("told") not in (start, ""))
        square = demo.look(picture.resize((300, 300)), Vision(size=224, max_tokens=64))
        assert text("told") == f"{square.tokens} tokens, {100 * square.tokens / 256:.0f} % of the whole grid of 16 x 16"
        before = text("told")
        budget = browser.find_element("css selector", "input[type=number][aria-label*=Budget]")
        budget.send_keys("\ue009a\ue000", "20", "\ue004")  # all of it, another number, on to the next field
        wait.until(lambda _: text("told") not in (before, ""))
        assert 18 <= int(text("told").split()[0]) <= 20
        for name in ("leaves", "held", "downscaled"):
            assert browser.find_element("css selector", f"#{name} img").get_attribute("naturalWidth") == "672"
        browser.find_element("id", "ask").click()
        wait.until(lambda _: field("converted").get_attribute("value"))
        replies = demo.ask(
            picture.resize((300, 300)), field("question").get_attribute("value"), Vision(size=224, max_tokens=20)
        )
        for name, reply in zip(("stock", "converted"), replies, strict=True):
            assert field(name).get_attribute("value") == reply.text
            assert text(f"{name}-price").startswith(f"{reply.tokens} image tokens, ")
        field("question").send_keys("\ue009a\ue000", "\ue003")
        browser.find_element("id", "ask").click()
        wait.until(lambda _: "write a question first" in browser.find_element("tag name", "body").text)
        for width in (400, 1280):
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            )  # fmt: skip
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.close()
