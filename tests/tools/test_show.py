"""The verb ``show``: what is drawn, counted and refused."""

import numpy as np
import pytest
from PIL import Image

from qlip.cli import main
from qlip.images.read import read_image
from qlip.tools.config import ShowConfig
from qlip.tools.geometry import read_geometry
from qlip.tools.sheet import MARGIN, NARROWEST, Panel, draw_sheet
from qlip.tools.show import processor_of, run_show, see


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    shapes = {"photo.png": (300, 200), "wide.png": (900, 100), "tall.png": (80, 700)}
    for name, (width, height) in shapes.items():
        values = np.random.default_rng(0).integers(0, 255, (height // 10, width // 10, 3), dtype=np.uint8)
        Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC).save(folder / name)
    return folder


@pytest.mark.parametrize("name", ["photo", "wide", "tall"])
def test_a_sheet_of_three_panels_in_the_current_folder(name, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["show", str(pictures / f"{name}.png"), "--size", "112", "--max-tokens", "30"])
    line = capsys.readouterr().out
    width, height = Image.open(tmp_path / f"{name}-qlip.png").size
    assert f"{name}.png: {'29 tokens' if name == 'wide' else ''}" in line
    assert "stock 576" in line
    assert line.strip().endswith(f"written to {name}-qlip.png")
    assert (width > height) == (name == "photo" or name == "wide")
    assert min(width, height) > NARROWEST


def test_without_a_price_it_is_the_stock_models(pictures):
    picture, geometry = read_image(pictures / "photo.png"), read_geometry(None)
    tokens = {}
    for name, config in (
        ("stock", ShowConfig(size=672)),
        ("budget", ShowConfig(size=672, max_tokens=100)),
        ("alpha", ShowConfig(size=672, alpha=0.0)),
        ("both", ShowConfig(size=672, alpha=0.0, max_tokens=100, fit="scale")),
    ):
        tokens[name] = len(see(picture, processor_of(config, geometry, config.alpha is not None)).leaves)
    assert 574 <= tokens["stock"] <= 576
    assert tokens["alpha"] > 2000
    assert all(98 <= tokens[name] <= 100 for name in ("budget", "both"))


@pytest.mark.parametrize("fit", ["prune", "scale"])
def test_the_whole_shows_what_the_view_shows(fit, pictures):
    """Else the losses would be those of a shift: a picture scaled down alone must come close to the original."""
    config = ShowConfig(size=None, alpha=0.0, max_tokens=200, fit=fit, criterion="uniform")
    seen = see(read_image(pictures / "photo.png"), processor_of(config, read_geometry(None), True))
    assert min(seen.view.size) < min(seen.whole.size)
    back = seen.view.resize(seen.whole.size, Image.Resampling.BICUBIC)
    lost = np.abs(np.asarray(back, float) - np.asarray(seen.whole, float)).mean()
    shifted = np.abs(np.asarray(back, float)[:, 2:] - np.asarray(seen.whole, float)[:, :-2]).mean()
    assert lost < 0.3 * shifted


def test_several_pictures_on_one_sheet_and_pictures_of_one_name(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = pictures / "photo.png"
    one = run_show([file], ShowConfig(max_tokens=30, model="pocket-llava"))
    run_show([file, file], ShowConfig(max_tokens=30, model="pocket-llava", out=tmp_path / "both.png"))
    run_show([file, file], ShowConfig(max_tokens=30, model="pocket-llava"))
    assert "of 96" not in one[0]
    assert "stock 64" in one[0]
    assert {path.name for path in tmp_path.iterdir()} == {"both.png", "photo-qlip.png", "photo-qlip-2.png"}
    single, both = (Image.open(tmp_path / name).size for name in ("photo-qlip.png", "both.png"))
    assert both == (single[0], 2 * single[1])


def test_the_grid_has_a_row_for_each_size_and_a_column_for_each_alpha(pictures, tmp_path, capsys):
    out = tmp_path / "grid.png"
    main(["show", str(pictures / "photo.png"), "--grid", "--model=pocket-llava", "--out", str(out)])
    width, height = Image.open(out).size
    assert width / height == pytest.approx(4 / 3 * 1.5, rel=0.2)  # 4 columns, 3 rows, each 3 to 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid", "--max-tokens=9"], "qlip: grid: got max_tokens=9 with it"),
        (["--model=pocket-clip", "--patch-size=7"], "qlip: patch_size: got 7 with model='pocket-clip'"),
        (["--criterion=derivate"], "qlip: criterion: got 'derivate'.*did you mean 'derivative'"),
        (["--alpha=-1"], "qlip: alpha: got -1"),
    ],
)
def test_what_is_not_taken_is_one_line(options, message, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as stopped:
        main(["show", str(pictures / "photo.png"), *options])
    assert "\n" not in str(stopped.value)
    assert not list(tmp_path.iterdir())


def test_captions_stand_above_their_pictures_and_within_their_columns():
    panels = [Panel("A title", "many words " * 30, Image.new("RGB", (100, 50), "red")) for _ in range(2)]
    sheet = np.asarray(draw_sheet([panels])).astype(int)
    red = (sheet == (255, 0, 0)).all(-1)
    ink = sheet.max(-1) < 200
    assert red.sum() == 2 * 100 * 50
    assert np.flatnonzero(ink.any(1)).max() < np.flatnonzero(red.any(1)).min()
    between = slice(MARGIN + NARROWEST, 2 * MARGIN + NARROWEST)
    assert not ink[:, between].any()
