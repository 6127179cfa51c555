"""Pages of docs/ that the source cites are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CITING = {path: re.findall(r"docs/[\w/-]+\.md", path.read_text()) for path in sorted((ROOT / "qlip").rglob("*.py"))}


@pytest.mark.parametrize("path", [p for p, pages in CITING.items() if pages], ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_that_the_source_cites_exist(path: Path) -> None:
    assert [page for page in CITING[path] if not (ROOT / page).is_file()] == []
