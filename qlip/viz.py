"""Pictures of what the encoder sees."""

import numpy as np
import torch
from PIL import Image, ImageDraw

from qlip.core.patches import patchify
from qlip.core.quadtree import Leaves


def draw_leaves(image: Image.Image, leaves: Leaves, colour: str = "white", width: int = 1) -> Image.Image:
    """Draw the outlines of the leaves over the image they were cut from.

    Args:
        image: The image as the encoder sees it, whole patches, such as `QlipImageProcessor.view` returns.
        leaves: The leaves of this image.
        colour: Colour of the lines, by any name or code that PIL knows.
        width: Width of the lines in pixels.
    """
    drawn = image.convert("RGB")
    p = image.height // leaves.grid[0]
    pen = ImageDraw.Draw(drawn)
    for row, col, size in zip(leaves.row.tolist(), leaves.col.tolist(), leaves.size.tolist(), strict=True):
        top, left, side = row * p, col * p, size * p
        pen.rectangle((left, top, left + side, top + side), outline=colour, width=width)
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
