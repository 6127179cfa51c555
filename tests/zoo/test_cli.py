import runpy
import sys

import pytest

from qlip import cli
from qlip.files import sha256
from qlip.zoo.registry import REGISTRY
from qlip.zoo.store import load_folder, save
from tests.zoo.helpers import describe, same, tiny_position


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A zoo with one entry, ``tiny``, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    position = tiny_position()
    save(position, tmp_path / "checkpoints" / "tiny", describe(position))
    return tmp_path / "checkpoints"


def run(capsys, *args):
    cli.main(["zoo", *args])
    return capsys.readouterr().out


def fails(capsys, *args):
    with pytest.raises(SystemExit) as caught:
        cli.main(["zoo", *args])
    return str(caught.value.code)


def test_list_names_every_entry_whole(root, capsys):
    out = run(capsys, "list")
    assert "tiny" in out
    assert "4 x 4" in out
    assert "1e-07" in out
    assert all(name in out for name in REGISTRY)
    assert max(map(len, out.splitlines())) <= 80


def test_list_of_an_empty_zoo_says_how_to_fill_it(root, capsys):
    assert "No entries in nowhere/ yet" in run(capsys, "list", "--root", "nowhere")


def test_list_shows_a_damaged_entry_beside_the_others(root, capsys):
    save(tiny_position(), root / "broken", describe(tiny_position()))
    (root / "broken" / "config.json").write_text("{")
    out = run(capsys, "list")
    assert "damaged" in out
    assert "tiny" in out


def test_show_an_entry(root, capsys):
    out = run(capsys, "show", "tiny")
    for expected in ("openai/clip-vit-large-patch14-336", "training.steps", "300", "metrics.offgrid", "0.08"):
        assert expected in out
    assert sha256(root / "tiny" / "model.safetensors") in out


def test_show_a_registered_name(root, capsys):
    assert "solve:openai/clip-vit-base-patch32" in run(capsys, "show", "clip-vit-base-patch32")


def test_show_something_unknown(root, capsys):
    message = fails(capsys, "show", "tyni")
    assert message.startswith("qlip: tyni: ")
    assert "Entries in checkpoints/: tiny" in message


def test_pull(root, capsys, clip_folder):
    assert "qlip.load('checkpoints/mine')" in run(capsys, "pull", f"solve:{clip_folder}", "--name", "mine")
    assert load_folder(root / "mine").grid == 7


def test_pull_into_another_zoo(root, capsys, tmp_path):
    run(capsys, "pull", "tiny", "--root", str(tmp_path / "other"))
    assert same(load_folder(tmp_path / "other" / "tiny"), tiny_position())


def test_push_hands_its_arguments_on(root, capsys, monkeypatch):
    monkeypatch.setattr(cli.zoo, "push", lambda *args: f"uploaded {args}")
    assert run(capsys, "push", "tiny", "me/x", "--private", "true") == "uploaded ('tiny', 'me/x', True)\n"


def test_unknown_options_are_refused(root, capsys):
    assert fails(capsys, "pull", "x", "--colour", "red") == "2"
    assert "--colour" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["list", "show", "pull", "push"])
def test_help_comes_from_the_docstrings(verb, capsys):
    assert fails(capsys, verb, "--help") == "0"
    assert getattr(cli, f"zoo_{verb}").__doc__.splitlines()[0] in capsys.readouterr().out


def test_python_m_qlip(root, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["qlip", "zoo", "list"])
    runpy.run_module("qlip", run_name="__main__")
    assert "tiny" in capsys.readouterr().out
