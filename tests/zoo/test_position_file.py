"""One file format for a position, in a zoo entry and beside a model."""

import json

import pytest
import safetensors.torch
import torch

from qlip import PositionMLP, TablePosition
from qlip.zoo.position_file import POSITION_FILE, describe, read_position, saved_position, write_position
from tests.zoo.helpers import same, tiny_position


def table_position(mode="bilinear"):
    return TablePosition(torch.arange(4 * 4 * 8.0).reshape(4, 4, 8), mode)


def spoil(path, change):
    """Change tensors and metadata of a file."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    change(tensors, metadata)
    safetensors.torch.save_file(tensors, path, metadata)


@pytest.mark.parametrize("made", [tiny_position, table_position, lambda: tiny_position().bfloat16()])
def test_round_trip_is_exact(made, tmp_path):
    position = made()
    path = write_position(tmp_path / "x.safetensors", position)
    read = read_position(path)
    assert type(read) is type(position)
    assert same(read, position)
    assert describe(read) == describe(position)


def test_what_the_description_says():
    assert describe(table_position("nearest")) == {"type": "TablePosition", "mode": "nearest"}
    architecture = {"dim": 8, "grid": 4, "hidden": 16, "depth": 2, "fourier": 3, "sigma": 0.25}
    assert describe(tiny_position()) == {"type": "PositionMLP", **architecture}


def test_reading_draws_no_random_numbers_and_gives_what_can_be_trained(tmp_path):
    path = write_position(tmp_path / "x.safetensors", tiny_position())
    before = torch.get_rng_state()
    read = read_position(path)
    assert torch.equal(torch.get_rng_state(), before)
    read(torch.zeros(1, 2)).sum().backward()
    assert all(parameter.grad is not None for parameter in read.parameters())


def test_a_function_cannot_be_written(tmp_path):
    with pytest.raises(TypeError, match="A function cannot be saved"):
        write_position(tmp_path / "x", torch.sin)
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_description_needs_one(tmp_path):
    path = write_position(tmp_path / "x.safetensors", tiny_position())
    spoil(path, lambda tensors, metadata: metadata.pop("qlip"))
    with pytest.raises(ValueError, match=r"not written by qlip; takes the qlip\.safetensors"):
        read_position(path)
    assert same(read_position(path, describe(tiny_position())), tiny_position())


def test_two_descriptions_must_agree(tmp_path):
    path = write_position(tmp_path / "x.safetensors", tiny_position())
    assert same(read_position(path, describe(tiny_position())), tiny_position())
    with pytest.raises(ValueError, match=r"depth is 2 by its own description and 3 by config\.json"):
        read_position(path, {**describe(tiny_position()), "depth": 3})
    with pytest.raises(ValueError, match="belong to two positions"):
        read_position(path, describe(table_position()))


def described(**changes):
    """Change what the file says."""

    def change(tensors, metadata):
        metadata["qlip"] = json.dumps({**json.loads(metadata["qlip"]), **changes})

    return change


def undescribed(key):
    """Take something out of what the file says."""

    def change(tensors, metadata):
        metadata["qlip"] = json.dumps(
            {name: value for name, value in json.loads(metadata["qlip"]).items() if name != key}
        )

    return change


@pytest.mark.parametrize(
    ("made", "change", "message"),
    [
        (tiny_position, lambda t, m: t.pop("readout.bias"), r"missing tensors readout\.bias"),
        (tiny_position, lambda t, m: t.update(more=torch.zeros(1)), "unknown tensors more"),
        (tiny_position, lambda t, m: t.update({"readout.bias": torch.zeros(9)}), r"readout\.bias is .*of shape \(8,\)"),
        (
            tiny_position,
            lambda t, m: t.update({"readout.bias": torch.zeros(8).half()}),
            r"readout\.bias is torch\.float16 of shape \(8,\); it should be torch\.float32",
        ),
        (tiny_position, lambda t, m: t.update({k: v.int() for k, v in t.items()}), r"is torch\.int32.*torch\.float32"),
        (table_position, lambda t, m: t.pop("table"), "missing tensors table"),
        (table_position, lambda t, m: t.update(table=torch.zeros(4, 3, 8)), r"table: got shape \(4, 3, 8\)"),
        (table_position, lambda t, m: t.update(table=torch.zeros(4, 4, 8).int()), r"table is torch\.int32"),
        (table_position, described(mode="cubic"), "mode: got 'cubic'; takes one of bicubic"),
        (table_position, described(sigma=1), "'sigma': 1} describes no position that this qlip knows"),
        (tiny_position, described(type="Spline"), "'Spline', .* describes no position"),
        (tiny_position, described(type=["a"]), "describes no position"),
        (tiny_position, described(colour="red"), "'colour': 'red'} describes no position"),
        (tiny_position, undescribed("grid"), r"'depth': 2, .* describes no position"),
        (table_position, undescribed("mode"), r"\{'type': 'TablePosition'\} describes no position"),
        (tiny_position, described(depth="2"), "depth: got '2'; takes a positive integer"),
        (tiny_position, described(depth=100_000), "depth: got 100000; takes a positive integer of at most 256"),
        (tiny_position, described(sha256="0"), r"damaged, its tensors are not those that were written \(sha256\)"),
        (
            tiny_position,
            lambda t, m: t["readout.bias"].add_(1e-6),
            "damaged, its tensors are not those that were written",
        ),
        (table_position, lambda t, m: t["table"].add_(1), "damaged, its tensors are not those that were written"),
        (
            tiny_position,
            lambda t, m: t["readout.bias"].fill_(torch.nan),
            r"readout\.bias holds values that are not finite",
        ),
        (table_position, lambda t, m: t["table"].fill_(torch.inf), "table holds values that are not finite"),
        (tiny_position, described(depth=0), "depth: got 0; takes a positive integer"),
        (tiny_position, lambda t, m: m.update(qlip="{"), "its description: damaged, it is no JSON of ours"),
        (tiny_position, lambda t, m: m.update(qlip="[1]"), "its description: damaged, it is no object"),
    ],
)
def test_a_damaged_file_is_refused_by_what_is_wrong(made, change, message, tmp_path):
    path = write_position(tmp_path / "x.safetensors", made())
    spoil(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        read_position(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_from_before_there_were_checksums_is_read(tmp_path):
    path = write_position(tmp_path / "x.safetensors", tiny_position())
    spoil(path, undescribed("sha256"))
    assert same(read_position(path), tiny_position())


def test_a_cut_file_is_refused(tmp_path):
    path = write_position(tmp_path / "x.safetensors", tiny_position())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"x\.safetensors: damaged"):
        read_position(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match=r"x\.safetensors"):
        read_position(tmp_path / "x.safetensors")


def test_the_position_saved_beside_a_model(tmp_path):
    assert saved_position(tmp_path) is None
    assert saved_position("pocket-llava") is None
    write_position(tmp_path / POSITION_FILE, tiny_position())
    found = saved_position(tmp_path)
    assert isinstance(found, PositionMLP)
    assert same(found, tiny_position())
