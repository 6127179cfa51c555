"""What the README shows is what happens."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_ten_lines_print_what_they_say(capsys: pytest.CaptureFixture) -> None:
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "skimage" in block]
    promised = re.findall(r"print\(.*\)  # (tensor\([^)]*\)|torch\.Size\([^)]*\))", code)
    exec(code, {})
    assert len(promised) == 2
    assert capsys.readouterr().out.splitlines() == promised


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_named_files_exist(page: Path) -> None:
    named = re.findall(r"`((?:qlip|tests|benchmarks|configs|docs|examples)/[\w/.-]+\.\w+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []
