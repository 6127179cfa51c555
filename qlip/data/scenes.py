"""Drawn scenes: an endless supply of images whose objects are known, to train and test the pocket models on.

A scene has a smooth background (gradients, smooth noise, patches of faint texture), or one that is given, such as those of
`qlip.data.backgrounds`, and a few coloured shapes on it.
Everything follows from a `torch.Generator`, and a whole batch is drawn at once. Objects are 21 to 56 pixels wide, 1.5 to 4
patches of a model that looks at 112 pixels with patches of 14, whatever the size of the image: in a larger one they are
details, which shrinking it to 112 pixels erases.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (0.85, 0.15, 0.15),
    "green": (0.15, 0.65, 0.2),
    "blue": (0.15, 0.3, 0.85),
    "yellow": (0.92, 0.85, 0.15),
    "purple": (0.55, 0.2, 0.7),
    "orange": (0.95, 0.5, 0.1),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.05),
}
ABSENT = -1
CANDIDATES = 32  # places tried at once for each object
MARGIN = 2.0  # pixels left free around an object


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes with at most K objects each, all of different shape and colour within a scene.

    Attributes:
        images: Pixels ``(B, 3, H, W)``, float32 in [0, 1].
        shape: Index of each object's shape in `SHAPES`, or `ABSENT`: ``(B, K)`` int64.
        colour: Index of each object's colour in `COLOURS`, or `ABSENT`: ``(B, K)`` int64.
        centre: Centres of the objects in pixels, y before x: ``(B, K, 2)``.
        side: Sides of the objects' square boxes in pixels: ``(B, K)``.
    """

    images: Tensor
    shape: Tensor
    colour: Tensor
    centre: Tensor
    side: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def boxes(self) -> Tensor:
        """Boxes of the objects ``(B, K, 4)``: top, left, bottom, right in pixels."""
        half = self.side[..., None] / 2
        return torch.cat([self.centre - half, self.centre + half], dim=-1)


def draw_scenes(
    count: int,
    height: int,
    width: int,
    generator: Generator,
    *,
    objects: tuple[int, int] = (2, 4),
    sides: tuple[float, float] = (21.0, 56.0),
    backgrounds: Tensor | None = None,
) -> Scenes:
    """Draw scenes of one size.

    Args:
        count: Number of scenes B.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        generator: Source of everything that is random.
        objects: Fewest and most objects in a scene; an object that finds no free place is left out.
        sides: Smallest and largest side of an object in pixels; sides are drawn log-uniformly.
        backgrounds: What lies behind the objects of the first N scenes in place of what would be drawn: ``(N, 3, height, width)``
            in [0, 1]. All else is drawn as it would be without.

    Raises:
        ValueError: if an object of the largest side does not fit, ``objects`` is not a range of counts, or the backgrounds have
            another shape.
    """
    fewest, most = objects
    if not 1 <= fewest <= most <= len(SHAPES):
        raise ValueError(f"objects: got {objects}; takes two counts from 1 to {len(SHAPES)}, the smaller first")
    if min(height, width) < sides[1] + 2 * MARGIN:
        raise ValueError(f"height, width: got {height} x {width}; takes more than the largest side, {sides[1]:g} px")
    behind = torch.zeros(0, 3, height, width) if backgrounds is None else backgrounds
    if behind.shape[1:] != (3, height, width) or len(behind) > count:
        raise ValueError(
            f"backgrounds: got shape {tuple(behind.shape)}; takes (N, 3, {height}, {width}) with N of {count} at most"
        )
    shape = _different(count, most, len(SHAPES), generator)
    colour = _different(count, most, len(COLOURS), generator)
    spread = torch.rand(count, most, generator=generator)
    side = sides[0] * (sides[1] / sides[0]) ** spread.sort(1, descending=True).values  # large ones find places first
    centre, placed = _place(side, height, width, generator)
    wanted = torch.randint(fewest, most + 1, (count, 1), generator=generator)
    placed &= torch.rand(count, most, generator=generator).argsort(1).argsort(1) < wanted
    placed[:, 0] |= ~placed.any(1)  # the first always has a place
    images = _background(count, height, width, generator)
    images[: len(behind)] = behind
    angle = (torch.rand(count, most, generator=generator) - 0.5) * 0.5
    softness = 0.8 + 1.4 * torch.rand(count, most, generator=generator)
    paint = torch.tensor(list(COLOURS.values()))[colour]
    paint = (paint + 0.05 * torch.randn(paint.shape, generator=generator)).clamp(0.02, 0.98)
    for k in range(most):
        _paint(images, shape[:, k], centre[:, k], side[:, k], angle[:, k], softness[:, k], paint[:, k], placed[:, k])
    absent = ~placed
    return Scenes(images, shape.masked_fill(absent, ABSENT), colour.masked_fill(absent, ABSENT), centre, side)


