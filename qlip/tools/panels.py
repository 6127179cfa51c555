"""What a picture's tokens hold, in three pictures."""

from dataclasses import dataclass

from PIL import Image

from qlip.images.processor import QlipImageProcessor
from qlip.images.read import ImageLike
from qlip.tools.loss import downscale
from qlip.viz import draw_leaves, rebuild

SIDE = 640  # pixels of the longer side, about, to which a smaller picture is scaled up


@dataclass(frozen=True)
class Panels:
    """A picture on its way through tokens, three times at one size.

    Attributes:
        leaves: The leaves over the picture.
        held: The picture as its tokens hold it.
        downscaled: What a plain downscale of the same price holds.
        tokens: Number of leaves.
        grid: Rows and columns of the whole grid.
    """

    leaves: Image.Image
    held: Image.Image
    downscaled: Image.Image
    tokens: int
    grid: tuple[int, int]


def draw_panels(image: ImageLike, settings: QlipImageProcessor) -> Panels:
    """Cut a picture and draw what becomes of it.

    Raises:
        ValueError: if the picture cannot be cut, see `QlipImageProcessor.fitted`.
    """
    view, leaves = settings.view_and_leaves(image)
    factor = max(round(SIDE / max(view.size)), 1)
    size = (view.width * factor, view.height * factor)
    small = downscale(view, len(leaves) * settings.quadtree.patch_size**2)
    large, held, plain = (each.resize(size, Image.Resampling.BICUBIC) for each in (view, rebuild(view, leaves), small))
    return Panels(draw_leaves(large, leaves), held, plain, len(leaves), leaves.grid)
