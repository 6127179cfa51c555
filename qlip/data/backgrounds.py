"""What can lie behind the objects of a scene: cut-outs of photographs, and textures with a photograph's statistics.

Drawn backgrounds are smooth, so whatever stands out from them is an object. Photographs are not, which makes a harder and fairer
test. scikit-image ships some; those that pocket models are trained on and those that they are tested on share no picture.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from random import Random

import numpy as np
import skimage
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as tvf

from qlip.images.read import read_image

_SHIPPED = Path(skimage.__file__).parent / "data"
# For training anything with texture will do. For testing they show a scene or a surface, and most have colour. (The source `samples`,
# on which positions are trained, divides them otherwise: there are no objects on it.)
TRAIN = tuple(
    _SHIPPED / name
    for name in (
        "brick.png", "camera.png", "cell.png", "clock_motion.png", "coins.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png",
        "moon.png", "retina.jpg", "rocket.jpg",
    )
)  # fmt: skip
TEST = tuple(
    _SHIPPED / name for name in ("astronaut.png", "chelsea.png", "coffee.png", "grass.png", "motorcycle_left.png")
)
TEXTURES, EDGE = 48, 336  # dead leaves to train on, and their height and width

LARGEST_SCALE = 1.5  # beyond it a photograph is a blur
ZOOM = 5.0  # a cut-out spans at least a fifth of the photograph that would fit
COVER = 5  # leaves that lie on a pixel, on average; so it hardly ever shows none
SMALLEST_LEAF = (3.0, 24.0)  # pixels from a leaf's middle to its edge; one in this range for each texture
LARGEST_LEAF = 220.0


def cut_background(picture: Image.Image, height: int, width: int, random: Random) -> Image.Image:
    """Cut a background of one size out of a photograph, at a random place and scale, and mirrored every other time.

    The photograph is scaled at random between filling the background and its own size. Where it is smaller than the background it is
    enlarged, by 1.5 (`LARGEST_SCALE`) at most, and goes on as its reflection.

    Args:
        picture: An RGB picture of any size.
        height: Height of the background in pixels.
        width: Width of the background in pixels.
        random: Source of chance.
    """
    filling = max(height / picture.height, width / picture.width)
    largest = max(filling, min(1.0, ZOOM * filling))
    scale = min(filling * (largest / filling) ** random.random(), LARGEST_SCALE)
    inner_height, inner_width = min(height, round(picture.height * scale)), min(width, round(picture.width * scale))
    span_y, span_x = min(inner_height / scale, picture.height), min(inner_width / scale, picture.width)
    top, left = random.random() * (picture.height - span_y), random.random() * (picture.width - span_x)
    box = (left, top, min(left + span_x, picture.width), min(top + span_y, picture.height))  # sums may be rounded up
    cut = picture.resize((inner_width, inner_height), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
    if random.random() < 0.5:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    above, before = random.randint(0, height - inner_height), random.randint(0, width - inner_width)
    margins = ((above, height - inner_height - above), (before, width - inner_width - before), (0, 0))
    return Image.fromarray(np.pad(np.asarray(cut), margins, "symmetric"))


def cut_backgrounds(pictures: Sequence[Image.Image], count: int, height: int, width: int, random: Random) -> Tensor:
    """Cut backgrounds out of randomly chosen photographs: ``(count, 3, height, width)``, float32 in [0, 1].

    Args:
        pictures: RGB pictures of any size.
        count: Number of backgrounds.
        height: Height of a background in pixels.
        width: Width of a background in pixels.
        random: Source of chance.
    """
    cuts = [cut_background(random.choice(pictures), height, width, random) for _ in range(count)]
    return torch.stack([tvf.to_image(cut) for cut in cuts]).float() / 255 if cuts else torch.zeros(0, 3, height, width)


@cache
def training_pictures(seed: int) -> tuple[Image.Image, ...]:
    """Return what training cuts its backgrounds from: 48 textures, and as many photographs, each of `TRAIN` several times.

    They are made once in a process, in five seconds.

    Args:
        seed: Seed of the textures.
    """
    generator = Generator().manual_seed(seed)
    textures = [dead_leaves(EDGE, generator) for _ in range(TEXTURES)]
    photographs = [read_image(file) for file in TRAIN]
    return (*textures, *islice(cycle(photographs), TEXTURES))


def dead_leaves(edge: int, generator: Generator) -> Image.Image:
    """Draw a texture with a photograph's statistics: leaves of all sizes that hide each other, with 1/f texture, in one light.

    As many leaves are larger than a size as it has pixels in 1/size^2, which gives the spectrum and the edges of photographs (Lee,
    Mumford and Huang 2001). How fine, colourful, sharp and rich in contrast it is changes from one texture to the next.

    Args:
        edge: Height and width in pixels.
        generator: Source of chance.
    """

    def between(low: float, high: float) -> float:
        """Draw a number, evenly on a logarithmic scale."""
        return low * (high / low) ** float(torch.rand((), generator=generator))

    double = 2 * edge  # drawn at twice its size, so that edges are smooth
    leaf, leaves = _leaves(double, 2 * between(*SMALLEST_LEAF), 2 * LARGEST_LEAF, generator)
    light = between(0.3, 0.7) + between(0.08, 0.3) * torch.randn(leaves, 1, generator=generator)
    colour = torch.randn(leaves, 3, generator=generator) + torch.randn(3, generator=generator)
    paint = light + between(0.015, 0.15) * colour
    roughness = between(0.02, 0.2) * torch.rand(leaves, 1, generator=generator)
    texture, shade = (_noise(double, slope, generator)[..., None] for slope in (between(0.6, 1.4), 1.6))
    pixels = (paint[leaf] + roughness[leaf] * texture) * (1 + between(0.05, 0.25) * shade)
    picture = Image.fromarray((pixels.clamp(0, 1) * 255).byte().numpy())
    return picture.filter(ImageFilter.GaussianBlur(between(0.3, 2))).resize((edge, edge), Image.Resampling.BOX)


def _leaves(edge: int, smallest: float, largest: float, generator: Generator) -> tuple[Tensor, int]:
    """Tell which leaf each pixel shows ``(edge, edge)``, and how many there are; leaf 0 lies under all others.

    A leaf has three to ten corners, and is up to three times as long as wide.
    """
    area = 2 * math.pi * smallest**2 * math.log(largest / smallest)
    count = round(COVER * (edge + largest) ** 2 / area)
    below = torch.rand(count, generator=generator)
    size = smallest / (1 - below * (1 - (smallest / largest) ** 2)).sqrt()  # density 1 / size^3
    corners = torch.randint(3, 11, (count, 1), generator=generator)
    angle = (torch.arange(10) + 0.7 * torch.rand(count, 10, generator=generator)) * 2 * math.pi / corners
    reach = size[:, None] * (1 + 0.25 * torch.randn(count, 10, generator=generator)).clamp(0.4, 1.6)
    stretch = 3 ** (0.5 * torch.rand(count, 1, generator=generator))
    turn = math.pi * torch.rand(count, 1, generator=generator)
    along, across = reach * stretch * angle.cos(), reach / stretch * angle.sin()
    middle = torch.rand(count, 2, 1, generator=generator) * (edge + largest) - largest / 2
    x = middle[:, 0] + along * turn.cos() - across * turn.sin()
    y = middle[:, 1] + along * turn.sin() + across * turn.cos()
    canvas = Image.new("I", (edge, edge))
    draw = ImageDraw.Draw(canvas)
    outlines = torch.stack([x, y], -1).tolist()
    for number, (outline, used) in enumerate(zip(outlines, corners.flatten().tolist(), strict=True), 1):
        draw.polygon([tuple(point) for point in outline[:used]], fill=number)
    return torch.from_numpy(np.array(canvas)).long(), count + 1


def _noise(edge: int, slope: float, generator: Generator) -> Tensor:
    """Draw noise whose amplitude falls with frequency as 1 / f^slope, of mean 0 and deviation 1: ``(edge, edge)``."""
    rows, columns = torch.fft.fftfreq(edge)[:, None], torch.fft.rfftfreq(edge)
    frequency = torch.hypot(rows, columns).clamp(min=1 / edge)
    spectrum = torch.fft.rfft2(torch.randn(edge, edge, generator=generator)) / frequency**slope
    noise = torch.fft.irfft2(spectrum, (edge, edge))
    return (noise - noise.mean()) / noise.std()