def _different(count: int, most: int, kinds: int, generator: Generator) -> Tensor:
    """Draw indices below ``kinds``, all different within a scene: ``(count, most)``."""
    return torch.rand(count, kinds, generator=generator).argsort(1)[:, :most]


def _place(side: Tensor, height: int, width: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Find centres ``(B, K, 2)`` at which objects stay apart, and tell for which of them there was one ``(B, K)``."""
    count, most = side.shape
    extent = torch.tensor([height, width])
    centre, placed = torch.zeros(count, most, 2), torch.zeros(count, most, dtype=torch.bool)
    for k in range(most):
        reach = side[:, k, None, None] / 2 + MARGIN
        tries = reach + torch.rand(count, CANDIDATES, 2, generator=generator) * (extent - 2 * reach)
        distance = torch.cdist(tries, centre[:, :k])  # (B, tries, k)
        clear = distance > (side[:, k, None] + side[:, :k])[:, None] / 2 * 1.15 + MARGIN
        free = (clear | ~placed[:, None, :k]).all(-1)
        placed[:, k] = free.any(1)
        centre[:, k] = tries[torch.arange(count), free.float().argmax(1)]
    return centre, placed


def _background(count: int, height: int, width: int, generator: Generator) -> Tensor:
    """Draw backgrounds ``(B, 3, H, W)``: nearly grey, with smooth noise at three scales and texture in places."""

    def noise(cells: int, channels: int) -> Tensor:
        cells_y, cells_x = (max(round(cells * edge / min(height, width)), 2) for edge in (height, width))
        coarse = torch.randn(count, channels, cells_y, cells_x, generator=generator)
        return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)

    images = 0.5 + 0.16 * (2 * torch.rand(count, 3, 1, 1, generator=generator) - 1)
    slope = 0.1 * torch.randn(count, 2, 1, 1, generator=generator)
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    images = images + (slope[:, :1] * y + slope[:, 1:] * x)
    for cells, strength in ((2, 0.10), (4, 0.05), (7, 0.025)):
        images = images + strength * noise(cells, 3)
    grain = 0.025 * noise(3, 1).sigmoid() * torch.randn(count, 1, height, width, generator=generator)
    direction = math.pi * torch.rand(count, 1, 1, 1, generator=generator)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    phase = (direction.sin() * rows + direction.cos() * columns) * (2 * math.pi / 9)
    stripes = 0.03 * (3 * noise(3, 1) - 2).sigmoid() * phase.sin()
    return (images + grain + stripes).clamp_(0.08, 0.92)


def _paint(
    images: Tensor,
    shape: Tensor,
    centre: Tensor,
    side: Tensor,
    angle: Tensor,
    softness: Tensor,
    paint: Tensor,
    placed: Tensor,
) -> None:
    """Paint one object on each image where ``placed``, in a window that holds it."""
    height, width = images.shape[-2:]
    reach = math.ceil(side.max().item() * 0.75) + 3
    offsets = torch.arange(-reach, reach + 1)
    rows = centre[:, :1].round().long() + offsets  # (B, S)
    columns = centre[:, 1:].round().long() + offsets
    dy, dx = (rows - centre[:, :1])[:, :, None], (columns - centre[:, 1:])[:, None, :]
    sin, cos, radius = angle.sin()[:, None, None], angle.cos()[:, None, None], side[:, None, None] / 2
    u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius
    distance = torch.empty_like(u)
    for index, signed_distance in enumerate(_SIGNED_DISTANCES):
        these = shape == index
        distance[these] = signed_distance(u[these], v[these])
    cover = (0.5 - distance * radius / softness[:, None, None]).clamp(0, 1) * placed[:, None, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    batch, i, j = (inside & (cover > 0)).nonzero(as_tuple=True)
    at = (batch, slice(None), rows[batch, i], columns[batch, j])
    images[at] = torch.lerp(images[at], paint[batch], cover[batch, i, j, None])


# Signed distances in units of half the box's side, x to the right and y down, negative inside.


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.95


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.85


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    slanted = (math.sqrt(3) * x.abs() - y) / 2
    return torch.maximum(slanted, y) - 0.55


def _star(x: Tensor, y: Tensor) -> Tensor:
    fold = torch.pi / 5
    angle = torch.remainder(torch.atan2(x, -y) + fold, 2 * fold) - fold  # from the nearest of five points
    radius = torch.hypot(x, y)
    along, across = radius * angle.cos(), radius * angle.sin().abs()
    inner = torch.tensor([0.44 * math.cos(fold), 0.44 * math.sin(fold)])  # the notch between two points
    edge = inner - torch.tensor([1.05, 0.0])
    return ((along - 1.05) * edge[1] - across * edge[0]) / edge.norm()


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    upright = torch.maximum(x - 0.33, y - 0.95)
    return torch.minimum(upright, torch.maximum(x - 0.95, y - 0.33))


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.72).abs() - 0.23


_SIGNED_DISTANCES = (_circle, _square, _triangle, _star, _cross, _ring)
