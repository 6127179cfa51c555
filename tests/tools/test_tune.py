"""The verb ``tune``: what it compares, what it recommends, and that it goes on where it was stopped."""

import json
import logging

import numpy as np
import pytest
from matplotlib import image as files
from PIL import Image, ImageDraw
from rich.console import Console

from qlip.cli import main
from qlip.tools import tune
from qlip.tools.advice import PLAIN, Setting, advice, best, gains, tabulate
from qlip.tools.config import TuneConfig
from qlip.tools.geometry import Geometry, read_geometry
from qlip.tools.loss import grey, similarity
from qlip.tools.measure import MAX_MEASURED, bounded, measure

GOOD, BAD, DEAR = (
    Setting(336, criterion, fit, None, 100)
    for criterion, fit in (("gradient", "scale"), ("derivative", "prune"), ("reconstruction", "prune"))
)


def scene(seed, size=(280, 210)):
    """Much noise in one corner of a smooth ramp: most blocks can merge."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, size[0])[None, :, None].repeat(size[1], 0).repeat(3, 2)
    ramp[:70, :70] = rng.integers(0, 255, (70, 70, 3))
    return Image.fromarray(ramp.astype(np.uint8))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune, "can_read", lambda: False)
    (tmp_path / "pictures").mkdir()
    for seed in range(4):
        scene(seed).save(tmp_path / "pictures" / f"{seed}.png")
    return tmp_path / "pictures"


def record(name, words=None, **ssim):
    plain = {"ssim": 0.5, "edges": None, "words": words and 0.5}
    arms = {each.name: {"tokens": 100, **plain} for each in (GOOD, BAD, DEAR)} | {PLAIN: plain}
    for setting, gain in zip((GOOD, BAD, DEAR), (0.1, -0.1, 0.2), strict=True):
        arms[setting.name] = {**arms[setting.name], "ssim": 0.5 + gain, "words": words and 0.5 + words * gain}
    arms[DEAR.name]["tokens"] = 120
    return {"id": name, "arms": arms}


def test_a_gain_is_the_mean_over_measures_of_paired_differences():
    found = gains([record("a", 1), record("b", 1), record("c", 3), record("d")], [BAD, GOOD, DEAR])
    assert [gain.setting for gain in found] == [DEAR, GOOD, BAD]
    assert set(found[0].differences) == {"ssim", "words"}  # no picture has edges
    assert found[1].total.value == pytest.approx((0.1 + (0.1 + 0.1 + 0.3) / 3) / 2)
    assert found[1].total.low < found[1].total.value < found[1].total.high
    assert found[1].values == pytest.approx({"ssim": 0.6, "words": (0.6 + 0.6 + 0.8) / 3})


def test_words_of_two_pictures_among_many_do_not_count():
    found = gains([record("a", 1), record("b", -9), record("c"), record("d")], [GOOD])
    assert set(found[0].differences) == {"ssim"}


def test_what_is_too_dear_or_no_better_is_not_recommended():
    records = [record("a"), record("b"), record("c")]
    assert best(gains(records, [BAD, GOOD, DEAR]), 100).setting == GOOD
    assert best(gains(records, [BAD, GOOD, DEAR]), 115).setting == DEAR
    assert best(gains(records, [BAD]), 100) is None
    text = advice(gains(records, [BAD]), records, Geometry(), 100, 2)
    assert "qlip.convert(model, processor, size=None, criterion='uniform', max_tokens=100)" in text
    assert "--size null --criterion uniform --max-tokens 100" in text
    assert "cannot be read or cut: 2;" in text


@pytest.mark.parametrize("width", [80, 200])
def test_no_cell_of_the_table_is_cut_off(width):
    wide = Setting(None, "reconstruction", "scale", 0.002, 1500)
    one = record("a", 1)
    one["arms"][wide.name] = {**one["arms"][GOOD.name], "tokens": 1500, "edges": 0.1}
    one["arms"][PLAIN] = {**one["arms"][PLAIN], "edges": 0.1}
    console = Console(width=width)
    with console.capture() as shown:
        console.print(tabulate(gains([one], [wide]), [one]))
    text = shown.get()
    assert "…" not in text
    for part in ("scale own reconstruction 0.002", "1500/1500/1500", "+0.067 ±0.000", "10/50/90 %"):
        assert part in text


def test_measured_without_loss_where_nothing_is_merged():
    picture = scene(0)
    arm = Setting(None, "derivative", "prune", 0.0, None).processor(read_geometry(None))
    found = measure(picture, {"all": arm}, 280 * 210, read=False)
    assert found["all"] == {"tokens": 300, "ssim": 1.0, "edges": 1.0, "words": None}
    assert found[PLAIN] == {"ssim": 1.0, "edges": 1.0, "words": None}


def test_a_large_picture_is_measured_smaller():
    assert bounded(Image.new("RGB", (300, 200))).size == (300, 200)
    width, height = bounded(Image.new("RGB", (4000, 1000))).size
    assert 0.99 * MAX_MEASURED < width * height <= MAX_MEASURED
    assert width / height == pytest.approx(4, rel=0.01)


def test_sizes_are_those_that_pictures_have():
    clip = Geometry()
    assert tune.find_sizes(clip, [(500, 375)] * 9 + [(4000, 3000)]) == [336, None]
    assert tune.find_sizes(clip, [(4000, 3000)] * 3) == [336, 672]
    assert tune.find_sizes(Geometry(size=None, tokens=None), [(500, 375)]) == [None]
    assert tune.find_sizes(Geometry(size=None, tokens=None), [(4000, 3000)]) == [int((MAX_MEASURED * 3 / 4) ** 0.5)]


def test_a_threshold_meets_the_budget_on_average(folder):
    settings = Setting(None, "derivative", "prune", 0.0, None).processor(read_geometry(None))
    pictures = sorted(folder.iterdir())
    alpha = tune.calibrate(settings, pictures, 90)
    means = [
        np.mean([settings.count_tokens(file, alpha=each)[0] for file in pictures]) for each in (alpha, 0.98 * alpha)
    ]
    assert means[0] <= 90 < means[1]


def test_from_a_folder_to_a_line_to_paste(folder, capsys, caplog):
    (folder / "broken.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING, "qlip"):
        main(["tune", str(folder), "--budget", "80", "--workers", "0"])
    text = capsys.readouterr().out
    assert "4 pictures" in text
    assert "cannot be read or cut: 1;" in text
    assert "broken.png" in caplog.text
    (line,) = [line for line in text.splitlines() if "qlip.convert(" in line]
    (plot,) = folder.parent.glob("results/tune/pictures-*/tune.png")
    assert files.imread(plot).std() > 0.05
    assert "max_tokens=80" in line
    assert "size=None" in line  # quiet pictures with one busy corner: there merging loses nothing,
    assert "scale" not in line  # and scaling down does


def test_a_stopped_run_goes_on(folder, capsys, monkeypatch):
    config = TuneConfig(str(folder), budget=80, workers=0)
    main(["tune", str(folder), "--budget", "80", "--workers", "0"])
    first = capsys.readouterr().out
    journal = tune.folder_of(config) / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert [json.loads(line)["id"] for line in lines[-4:]] != sorted(json.loads(line)["id"] for line in lines)[:4]
    journal.write_text("".join(lines[:-2]) + lines[-2][:30])  # killed within a line
    measured = []
    real = tune.Pictures.__getitem__
    monkeypatch.setattr(tune.Pictures, "__getitem__", lambda self, i: measured.append(self.files[i]) or real(self, i))
    monkeypatch.setattr(tune, "calibrate", None)  # thresholds are not sought again
    main(["tune", str(folder), "--budget", "80", "--workers", "0"])
    assert len(measured) == 2
    assert capsys.readouterr().out.split("4 pictures")[1] == first.split("4 pictures")[1]
    assert sorted(journal.read_text().splitlines()) == sorted("".join(lines).splitlines())


@pytest.mark.parametrize("change", [{"budget": 81}, {"seed": 1}, {"limit": 3}, {"model": "pocket-clip"}])
def test_other_options_have_a_folder_of_their_own(change, folder):
    options = {"images": str(folder), "budget": 80}
    assert tune.folder_of(TuneConfig(**options)) != tune.folder_of(TuneConfig(**options | change))
    assert tune.folder_of(TuneConfig(**options)) == tune.folder_of(TuneConfig(**options, workers=0))


def test_a_share_is_of_the_stock_model_or_of_the_pictures_own_grid(folder):
    config = TuneConfig(str(folder), share=0.5)
    assert tune.budget_of(config, Geometry(), [(280, 210)]) == 288
    assert tune.budget_of(config, Geometry(size=None, tokens=None), [(280, 210), (140, 140), (280, 210)]) == 150


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "qlip: budget: got None, and share None"),
        (["--budget=9", "--share=0.5"], "qlip: budget: got 9, and share 0.5"),
        (["--share=0"], "qlip: share: got 0"),
    ],
)
def test_a_price_must_be_given_once(options, message, folder):
    with pytest.raises(SystemExit, match=message):
        main(["tune", str(folder), *options])


def test_a_folder_of_nothing_that_can_be_read(folder):
    for file in folder.iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(SystemExit, match=r"qlip: images: got .* none can be read"):
        main(["tune", str(folder), "--budget=9"])


def test_blur_is_what_similarity_sees():
    sharp = Image.new("RGB", (60, 60), "white")
    ImageDraw.Draw(sharp).rectangle((20, 20, 40, 40), fill="black")
    soft = sharp.resize((10, 10)).resize((60, 60))
    assert similarity(grey(sharp), grey(soft)) < 0.95
