"""One case of each kind of fault that `make campaign` has found; the campaign is in tests/robustness."""

import io
import json
import os
import struct
import time
import zlib
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from qlip import QlipImageProcessor
from qlip.core.rules import SIDE, numbers, shown
from qlip.evaluation.benchmarks import get_benchmark
from qlip.evaluation.benchmarks.local import read_questions
from qlip.evaluation.cell import Cell
from qlip.evaluation.config import BiasConfig
from qlip.evaluation.journal import Journal
from qlip.evaluation.report.tables import Table
from qlip.evaluation.results import missing_cells
from qlip.files import read_whole, replacing_folder, write_text
from qlip.images.read import read_size, to_rgb
from qlip.structured import DamagedFileError, check_configs, parse_json
from qlip.tools.config import CompareConfig
from qlip.tools.loss import similarity
from qlip.tools.tune import Line
from qlip.towers.hub import read_config
from qlip.towers.load import load_clip
from qlip.training.data import QlipDataModule
from qlip.zoo.config import EntryError
from qlip.zoo.load import pull
from qlip.zoo.position_file import read_position
from qlip.zoo.store import save
from tests.evaluation.local_data import MAKERS
from tests.zoo.helpers import describe, tiny_position

LARGE = 10**5000  # more digits than Python writes out


@pytest.fixture
def entry(tmp_path):
    return save(tiny_position(), tmp_path / "entry", describe(tiny_position()))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: QlipImageProcessor(mean=None), "mean"),
        (lambda: QlipImageProcessor(std=(1, 1, 1e-320)), "std"),
        (lambda: QlipImageProcessor(std=(1, 1, LARGE)), "std"),
        (lambda: QlipImageProcessor(quadtree=LARGE), "quadtree"),
        (lambda: Cell(benchmark={}, model="x"), "benchmark"),
        (lambda: Cell(benchmark="pope", model="x", size=np.ones(2)), "size"),
        (lambda: Cell(benchmark="pope", model="x", scoring=np.ones(2)), "scoring"),
        (lambda: CompareConfig(budgets=0), "budgets"),
        (lambda: CompareConfig(budgets="nan"), "budgets"),
        (lambda: BiasConfig(images="x", sizes=None), "sizes"),
        (lambda: QlipDataModule(val_sizes=None), "val_sizes"),
        (lambda: QlipDataModule(merge=None), "merge"),
    ],
    ids=range(12),
)
def test_an_option_of_another_type_is_named(make, name):
    with pytest.raises((ValueError, TypeError), match=f"^{name}: got .*; "):
        make()


def test_several_numbers():
    assert numbers([np.int64(3), 4], SIDE) == (3, 4)
    assert numbers((3, 4), SIDE, count=2) == (3, 4)
    assert not any(numbers(odd, SIDE) for odd in ([], "12", {3}, {3: 4}, [3.5], [True], np.ones(()), None, [0]))
    assert shown(LARGE) == "a whole number of 16610 bits"
    assert shown([LARGE]) == "a list"


def encoded(kind, **options):
    file = io.BytesIO()
    Image.new("RGB", (40, 20)).save(file, kind, **options)
    return file.getvalue()


def png(count):
    chunk = struct.pack(">I", 3) + b"tEXtk\0x" + struct.pack(">I", zlib.crc32(b"tEXtk\0x"))
    data = encoded("PNG")
    return data[:33] + count * chunk + data[33:]


def test_pictures_that_would_take_minutes_are_refused_at_once():
    progressive = encoded("JPEG", progressive=True)
    scan = progressive[progressive.find(b"\xff\xda") :].partition(b"\xff\xc4")[0].removesuffix(b"\xff\xd9")
    assert to_rgb(png(999 - 4)).size == to_rgb(progressive).size == (40, 20)
    for data, message in (
        (png(100_000), "chunks besides its pixels"),
        (progressive[:-2] + 300 * scan + b"\xff\xd9", "scans; takes at most 256"),
        (b"P6\n#" + b"c" * 2**20 + b"\n4 4 255\n" + b"x" * 48, "no size within 65,536 bytes"),
    ):
        before = time.monotonic()
        with pytest.raises(OSError, match=message):
            to_rgb(data)
        assert time.monotonic() - before < 2
    assert to_rgb(b"P6\n# a comment\n4 4 255\n" + b"x" * 48).size == (4, 4)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_turned_tiff_has_one_size(compression):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded("TIFF", exif=exif.tobytes(), compression=compression)
    assert read_size(data) == to_rgb(data).size == (20, 40)


def test_transparency_over_white_has_no_seam():
    values = np.random.default_rng(0).integers(0, 256, (2100, 30, 4), dtype=np.uint8)
    picture = Image.fromarray(values)
    whole = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    assert np.array_equal(np.asarray(to_rgb(picture)), np.asarray(whole))


def asked(benchmark, source):
    return benchmark.questions(source, "llava"), source.sizes()


