"""Figure 4: how CLIP's [CLS] token drifts away from its training size, with and without quadtree, for every position."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from matplotlib.figure import Figure
from rich.progress import track
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from qlip.core.patches import PatchBatch
from qlip.core.position import PositionMLP
from qlip.core.quadtree import Quadtree
from qlip.data.pictures import scene_folder
from qlip.encoder import QlipVisionModel
from qlip.evaluation.run.metrics import GridResidual, InterpolationBias, MesoscopicBias
from qlip.files import replacing_file, write_json
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import read_image
from qlip.towers.load import load_clip, position_table, vision_tower

PositionKind = Literal["mlp", "bicubic", "bilinear", "zero"]
BIAS = "bias.json"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
COLOURS = {"mlp": "#222222", "bicubic": "#c0392b", "bilinear": "#e08a1e", "zero": "#3b7dd8"}


@dataclass(frozen=True)
class BiasConfig:
    """Measure interpolation and mesoscopic bias on a folder of images."""

    images: str
    """Folder of images, searched to any depth; ``pocket`` are the drawn scenes of 336 to 896 pixels."""
    clip: str = "openai/clip-vit-large-patch14-336"
    """Hub id or folder of a CLIP; ``random:64x3`` needs no download."""
    mlp: str = "solve"
    """The MLP's weights: ``solve``, or what `qlip.load` takes."""
    positions: tuple[PositionKind, ...] = get_args(PositionKind)
    """Positions to compare."""
    sizes: tuple[int, int, int] = (224, 812, 28)
    """First and last side of the images in pixels, and the step."""
    alpha: float = 0.1
    """Split threshold of the quadtree."""
    criterion: str = "derivative"
    """Its criterion."""
    limit: int | None = None
    """Use the first images alone."""
    out: Path = Path("results/bias")
    """Gets bias.json, bias.csv, bias.png and TensorBoard's events."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to compute."""


@dataclass(frozen=True)
class Row:
    """One point of figure 4.

    Attributes:
        size: Side of the image in pixels.
        position: Kind of position.
        quadtree: Whether blocks were merged.
        cosine: Of [CLS] with that at the training size; for ``zero`` both without positions: the mesoscopic measure.
        interpolation_bias: Eq. 1; None for ``zero``.
        tokens: Mean number of patches.
    """

    size: int
    position: str
    quadtree: bool
    cosine: float
    interpolation_bias: float | None
    tokens: float


def run_bias(config: BiasConfig) -> list[Row]:
    """Measure, and write JSON, CSV, picture and TensorBoard events.

    Raises:
        ValueError: if there is no image, or an option is not taken.
        OSError: if the CLIP or the MLP cannot be found, or an image cannot be read.
    """
    folder = scene_folder() / "val" if config.images == "pocket" else Path(config.images)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[: config.limit]
    if not files:
        raise ValueError(
            f"images: got {config.images!r}, which holds none; takes a folder with {', '.join(sorted(SUFFIXES))}"
        )
    clip: Any = load_clip(config.clip)
    clip = clip.to(config.device).eval().requires_grad_(False)
    models: dict[str, QlipVisionModel] = {
        kind: QlipVisionModel.from_clip(clip, config.mlp if kind == "mlp" else kind) for kind in config.positions
    }
    rows = list(measure(clip, models, files, config))
    write_all(rows, config, residuals(models, position_table(clip)), len(files))
    return rows


def measure(clip: Any, models: dict[str, QlipVisionModel], files: Sequence[Path], config: BiasConfig) -> Iterator[Row]:
    """All rows, size by size."""
    vision: Any = vision_tower(clip).config
    p, (start, last, step) = vision.patch_size, config.sizes
    whole = Quadtree(criterion="uniform", patch_size=p)
    trees = {False: whole, True: Quadtree(config.alpha, config.criterion, patch_size=p)}
    standard = QlipImageProcessor(vision.image_size, "square", whole)
    plain = QlipVisionModel.from_clip(clip, "bicubic")  # on its own grid this is CLIP itself
    empty = QlipVisionModel.from_clip(clip, "zero")
    with torch.no_grad():
        views = [standard(read_image(file)).to(config.device) for file in files]
        targets = [{"zero": empty(view).pooler_output, "": plain(view).pooler_output} for view in views]
    for size in track(range(start, last + 1, step), description="sizes"):
        for merged, tree in trees.items():
            processor = QlipImageProcessor(size, "square", tree)
            batches = [processor(read_image(file)).to(config.device) for file in files]
            for kind, model in models.items():
                wanted = [target[kind if kind == "zero" else ""] for target in targets]
                yield _row(size, kind, merged, model, batches, wanted)


