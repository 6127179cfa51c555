"""``qlip show``: the leaves over a picture, what its tokens hold, and what plain downscaling at the same price holds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from qlip.core.criteria import get_criterion
from qlip.core.quadtree import Leaves
from qlip.files import replacing_file
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import read_image
from qlip.tools.config import ShowConfig
from qlip.tools.geometry import Geometry, read_geometry
from qlip.tools.loss import downscale, edges_kept, fine_edges, grey, similarity
from qlip.tools.sheet import Panel, draw_sheet
from qlip.viz import draw_leaves, rebuild

AREAS = (640 * 480, 1280 * 960)  # pixels of a panel, least and most: fine lines need room, screens have an end
MEASURED = 2**22  # pixels that losses are measured on at most: SSIM takes a hundred bytes for each
CELL = 640 * 480  # pixels of a panel of the sheet that varies alpha and size
LONG = 2.2  # times as long as wide, from where panels go below one another
SIZES = (1, 1.5, 2)
ALPHAS = (1, 3, 10, 20)


def run_show(files: Sequence[Path], config: ShowConfig, grid: bool = False) -> list[str]:
    """Draw pictures, write the files, and return a line about each.

    Args:
        files: The pictures.
        config: How they are cut.
        grid: Whether to vary alpha and size, see `draw_grid`, in place of `draw`.

    Raises:
        OSError: if a picture or the model cannot be read, or the file cannot be written.
        ValueError: if an option is not taken.
    """
    get_criterion(config.criterion)
    if grid and config.max_tokens is not None:
        raise ValueError(f"grid: got max_tokens={config.max_tokens} with it; it varies alpha instead. Leave one out")
    geometry = read_geometry(config.model, config.patch_size)
    settings = processor_of(config, geometry, config.alpha is not None or grid)
    sheets, lines = [], []
    for file in files:
        picture = read_image(file)
        seen = see(picture, settings)
        sheets.append(draw_grid(picture, settings) if grid else draw(seen, geometry))
        lines.append(f"{file}: {seen.counts}; stock {geometry.price(seen.stock)}")
    if config.out is not None:
        _save(_stack(sheets), config.out)
        return [*lines, f"written to {config.out}"]
    outs = _names(files)
    for sheet, out in zip(sheets, outs, strict=True):
        _save(sheet, out)
    return [f"{line}; written to {out}" for line, out in zip(lines, outs, strict=True)]


def processor_of(config: ShowConfig, geometry: Geometry, by_alpha: bool) -> QlipImageProcessor:
    """The settings that the options mean: as in `qlip.convert`, the stock model's tokens if no price is given."""
    size = geometry.size if config.size == "model" else config.size
    options: dict[str, Any] = {"size": size, "criterion": config.criterion, "cover": config.cover, "fit": config.fit}
    if config.alpha is not None:
        options["alpha"] = config.alpha
    stock = None if by_alpha and config.fit == "prune" else geometry.tokens
    return geometry.processor(**options, max_tokens=config.max_tokens or stock)


@dataclass(frozen=True)
class Seen:
    """A picture on its way through tokens.

    Attributes:
        whole: What the view shows, at the size that was asked for.
        view: The picture as it is cut, whole patches; a budget may have scaled it down.
        leaves: The leaves of the view.
        full: Rows and columns of the picture at the size that was asked for.
        stock: Rows and columns of tokens that the stock model cuts the picture into, where it takes it as it is.
    """

    whole: Image.Image
    view: Image.Image
    leaves: Leaves
    full: tuple[int, int]
    stock: tuple[int, int]

    @property
    def counts(self) -> str:
        """Tokens, and their share of the grid, in words."""
        rows, columns = self.full
        return f"{len(self.leaves)} tokens, {100 * len(self.leaves) / (rows * columns):.0f} % of the grid of {columns} x {rows}"


