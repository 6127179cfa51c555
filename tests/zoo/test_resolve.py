"""Whatever a user gives as a position, every part of qlip takes it to mean the same."""

import pytest
import torch

import qlip
from qlip import PositionMLP, QlipVisionModel, TablePosition
from qlip.towers.load import load_clip, position_table
from qlip.towers.synthetic import random_clip
from qlip.zoo import load as zoo
from qlip.zoo.entries import NotFoundError
from qlip.zoo.registry import REGISTRY
from qlip.zoo.resolve import NAMES, resolve_position
from qlip.zoo.solve import solved_position
from qlip.zoo.store import save
from tests.zoo.helpers import describe, same, tiny_position

TABLE = torch.arange(4 * 4 * 8.0).reshape(4, 4, 8) / 100
COORDS = torch.tensor([[-0.3, 0.2], [1.0, 1.0]])


@pytest.fixture(autouse=True)
def _own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def entry_for(clip, folder, seed=1):
    """An entry that fits a CLIP and tells its seed."""
    table = position_table(clip)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        position = PositionMLP(table.shape[-1], grid=table.shape[0], hidden=16, depth=1, fourier=3)
    save(position, folder, describe(position))
    return position


def test_the_names():
    assert NAMES == ("solve", "bicubic", "bilinear", "nearest", "zero")


@pytest.mark.parametrize("name", ["solve", None])
def test_solve_is_what_is_meant_by_nothing(name):
    assert same(resolve_position(name, TABLE), solved_position(TABLE))


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_other_names_are_the_table_itself(name):
    position = resolve_position(name, TABLE)
    assert isinstance(position, TablePosition)
    assert position.mode == name
    assert torch.equal(position(COORDS), TablePosition(TABLE, name)(COORDS))


def test_an_entry_by_name_folder_and_path(tmp_path):
    position = tiny_position()
    save(position, tmp_path / "checkpoints" / "mine", describe(position))
    for source in ("mine", "checkpoints/mine", tmp_path / "checkpoints" / "mine"):
        assert same(resolve_position(source, TABLE), position)


def test_a_name_comes_before_an_entry_but_a_path_does_not(tmp_path):
    position = tiny_position()
    save(position, tmp_path / "zero", describe(position))
    assert isinstance(resolve_position("zero", TABLE), TablePosition)
    assert same(resolve_position(tmp_path / "zero", TABLE), position)


def test_positions_and_functions_are_taken_as_they_are():
    for position in (tiny_position(), TablePosition(TABLE), torch.sin, lambda coords: coords):
        assert resolve_position(position, TABLE) is position


def test_what_is_loaded_goes_to_the_tables_device(tmp_path):
    save(tiny_position(), tmp_path / "x", describe(tiny_position()))
    assert resolve_position("x", TABLE.to("meta")).frequencies.device.type == "meta"


@pytest.mark.parametrize("name", ["bilinaer", "Bicubic", "", "clip-vit-base-patch3", "/nowhere/x", "mien"])
def test_an_unknown_name_is_answered_with_all_that_is_taken(name, tmp_path):
    save(tiny_position(), tmp_path / "checkpoints" / "mine", describe(tiny_position()))
    with pytest.raises(NotFoundError) as caught:
        resolve_position(name, TABLE)
    message = str(caught.value)
    assert message.startswith(f"position: got {name!r}")
    assert "\n" not in message
    for taken in (
        *map(repr, NAMES),
        *REGISTRY,
        "PositionMLP",
        "solve:<CLIP id or folder>",
        "checkpoints/ (mine)",
        "owner/name",
    ):
        assert taken in message
    alike = {
        "bilinaer": "bilinear",
        "Bicubic": "bicubic",
        "clip-vit-base-patch3": "clip-vit-base-patch32",
        "mien": "mine",
    }
    assert ("did you mean" in message) == (name in alike)
    assert name not in alike or f"did you mean {alike[name]!r}?" in message


def test_a_source_that_is_known_but_cannot_be_had_keeps_its_own_error(monkeypatch):
    with pytest.raises(NotFoundError, match=r"^solve:/nowhere/clip: the CLIP /nowhere/clip is in no folder"):
        resolve_position("solve:/nowhere/clip", TABLE)


@pytest.mark.parametrize("wrong", [7, True, ["solve"], torch.zeros(4, 4, 8)])
def test_anything_else_is_a_type_error(wrong):
    with pytest.raises(TypeError, match=rf"position: got {type(wrong).__name__}; takes a name \('solve', 'bicubic'"):
        resolve_position(wrong, TABLE)


@pytest.mark.parametrize(
    ("position", "message"),
    [
        (PositionMLP(8, 24, hidden=8), "24 x 24 grid of width 8; this tower has 4 x 4 of width 8"),
        (TablePosition(torch.zeros(4, 4, 32)), "4 x 4 grid of width 32"),
    ],
)
def test_a_position_for_another_tower_is_refused(position, message):
    with pytest.raises(ValueError, match=message):
        resolve_position(position, TABLE)


def test_an_entry_for_another_tower_is_refused(tmp_path):
    save(tiny_position(dim=12), tmp_path / "x", describe(tiny_position(dim=12)))
    with pytest.raises(ValueError, match="4 x 4 grid of width 12; this tower has 4 x 4 of width 8"):
        resolve_position("x", TABLE)


@pytest.fixture(scope="module")
def clip():
    return random_clip(width=32, layers=1, image_size=98)


@pytest.mark.parametrize(
    "verb", [QlipVisionModel.from_clip, lambda clip, position: qlip.convert(clip, position=position)]
)
def test_from_clip_and_convert_take_the_same(verb, clip, clip_folder, solved, tmp_path):
    in_zoo = entry_for(clip, tmp_path / "checkpoints" / "mine")
    assert same(verb(clip, f"solve:{clip_folder}").position, solved[0])
    assert same(verb(clip, "mine").position, in_zoo)
    assert same(verb(clip, tmp_path / "checkpoints" / "mine").position, in_zoo)
    assert verb(clip, "nearest").position.mode == "nearest"
    with pytest.raises(NotFoundError, match="did you mean 'bilinear'"):
        verb(clip, "bilinaer")


def test_a_hub_id_is_downloaded(monkeypatch, tmp_path):
    save(tiny_position(), tmp_path / "snapshot", describe(tiny_position()))
    monkeypatch.setattr(zoo, "snapshot_download", lambda *_, **__: str(tmp_path / "snapshot"))
    assert same(resolve_position("me/x", TABLE), tiny_position())


def test_solving_for_the_table_is_solving_for_its_clip(clip_folder, solved):
    assert same(resolve_position("solve", position_table(load_clip(str(clip_folder)))), solved[0])