def _row(
    size: int, kind: str, merged: bool, model: QlipVisionModel, batches: Sequence[PatchBatch], targets: Sequence[Tensor]
) -> Row:
    cosine, bias = MesoscopicBias(), InterpolationBias()
    for batch, target in zip(batches, targets, strict=True):
        with torch.no_grad():
            positions = model.position(batch.coords)
        if kind == "zero":
            with torch.no_grad():
                cosine.update(model(batch, positions=positions).pooler_output.cpu(), target.cpu())
            continue
        positions.requires_grad_()
        cls = model(batch, positions=positions).pooler_output
        cosine.update(cls.cpu(), target.cpu())
        bias.update(cls, target, positions)
    tokens = sum(int(batch.num_tokens.sum()) for batch in batches) / len(batches)
    return Row(size, kind, merged, cosine.compute().item(), None if kind == "zero" else bias.compute().item(), tokens)


def residuals(models: dict[str, QlipVisionModel], table: Tensor) -> dict[str, float]:
    """R, R2 and the error off the grid of the MLP, if there is one among the positions."""
    metric = GridResidual()
    position = models["mlp"].position if "mlp" in models else None
    if not isinstance(position, PositionMLP):
        return {}
    metric.update(position, table)
    return {name: value.item() for name, value in metric.compute().items()}


def write_all(rows: Sequence[Row], config: BiasConfig, residual: dict[str, float], images: int) -> None:
    """``bias.json``, ``bias.csv``, ``bias.png`` and TensorBoard's events."""
    found = {"config": _plain(config), "images": images, "residual": residual, "rows": [asdict(row) for row in rows]}
    with replacing_file(config.out / "bias.csv") as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(found["rows"])  # type: ignore[arg-type]
    figure = draw(rows)
    with replacing_file(config.out / "bias.png") as new:
        figure.savefig(new, format="png", dpi=130)
    with SummaryWriter(str(config.out)) as board:
        for row in rows:
            tree = "quadtree" if row.quadtree else "grid"
            board.add_scalar(f"bias/cos_cls/{row.position}-{tree}", row.cosine, row.size)
            if row.interpolation_bias is not None:
                board.add_scalar(f"bias/interpolation/{row.position}-{tree}", row.interpolation_bias, row.size)
        board.add_figure("bias/figure4", figure)
    write_json(config.out / BIAS, found)  # last: with it the measurement is there


def _plain(config: BiasConfig) -> dict[str, Any]:
    """The options as a JSON file gives them back."""
    return json.loads(json.dumps(asdict(config), default=str))


def is_measured(config: BiasConfig) -> bool:
    """Whether the folder of a measurement holds it, wherever it was computed."""
    path = config.out / BIAS
    if not path.is_file():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))["config"]
    return all(found.get(name) == value for name, value in _plain(config).items() if name not in ("out", "device"))


def read_rows(path: Path) -> list[Row]:
    """The rows of a ``bias.json``."""
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


def draw(rows: Sequence[Row]) -> Figure:
    """Figure 4: mesoscopic measure, interpolation bias and cos [CLS] over size; dashed lines are with quadtree."""
    figure = Figure(figsize=(12.6, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    titles = ("cos [CLS], positions zero (mesoscopic)", "interpolation bias (eq. 1)", "cos [CLS]")
    for kind, merged in dict.fromkeys((row.position, row.quadtree) for row in rows):
        mine = [row for row in rows if (row.position, row.quadtree) == (kind, merged)]
        sizes = [row.size for row in mine]
        style: Any = {"color": COLOURS[kind], "ls": "--" if merged else "-", "lw": 1.4}
        label = f"{kind}{', quadtree' if merged else ''}"
        panels[0 if kind == "zero" else 2].plot(sizes, [row.cosine for row in mine], label=label, **style)
        if kind != "zero":
            panels[1].plot(sizes, [row.interpolation_bias for row in mine], label=label, **style)  # type: ignore[misc]
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=10, loc="left")
        panel.set_xlabel("side of the image, px")
        panel.grid(alpha=0.25)
        if panel.lines:
            panel.legend(fontsize=7)
    return figure
