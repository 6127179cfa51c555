import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from qlip.zoo.registry import REGISTRY, Entry, is_hub_id

GOOD = {"name": "x", "source": "me/x", "description": "", "sha256": "0" * 64}


@pytest.mark.parametrize("entry", REGISTRY.values(), ids=REGISTRY)
def test_registered_entries_are_described(entry):
    assert REGISTRY[entry.name] is entry
    assert entry.description
    assert "\n" not in entry.description


@pytest.mark.parametrize(
    ("entry", "kind"),
    [({}, "hub"), ({"source": "solve:a/b", "sha256": None}, "solve")],
)
def test_kinds_of_entries(entry, kind):
    assert Entry(**{**GOOD, **entry}).kind == kind


@pytest.mark.parametrize(
    ("wrong", "argument"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": ".hidden"}, "name"),
        ({"source": "nowhere"}, "source"),
        ({"sha256": None}, "sha256"),
        ({"source": "solve:a/b"}, "sha256"),
        ({"sha256": "ABC"}, "sha256"),
    ],
)
def test_wrong_entries_are_refused(wrong, argument):
    with pytest.raises(ValueError, match=f"^{argument}: got"):
        Entry(**{**GOOD, **wrong})


NAMES = ["a", "a/b", "A-b_c.9/d-e_f.0", "a/b/c", "a--b/c", "a..b/c", "a/b.git", ".a/b", "a/b.", "-a/b", "a/b-", "_a/b_", "a/", "/a",
         "", "a b/c", "é/b", "a/b\n", "a/" + 96 * "b", "a/" + 97 * "b", 97 * "a" + "/b", "solve:a/b", "a/b@v1"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_hub_ids_are_those_that_huggingface_takes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        validate_repo_id(name)
    except HFValidationError:
        assert not is_hub_id(name)
    else:
        assert is_hub_id(name) == ("/" in name)


def test_a_folder_here_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("models/clip")
    (tmp_path / "models" / "clip").mkdir(parents=True)
    assert not is_hub_id("models/clip")
