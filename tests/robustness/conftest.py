from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.robustness.campaign import Campaign


@pytest.fixture
def campaign(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Campaign]:
    """The campaign of one test, in an empty working directory; it fails with the list of its faults."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    part = Campaign(request.node.name.removeprefix("test_"), tmp_path / "marker")
    yield part
    request.node.user_properties.append(("campaign", dict(part.counts)))
    if part.faults:
        shown = "\n".join(list(part.faults.values())[:40])
        pytest.fail(f"{len(part.faults)} kinds of faults, the first of each:\n{shown}", pytrace=False)