def test_a_row_that_lacks_a_column_is_named_with_its_folder(tmp_path):
    MAKERS["pope"](tmp_path / "whole")
    rows = datasets.load_dataset(
        "parquet", data_files=str(next((tmp_path / "whole").rglob("*.parquet"))), split="train"
    )
    benchmark = get_benchmark("pope")
    for column, message in (
        ("question", "row 0 of .*copy.* has no 'question'"),
        ("image", "copy.*takes one called image"),
    ):
        rows.remove_columns(column).save_to_disk(tmp_path / "copy" / column)
        source = benchmark.load(tmp_path / "copy" / column)
        with pytest.raises(ValueError, match=message):
            asked(benchmark, source)
    odd = rows.remove_columns("category").add_column("category", [3] * len(rows))
    odd.save_to_disk(tmp_path / "odd")
    with pytest.raises(ValueError, match=r"row 0 of .*odd holds what is not taken \(as group it has 3"):
        benchmark.questions(benchmark.load(tmp_path / "odd"), "llava")
    (tmp_path / "bad" / "data").mkdir(parents=True)
    (tmp_path / "bad" / "data" / "test-0.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"data: .*bad cannot be read"):
        benchmark.load(tmp_path / "bad")


@pytest.mark.parametrize("image", ["../a.png", "/etc/hosts", "x" * 300])
def test_pictures_of_questions_lie_below_their_folder(image, tmp_path):
    (tmp_path / "below").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "q.csv").write_text(f"image,question\n{image},x\n")
    with pytest.raises(OSError, match=r"q.csv: line 2: "):
        read_questions(tmp_path / "below", tmp_path / "q.csv")


def test_models_that_cannot_be_had_are_named_and_their_code_never_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "file").write_text("{}")
    (tmp_path / "code").mkdir()
    auto = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
    (tmp_path / "code" / "config.json").write_text(json.dumps(auto))
    (tmp_path / "code" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "config.json").write_text("[" * 9999)
    for source in (tmp_path / "file", tmp_path / "code", tmp_path / "deep", "nowhere", "a b", "x" * 5000):
        with pytest.raises((OSError, ValueError), match=r"^model: "):
            read_config(str(source), "model")
    assert not (tmp_path / "ran").exists()
    for name in ("random:0x0", "random:999999x999999", "random:33x1"):
        with pytest.raises(ValueError, match="backbone: got 'random:"):
            load_clip(name)


def test_half_characters_and_options_that_are_no_mapping_are_refused(tmp_path):
    with pytest.raises(DamagedFileError, match=r"file: .*half a character"):
        parse_json('{"a": ["\\ud800"]}', "file")
    (tmp_path / "c.yaml").write_text("just a text")
    with pytest.raises(DamagedFileError, match=r"c.yaml: holds 'just a text'; takes names of options"):
        check_configs(["--config", str(tmp_path / "c.yaml")])
    (tmp_path / "sweep.json").write_text('{"cells": [3]}')
    with pytest.raises(DamagedFileError, match=r"sweep.json: cells: got \[3\]"):
        missing_cells(tmp_path)


def test_a_torn_line_never_runs_into_the_next(tmp_path):
    journal = Journal(tmp_path / "j.jsonl", Line)
    lines = [{"id": str(i), "arms": None, "alpha": 0.5} for i in range(3)]
    journal.append(lines[:1])
    with journal.path.open("ab") as file:
        file.write(b'{"id": "torn' + b"x" * 200_000)
    journal.append(lines[1:])
    assert journal.recover() == lines


def test_a_disk_that_is_full_is_named(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=f"{tmp_path / 'a'} cannot be written .No space left"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    with pytest.raises(IsADirectoryError, match=f"{tmp_path}: is a folder"):
        write_text(tmp_path, "x")


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(tmp_path):
    folder, seen = tmp_path / "folder", []
    folder.mkdir()
    (folder / "a").write_text("old")

    def read():
        seen.append((folder / "a").read_text())
        if len(seen) == 1:
            with replacing_folder(folder) as new:
                (new / "a").write_text("new")
            raise FileNotFoundError("b")
        return seen[-1]

    assert read_whole(folder, read) == "new"
    with pytest.raises(FileNotFoundError):
        read_whole(folder, (folder / "gone").read_text)


def test_a_link_out_of_an_entry_is_not_copied(entry, tmp_path):
    os.remove(entry / "README.md")
    (tmp_path / "secret").write_text("mine")
    (entry / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(EntryError, match=r"README.md: is a link to .*secret"):
        pull(str(entry), "copy", tmp_path / "other")


def test_positions_of_other_numbers_are_refused(tmp_path):
    tensors = {"table": torch.zeros(2, 2, 4).to(torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / "t.safetensors", {"qlip": '{"type": "TablePosition", "mode": "bicubic"}'})
    with pytest.raises(ValueError, match=r"t.safetensors: table is torch.float8"):
        read_position(tmp_path / "t.safetensors")


def test_what_a_spreadsheet_would_run_is_text(tmp_path):
    table = Table("t", "T", ["a", "b"], [["=1+1", "+1.2*"], ["@x", "-0.5"], ["a|b\n#", "-x"]])
    assert table.write_csv(tmp_path).read_text().splitlines()[1:3] == ["'=1+1,+1.2*", "'@x,-0.5"]
    assert len(table.markdown().splitlines()) == 5


def test_a_picture_of_one_row_is_measured():
    assert similarity(np.zeros((1, 40), np.float32), np.zeros((1, 40), np.float32)) == 1
