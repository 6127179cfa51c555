"""Captioned pictures on one white sheet, drawn with PIL."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

MARGIN = 24
NARROWEST = 340  # pixels of a column: captions of long thin pictures must fit
INK, PALE = "#111111", "#555555"


@dataclass(frozen=True)
class Panel:
    """A picture with a title and a caption above it."""

    title: str
    caption: str
    picture: Image.Image


def draw_sheet(rows: Sequence[Sequence[Panel]]) -> Image.Image:
    """Panels in rows and columns, each column as wide as its widest picture, captions wrapped to it."""
    large = max(panel.picture.width for row in rows for panel in row)
    sizes = [min(max(round(large / parts), least), most) for parts, least, most in ((28, 20, 40), (36, 17, 32))]
    fonts: list[Any] = [ImageFont.load_default(size) for size in sizes]
    columns = [max(NARROWEST, *(panel.picture.width for panel in column)) for column in zip(*rows, strict=True)]
    texts = [[list(_lines(panel, width, fonts)) for panel, width in zip(row, columns, strict=True)] for row in rows]
    heads = [max(sum(_height(font) for _, font, _ in text) for text in row) + MARGIN // 3 for row in texts]
    heights = [head + max(panel.picture.height for panel in row) for head, row in zip(heads, rows, strict=True)]
    sheet = Image.new(
        "RGB", (sum(columns) + MARGIN * (len(columns) + 1), sum(heights) + MARGIN * (len(rows) + 1)), "white"
    )
    pen, top = ImageDraw.Draw(sheet), MARGIN
    for row, text, head, height in zip(rows, texts, heads, heights, strict=True):
        left = MARGIN
        for panel, lines, width in zip(row, text, columns, strict=True):
            y = top
            for line, font, ink in lines:
                pen.text((left, y), line, fill=ink, font=font)
                y += _height(font)
            sheet.paste(panel.picture, (left, top + head))
            left += width + MARGIN
        top += height + MARGIN
    return sheet


def _height(font: Any) -> int:
    return round(font.size * 1.35)


def _lines(panel: Panel, width: int, fonts: Sequence[Any]) -> Iterator[tuple[str, Any, str]]:
    """The lines above a panel, each with its font and ink."""
    for text, font, ink in ((panel.title, fonts[0], INK), (panel.caption, fonts[1], PALE)):
        line = ""
        for word in text.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                yield line, font, ink
                longer = word
            line = longer
        yield line, font, ink
