"""A model that is in a cache needs no network."""

from pathlib import Path

import pytest

from qlip.towers import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one commit of a model, which no branch points to, where no Hub can be reached."""
    snapshot = tmp_path / "models--owner--name/snapshots" / COMMIT
    (snapshot / "part").mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "part/config.json").write_text("{}")

    def unreachable() -> None:
        raise OSError

    monkeypatch.setattr(hub, "get_session", unreachable)
    return tmp_path


def test_a_revision_in_a_cache_of_the_callers_own_is_found(cache: Path) -> None:
    hub.check_source("owner/name", "model", cache_dir=str(cache), revision=COMMIT)
    hub.check_source("owner/name", "model", cache_dir=str(cache), revision=COMMIT, subfolder="part")
    for options in ({"revision": COMMIT}, {"cache_dir": str(cache)}, {}):
        with pytest.raises(OSError, match=r"model: 'owner/name' is no folder of a model here .* cannot be reached"):
            hub.check_source("owner/name", "model", **options)
