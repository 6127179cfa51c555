import json

import pytest
import torch

import qlip
from qlip.files import sha256
from qlip.towers.load import load_clip, position_table
from qlip.zoo import load as zoo
from qlip.zoo.config import EntryError, ZooConfig
from qlip.zoo.entries import NotFoundError
from qlip.zoo.load import load, pull, push
from qlip.zoo.registry import REGISTRY, Entry
from qlip.zoo.store import load_folder, save
from tests.zoo.helpers import describe, same, tiny_position


@pytest.fixture(autouse=True)
def _own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def entry_with(seed, folder):
    """An entry whose weights tell the seed."""
    position = tiny_position(seed)
    save(position, folder, describe(position))
    return position


def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("went to the network")

    monkeypatch.setattr(zoo, "snapshot_download", refuse)


def test_load_is_a_public_name():
    assert qlip.load is load


def test_solve_is_reproducible_and_fits(clip_folder, solved):
    torch.rand(3)
    again = load(f"solve:{clip_folder}")
    assert same(again, solved[0])
    residual, _ = again.residual(position_table(load_clip(str(clip_folder))))
    assert residual < 5e-7


def test_solve_describes_what_it_solved(clip_folder, solved):
    position, config = solved
    assert (config.backbone, config.backbone_revision) == (str(clip_folder), None)
    assert (config.grid, config.patch_size, config.image_size) == (7, 14, 98)
    table = position_table(load_clip(str(clip_folder)))
    assert config.metrics["R"] == position.residual(table)[0].item() < 5e-7
    assert config.metrics["offgrid"] == position.offgrid(table)
    assert config.training == config.quadtree == {}


def test_order_folder_then_checkpoints_then_registry(clip_folder, solved, tmp_path, monkeypatch):
    no_network(monkeypatch)
    monkeypatch.setitem(REGISTRY, "x", Entry("x", f"solve:{clip_folder}", "solved here"))
    assert same(load("x"), solved[0])
    in_zoo = entry_with(1, tmp_path / "checkpoints" / "x")
    assert same(load("x"), in_zoo)
    in_folder = entry_with(2, tmp_path / "x")
    assert same(load("x"), in_folder)
    assert same(load(tmp_path / "x"), in_folder)


def test_a_folder_that_is_no_entry_hides_nothing(tmp_path):
    (tmp_path / "x").mkdir()
    in_zoo = entry_with(1, tmp_path / "checkpoints" / "x")
    assert same(load("x"), in_zoo)


def test_solve_comes_first(tmp_path):
    entry_with(1, tmp_path / "solve:" / "nowhere")
    with pytest.raises(NotFoundError, match="the CLIP /nowhere"):
        load("solve:/nowhere")


def test_hub_ids_come_last_and_local_ones_before(tmp_path, monkeypatch):
    asked = []

    def download(hub_id, revision, **_):
        asked.append((hub_id, revision))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(zoo, "snapshot_download", download)
    remote = entry_with(1, tmp_path / "snapshot")
    assert same(load("me/x"), remote)
    assert same(load("me/x@v2"), remote)
    assert asked == [("me/x", None), ("me/x", "v2")]
    local = entry_with(2, tmp_path / "me" / "x")
    assert same(load("me/x"), local)
    assert len(asked) == 2


def test_an_unknown_name_lists_the_known(tmp_path):
    entry_with(1, tmp_path / "checkpoints" / "mine")
    with pytest.raises(NotFoundError) as caught:
        load("mien")
    message = str(caught.value)
    assert message.startswith("mien: ")
    assert "\n" not in message
    for known in ("Entries in checkpoints/: mine", *REGISTRY, "solve:<folder of a CLIP>", "configs/quickstart.yaml"):
        assert known in message


@pytest.mark.parametrize("path", ["/nowhere/x", "./x", "../x", "a/b/c"])
def test_a_path_that_is_not_there_is_not_sought_on_the_hub(path, monkeypatch):
    no_network(monkeypatch)
    with pytest.raises(NotFoundError, match="neither an entry"):
        load(path)


def test_a_missing_clip_is_one_line():
    with pytest.raises(NotFoundError) as caught:
        load("solve:/nowhere/clip")
    assert str(caught.value).startswith("solve:/nowhere/clip: the CLIP /nowhere/clip is in no folder here")
    assert "\n" not in str(caught.value)


def test_a_clip_is_no_entry_but_can_be_solved(clip_folder):
    with pytest.raises(EntryError, match=f"solve:{clip_folder}"):
        load(clip_folder)


def published(folder, monkeypatch, checksum):
    """Register an entry whose snapshot from the Hub is ``folder``."""
    monkeypatch.setattr(zoo, "snapshot_download", lambda *_, **__: str(folder))
    monkeypatch.setitem(REGISTRY, "demo", Entry("demo", "me/demo", "trained", sha256=checksum))


def test_a_published_entry(tmp_path, monkeypatch):
    trained = entry_with(3, tmp_path / "snapshot")
    published(tmp_path / "snapshot", monkeypatch, sha256(tmp_path / "snapshot" / "model.safetensors"))
    assert same(load("demo"), trained)


def test_a_wrong_checksum_names_both(tmp_path, monkeypatch):
    entry_with(3, tmp_path / "snapshot")
    published(tmp_path / "snapshot", monkeypatch, "0" * 64)
    found = sha256(tmp_path / "snapshot" / "model.safetensors")
    with pytest.raises(EntryError, match=f"sha256 {found}, registered is {'0' * 64}"):
        load("demo")


def test_pull_solves_into_the_zoo(clip_folder, solved):
    folder = pull(f"solve:{clip_folder}")
    assert str(folder) == "checkpoints/tiny-clip"
    assert same(load("tiny-clip"), solved[0])
    assert ZooConfig.read(folder / "config.json").backbone == str(clip_folder)


def test_pull_copies_an_entry_byte_for_byte(tmp_path):
    entry_with(1, tmp_path / "elsewhere" / "x")
    (tmp_path / "elsewhere" / "x" / "README.md").write_text("the author's own words")
    folder = pull(str(tmp_path / "elsewhere" / "x"), name="y", root=tmp_path / "zoo")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (folder / name).read_bytes() == (tmp_path / "elsewhere" / "x" / name).read_bytes()


def test_pull_puts_nothing_damaged_into_the_zoo(tmp_path):
    entry_with(1, tmp_path / "x")
    (tmp_path / "x" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(EntryError, match="damaged"):
        pull(str(tmp_path / "x"))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "a b"])
def test_pull_takes_plain_names(name, tmp_path):
    entry_with(1, tmp_path / "x")
    with pytest.raises(ValueError, match=r"^name: got"):
        pull("x", name=name)


def test_push_needs_an_entry_and_a_hub_id(tmp_path):
    entry_with(1, tmp_path / "checkpoints" / "x")
    with pytest.raises(ValueError, match=r"^hub_id: got 'x'"):
        push("x", "x")
    with pytest.raises(NotFoundError, match=r"^y: no such entry"):
        push("y", "me/x")


def test_push_refuses_a_damaged_entry(tmp_path):
    entry_with(1, tmp_path / "x")
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    (tmp_path / "x" / "config.json").write_text(json.dumps({**config, "dim": 9}))
    with pytest.raises(EntryError, match=r"dim is 8 by its own description and 9 by config\.json"):
        push("x", "me/x")


def test_what_was_pulled_is_what_load_folder_reads(tmp_path):
    original = entry_with(4, tmp_path / "x")
    assert same(load_folder(pull("x", name="copy")), original)
