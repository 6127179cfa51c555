import pytest

from qlip.zoo.registry import REGISTRY, Entry

GOOD = {"name": "x", "source": "me/x", "description": "", "sha256": "0" * 64}


@pytest.mark.parametrize("entry", REGISTRY.values(), ids=REGISTRY)
def test_registered_entries_are_described(entry):
    assert REGISTRY[entry.name] is entry
    assert entry.description
    assert "\n" not in entry.description


@pytest.mark.parametrize(
    ("entry", "kind"),
    [({}, "hub"), ({"source": "package:x"}, "package"), ({"source": "solve:a/b", "sha256": None}, "solve")],
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
        ({"source": "package:x", "sha256": None}, "sha256"),
        ({"source": "solve:a/b"}, "sha256"),
        ({"sha256": "ABC"}, "sha256"),
    ],
)
def test_wrong_entries_are_refused(wrong, argument):
    with pytest.raises(ValueError, match=f"^{argument}: got"):
        Entry(**{**GOOD, **wrong})
