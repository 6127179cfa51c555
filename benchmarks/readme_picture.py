"""The picture of the README, docs/images/leaves.jpg: a photograph, its leaves, and what its tokens hold.

    python benchmarks/readme_picture.py

The photograph is NASA's portrait of Eileen Collins, public domain, as scikit-image ships it.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import skimage.data
from PIL import Image

import qlip
from qlip.viz import draw_leaves, rebuild

IMAGES = Path(__file__).parents[1] / "docs/images"


def main() -> None:
    """Draw three panels: the grid of CLIP, the leaves, and the image rebuilt from the tokens."""
    picture = Image.fromarray(skimage.data.astronaut())
    uniform = qlip.QlipImageProcessor(size=448, quadtree=qlip.Quadtree(criterion="uniform"))
    quadtree = qlip.QlipImageProcessor(size=448, quadtree=qlip.Quadtree(max_tokens=400, cover="full"))
    view = quadtree.view(picture)
    grid, leaves = (p.quadtree.batch(p.prepare(picture)[None])[0] for p in (uniform, quadtree))
    panels = {
        f"CLIP's grid: {len(grid)} tokens": draw_leaves(view, grid),
        f"quadtree: {len(leaves)} tokens": draw_leaves(view, leaves),
        "what those tokens hold": rebuild(view, leaves),
    }
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.3), layout="constrained")
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        axis.imshow(panel)
        axis.set_title(title)
        axis.axis("off")
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / "leaves.jpg", dpi=100, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
