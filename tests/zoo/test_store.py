import json

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from qlip import PositionMLP
from qlip.files import sha256
from qlip.zoo import store
from qlip.zoo.config import EntryError
from qlip.zoo.entries import FILES, local_entries
from qlip.zoo.position_file import write_position
from qlip.zoo.store import check_target, load_folder, save
from tests.zoo.helpers import describe, same, tiny_position


def edit_weights(entry, change):
    """Change the tensors, and leave what the file says of itself."""
    path = entry / "model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata)


def test_round_trip_is_exact(position, entry):
    coords = torch.rand(50, 2) * 2 - 1
    loaded = load_folder(entry)
    assert same(loaded, position)
    assert loaded.sigma == position.sigma
    assert torch.equal(loaded(coords), position(coords))


def test_a_loaded_position_can_be_trained(entry):
    loaded = load_folder(entry)
    loaded(torch.zeros(1, 2)).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_loading_leaves_the_random_state_alone(entry):
    before = torch.get_rng_state()
    load_folder(entry)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_file_holds_the_mlp_and_nothing_else(position, entry):
    with safe_open(entry / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(position.state_dict())
    numbers = sum(tensor.numel() for tensor in position.state_dict().values())
    assert (entry / "model.safetensors").stat().st_size < 4 * numbers + 2048
    assert sorted(path.name for path in entry.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_everyone_who_may_read_the_config_may_read_the_weights(entry):
    assert len({(entry / name).stat().st_mode for name in FILES}) == 1


def test_same_weights_same_checksum(entry, position, tmp_path):
    folders = [entry, *(save(position, tmp_path / f"again{i}", describe(position)) for i in range(9))]
    assert len({sha256(folder / "model.safetensors") for folder in folders}) == 1


def test_saving_replaces_the_entry_and_keeps_the_users_files(entry):
    (entry / "notes.txt").write_text("mine")
    newer = tiny_position(1)
    save(newer, entry, describe(newer, training={"steps": 1}))
    assert same(load_folder(entry), newer)
    assert json.loads((entry / "config.json").read_text())["training"] == {"steps": 1}
    assert (entry / "notes.txt").read_text() == "mine"
    assert [path.name for path in entry.parent.iterdir()] == ["tiny"]


def test_a_failure_while_saving_leaves_the_old_entry(entry, position, monkeypatch):
    monkeypatch.setattr(store, "model_card", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    newer = tiny_position(1)
    with pytest.raises(KeyboardInterrupt):
        save(newer, entry, describe(newer))
    assert same(load_folder(entry), position)
    assert [path.name for path in entry.parent.iterdir()] == ["tiny"]


def test_what_a_killed_process_leaves_is_no_entry(entry, position):
    leftover = entry.parent / ".tiny.0123abcd"
    entry.rename(leftover)
    assert local_entries(entry.parent) == []


def test_saving_refuses_to_replace_what_is_no_entry(position, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="no zoo entry"):
        save(position, tmp_path, describe(position))
    with pytest.raises(FileExistsError, match="no zoo entry"):
        check_target(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_targets_that_may_be_written(entry, tmp_path):
    check_target(entry)
    check_target(tmp_path / "new" / "entry")
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")


def rounded(position: PositionMLP, dtype: torch.dtype) -> PositionMLP:
    """A position in half precision, which ``position.to(dtype)`` would not give."""
    for tensor in (*position.parameters(), *position.buffers()):
        tensor.data = tensor.data.to(dtype)
    return position


def test_saving_refuses_half_precision_and_nan(position, tmp_path):
    config = describe(position)
    with pytest.raises(ValueError, match=r"frequencies is torch.bfloat16"):
        save(rounded(tiny_position(), torch.bfloat16), tmp_path / "x", config)
    with torch.no_grad():
        position.readout.bias[3] = float("nan")
    with pytest.raises(ValueError, match=r"readout.bias is torch.float32, not finite"):
        save(position, tmp_path / "x", config)
    assert not (tmp_path / "x").exists()


def test_saving_refuses_the_config_of_another_position(position, tmp_path):
    with pytest.raises(ValueError, match=r"config.dim: got 12 for a position whose dim is 8"):
        save(position, tmp_path / "x", describe(tiny_position(dim=12)))


def test_the_weights_and_the_config_of_two_positions_are_refused(entry, tmp_path):
    sharp = PositionMLP(8, grid=4, hidden=16, depth=2, fourier=3, sigma=2.0)
    other = save(sharp, tmp_path / "other", describe(sharp))
    (other / "model.safetensors").replace(entry / "model.safetensors")
    with pytest.raises(EntryError, match=r"sigma is 2\.0 by its own description and 0\.25 by config\.json"):
        load_folder(entry)


def test_an_entry_without_a_description_in_its_file_goes_by_the_config(entry, position):
    path = entry / "model.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {"format": "pt"})  # as qlip 0.1 wrote it
    assert same(load_folder(entry), position)


def test_a_missing_tensor_is_named(entry):
    edit_weights(entry, lambda tensors: tensors.pop("hidden.1.bias"))
    with pytest.raises(EntryError, match=r"missing tensors hidden\.1\.bias"):
        load_folder(entry)


def test_an_extra_tensor_is_named(entry):
    edit_weights(entry, lambda tensors: tensors.update({"vision_model.weight": torch.zeros(1)}))
    with pytest.raises(EntryError, match=r"unknown tensors vision_model\.weight"):
        load_folder(entry)


@pytest.mark.parametrize("wrong", [torch.zeros(9), torch.zeros(8, dtype=torch.float16)], ids=["shape", "dtype"])
def test_a_wrong_tensor_is_named(entry, wrong):
    edit_weights(entry, lambda tensors: tensors.update({"readout.bias": wrong}))
    with pytest.raises(EntryError, match=r"readout\.bias is .*should be torch\.float32 of shape \(8,\)"):
        load_folder(entry)


def test_another_dtype_for_all_is_reported(entry, position):
    write_position(entry / "model.safetensors", rounded(position, torch.float16))
    with pytest.raises(EntryError, match=r"its tensors are torch\.float16; those of an entry should be torch\.float32"):
        load_folder(entry)


def test_a_cut_file_is_reported(entry):
    path = entry / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(EntryError, match=r"model\.safetensors: damaged"):
        load_folder(entry)


def test_pickles_are_not_read(entry, position):
    (entry / "model.safetensors").unlink()
    torch.save(position.state_dict(), entry / "pytorch_model.bin")
    with pytest.raises(EntryError, match="no other format is read"):
        load_folder(entry)