def see(picture: Image.Image, settings: QlipImageProcessor) -> Seen:
    """Cut a picture."""
    # a budget so large scales down only the vast
    uniform = settings.with_options(criterion="uniform", max_tokens=10_000_000, fit="prune")
    own = replace(uniform, size=None)
    fitted = settings.fitted(picture)
    whole, (view, leaves) = uniform.view(picture), fitted.view_and_leaves(picture)
    if whole.size != view.size:
        factor = min(whole.size) / min(view.size)
        size = (round(view.width * factor), round(view.height * factor))
        whole = picture.resize(size, Image.Resampling.BICUBIC)
    grids = [each.grid(picture.height, picture.width) for each in (uniform, own)]
    return Seen(whole, view, leaves, *grids)


def draw(seen: Seen, geometry: Geometry) -> Image.Image:
    """The three panels of a picture, side by side; of a wide one, one below the other."""
    whole, tokens = seen.whole, len(seen.leaves)
    stock = geometry.price(seen.stock)
    held = rebuild(seen.view, seen.leaves).resize(whole.size, Image.Resampling.BICUBIC)
    plain = downscale(whole, tokens * geometry.side**2)
    large = _scaled(whole, max(min(whole.width * whole.height, AREAS[1]), AREAS[0]))
    scaled = "" if seen.view.size == whole.size else f", scaled to {seen.view.width} x {seen.view.height} px"
    flops = f"encoder {geometry.flops(tokens) / 1e9:,.4g} GFLOPs, stock {geometry.flops(stock) / 1e9:,.4g}"
    panels = [
        Panel(
            f"Leaves: {seen.counts}{scaled}",
            f"{whole.width} x {whole.height} px; {geometry.name}: stock {stock} tokens; {flops}",
            draw_leaves(large, seen.leaves),
        ),
        Panel("What these tokens hold", _losses(whole, held), held.resize(large.size, Image.Resampling.BICUBIC)),
        Panel(
            f"What a plain grid of {tokens} tokens holds",
            _losses(whole, plain),
            plain.resize(large.size, Image.Resampling.BICUBIC),
        ),
    ]
    return draw_sheet([[panel] for panel in panels] if whole.width > LONG * whole.height else [panels])


def draw_grid(picture: Image.Image, settings: QlipImageProcessor) -> Image.Image:
    """Leaves of a picture in one sheet: a row for each size, a column for each alpha."""
    first, tree = settings.size or min(picture.size), settings.quadtree
    rows = []
    for size in (round(first * factor) for factor in SIZES):
        row = []
        for alpha in (tree.alpha * factor for factor in ALPHAS):
            seen = see(picture, replace(settings, size=size, quadtree=replace(tree, alpha=alpha)))
            leaves = draw_leaves(_scaled(seen.whole, CELL), seen.leaves)
            row.append(Panel(f"size {size}, alpha {alpha:.3g}", seen.counts, leaves))
        rows.append(row)
    return draw_sheet(rows)


def _losses(whole: Image.Image, other: Image.Image) -> str:
    original, seen = (grey(_scaled(each, min(whole.width * whole.height, MEASURED))) for each in (whole, other))
    kept = edges_kept(fine_edges(original), seen)
    fine = "no strong edges" if kept is None else f"{100 * kept:.0f} % of the fine edges kept"
    return f"SSIM {similarity(original, seen):.3f}, {fine}"


def _scaled(picture: Image.Image, area: int) -> Image.Image:
    """The picture scaled to an area in pixels, aspect kept."""
    factor = (area / (picture.width * picture.height)) ** 0.5
    size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)


def _stack(sheets: Sequence[Image.Image]) -> Image.Image:
    """Sheets below one another."""
    stacked = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), "white")
    top = 0
    for sheet in sheets:
        stacked.paste(sheet, (0, top))
        top += sheet.height
    return stacked


def _names(files: Sequence[Path]) -> list[Path]:
    """A file of the current folder for each picture; pictures of one name are numbered."""
    names: list[Path] = []
    for file in files:
        taken = sum(other.stem == file.stem for other in files[: len(names)])
        names.append(Path(f"{file.stem}-qlip{f'-{taken + 1}' if taken else ''}.png"))
    return names


def _save(sheet: Image.Image, out: Path) -> None:
    with replacing_file(out) as new:
        sheet.save(new, format="PNG")
