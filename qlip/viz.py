"""Pictures of what the encoder sees."""

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw

from qlip.core.patches import patchify
from qlip.core.quadtree import Leaves


def draw_leaves(image: Image.Image, leaves: Leaves, colour: str = "white", width: int = 1) -> Image.Image:
    """Draw the outlines of the leaves over the image they were cut from: each line has borders, which show it on any ground.

    Args:
        image: The image as the encoder sees it, such as `QlipImageProcessor.view` returns, at any scale: to see fine lines on
            a large screen, scale the image first.
        leaves: The leaves of this image.
        colour: Colour of the lines, by any name or code that PIL knows; their borders are black, or white if it is dark.
        width: Width of the lines in pixels; a border adds one on each side.
    """
    drawn = image.convert("RGB")
    down, across = image.height / leaves.grid[0], image.width / leaves.grid[1]
    pen = ImageDraw.Draw(drawn)
    outlines = []
    for row, col, size in zip(leaves.row.tolist(), leaves.col.tolist(), leaves.size.tolist(), strict=True):
        top, bottom = (min(round(edge * down), image.height - 1) for edge in (row, row + size))
        left, right = (min(round(edge * across), image.width - 1) for edge in (col, col + size))
        outlines.append(((left, top), (right, top), (right, bottom), (left, bottom), (left, top)))
    border = "black" if sum(ImageColor.getrgb(colour)[:3]) > 3 * 127 else "white"
    for tone, thickness in ((border, width + 2), (colour, width)):  # all borders first: no line is crossed by one
        for outline in outlines:
            pen.line(outline, fill=tone, width=thickness)
    return drawn


def rebuild(image: Image.Image, leaves: Leaves) -> Image.Image:
    """The image as its tokens hold it: every leaf shrunk to a patch and scaled back up."""
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0).float()
    p = image.height // leaves.grid[0]
    patches = patchify(pixels, leaves).clamp(0, 255).round().byte().movedim(1, -1).numpy()  # (N, p, p, 3)
    rebuilt = Image.new("RGB", image.size)
    places = zip(leaves.row.tolist(), leaves.col.tolist(), leaves.size.tolist(), patches, strict=True)
    for row, col, size, patch in places:
        tile = Image.fromarray(patch).resize((size * p, size * p), Image.Resampling.BILINEAR)
        rebuilt.paste(tile, (col * p, row * p))
    return rebuilt
