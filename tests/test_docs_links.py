"""Every link of the documentation leads somewhere; the site's own strict build does not look at anchors."""

import re
import tomllib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

markdown = pytest.importorskip("markdown", reason="comes with the extra qlip[docs]")

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/*.md"))
TOC = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["markdown_extensions"]["toc"]


class Page(HTMLParser):
    """A page as the site's markdown renders it: where its links and images lead, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))  # an object of the API, by its name
        extensions = ["tables", "toc", "pymdownx.superfences"]
        self.feed(markdown.markdown(text, extensions=extensions, extension_configs={"toc": TOC}))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value or "")
            elif name in ("href", "src"):
                self.targets.append(value or "")


@cache
def read_page(path: Path) -> Page:
    return Page(path.read_text())


def fault(page: Path, target: str) -> str | None:
    """What is wrong with a link; None if nothing is."""
    url = urlsplit(target)
    if url.scheme or url.netloc:
        well_formed = url.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", url.netloc)
        return None if well_formed and not re.search(r"\s", target) else "no address that starts with https://"
    place = (page.parent / unquote(url.path)).resolve() if url.path else page
    if not place.exists():
        return "no such file"
    if page.parent.name == "docs" and page.parent not in place.parents:
        return "outside docs/, and so not on the site"
    if url.fragment and (place.suffix != ".md" or url.fragment not in read_page(place).anchors):
        return "no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    faults = {target: fault(page, target) for target in read_page(page).targets}
    assert {target: why for target, why in faults.items() if why} == {}


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("pocket.md#positions", None),
        ("#once-or-by-area", None),
        ("api.md#qlip.convert", None),
        ("images/evidence.png", None),
        ("https://arxiv.org/abs/2505.23004", None),
        ("pocket.md#position", "no such heading"),
        ("images/evidence.png#positions", "no such heading"),
        ("pockets.md", "no such file"),
        ("../README.md", "outside docs/, and so not on the site"),
        ("http://arxiv.org/abs/2505.23004", "no address that starts with https://"),
        ("https:arxiv.org", "no address that starts with https://"),
        ("https://arxiv.org/a b", "no address that starts with https://"),
    ],
)
def test_faults_are_seen(target: str, why: str | None) -> None:
    assert fault(ROOT / "docs/pocket.md", target) == why
