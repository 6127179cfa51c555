"""Figure 4: how CLIP's [CLS] token drifts away from its training size, with and without quadtree, for every position."""

import csv
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from transformers import PreTrainedModel

from qlip.core.patches import PatchBatch
from qlip.core.position import PositionMLP
from qlip.core.quadtree import Quadtree
from qlip.data.readable import readable_pictures
from qlip.data.sources import list_pictures
from qlip.encoder import QlipVisionModel
from qlip.evaluation.bias_points import BIAS, EACH, BiasPoint
from qlip.evaluation.config import BiasConfig
from qlip.evaluation.names import BiasPosition
from qlip.evaluation.report.figures import biases
from qlip.evaluation.run.metrics import GridResidual, InterpolationBias, MesoscopicBias
from qlip.files import replacing_file, write_json
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import read_image
from qlip.structured import DamagedFileError, read_json
from qlip.towers.base import find_tower, position_table
from qlip.towers.load import load_clip


def run_bias(config: BiasConfig) -> list[BiasPoint]:
    """Measure, and write JSON, CSV, picture and TensorBoard events.

    Raises:
        ValueError: if an option is not taken.
        OSError: if there is no image or more than 1 % cannot be read, or the CLIP or the MLP cannot be found.
    """
    listed = list_pictures(config.images)[: config.limit]
    if config.device == "auto":
        config = replace(config, device="cuda" if torch.cuda.is_available() else "cpu")
    clip = load_clip(config.clip)
    module: nn.Module = clip  # whose `to` has its types
    module.to(config.device).eval().requires_grad_(False)
    tower = find_tower(clip)
    p, largest = tower.patch_size, max(config.sizes[1], tower.size or 0)
    files = readable_pictures(listed, [QlipImageProcessor(largest, "square", Quadtree(patch_size=p))], "images")
    models = {name: QlipVisionModel.from_clip(clip, config.mlp if name == "mlp" else name) for name in config.positions}
    points = list(measure(clip, models, files, config))
    write_all(points, config, residuals(models, position_table(clip)), len(files))
    return points


def measure(
    clip: PreTrainedModel, models: Mapping[BiasPosition, QlipVisionModel], files: Sequence[Path], config: BiasConfig
) -> Iterator[BiasPoint]:
    """All points, size by size."""
    vision = find_tower(clip).config
    p, (start, last, step) = vision.patch_size, config.sizes
    whole = Quadtree(criterion="uniform", patch_size=p)
    tree = Quadtree(config.alpha, config.criterion, patch_size=p, cover="roots")
    standard = QlipImageProcessor(vision.image_size, "square", whole)
    plain = QlipVisionModel.from_clip(clip, "bicubic")  # on its own grid this is CLIP itself
    empty = QlipVisionModel.from_clip(clip, "zero")
    with torch.no_grad():
        views = [standard(read_image(file)).to(config.device) for file in files]
        targets = [{"zero": empty(view).pooler_output, "": plain(view).pooler_output} for view in views]
    for size in track(range(start, last + 1, step), description="sizes"):
        for merged in (False, True):
            processor = QlipImageProcessor(size, "square", tree if merged else whole)
            batches = [processor(read_image(file)).to(config.device) for file in files]
            for weighting, (name, model) in itertools.product(
                config.weighting if merged else ("once",), models.items()
            ):
                wanted = [target[name if name == "zero" else ""] for target in targets]
                counting = QlipVisionModel(model.vision_model, model.position, weighting=weighting)
                yield _point(size, name, merged, counting, batches, wanted)


def _point(
    size: int, name: str, merged: bool, model: QlipVisionModel, batches: Sequence[PatchBatch], targets: Sequence[Tensor]
) -> BiasPoint:
    cosine, bias, cosines, biases = MesoscopicBias(), InterpolationBias(), [], []
    for batch, target in zip(batches, targets, strict=True):
        assert model.position is not None  # CLIP has a table
        with torch.no_grad():
            positions = model.position(batch.coords)
        if name == "zero":
            with torch.no_grad():
                cls = model(batch, positions=positions).pooler_output
        else:
            positions.requires_grad_()
            cls = model(batch, positions=positions).pooler_output
            biases.append(bias(cls, target, positions).item())
        cosines.append(cosine(cls.detach().cpu(), target.cpu()).item())
    tokens = sum(int(batch.num_tokens.sum()) for batch in batches) / len(batches)
    return BiasPoint(
        size,
        name,
        merged,
        cosine.compute().item(),
        None if name == "zero" else bias.compute().item(),
        tokens,
        model.weighting,
        tuple(cosines),
        tuple(biases),
    )


def residuals(models: Mapping[BiasPosition, QlipVisionModel], table: Tensor) -> dict[str, float]:
    """R, R2 and the error off the grid of the MLP, if there is one among the positions."""
    metric = GridResidual()
    position = models["mlp"].position if "mlp" in models else None
    if not isinstance(position, PositionMLP):
        return {}
    metric.update(position, table)
    return {name: value.item() for name, value in metric.compute().items()}


def write_all(points: Sequence[BiasPoint], config: BiasConfig, residual: dict[str, float], images: int) -> None:
    """``bias.json``, ``bias.csv``, ``bias.png`` and TensorBoard's events."""
    rows = [asdict(point) for point in points]
    found = {"config": _plain(config), "images": images, "residual": residual, "rows": rows}
    config.out.mkdir(parents=True, exist_ok=True)
    with replacing_file(config.out / "bias.csv") as new, new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name not in EACH], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    figure = biases(points)
    with replacing_file(config.out / "bias.png") as new:
        figure.savefig(new, format="png", dpi=130)
    with SummaryWriter(str(config.out)) as board:
        for point in points:
            tree = "quadtree" if point.quadtree else "grid"
            tree += "-area" if point.weighting == "area" else ""
            board.add_scalar(f"bias/cos_cls/{point.position}-{tree}", point.cosine, point.size)
            if point.interpolation_bias is not None:
                board.add_scalar(f"bias/interpolation/{point.position}-{tree}", point.interpolation_bias, point.size)
        board.add_figure("bias/figure4", figure)
    write_json(config.out / BIAS, found)  # last: with it the measurement is there


def _plain(config: BiasConfig) -> dict[str, object]:
    """The options as a JSON file gives them back."""
    return json.loads(json.dumps(asdict(config), default=str))


def is_measured(config: BiasConfig) -> bool:
    """Whether the folder of a measurement holds it, wherever it was computed."""
    path = config.out / BIAS
    if not path.is_file():
        return False
    held = read_json(path)
    found = held.get("config") if isinstance(held, dict) else None
    if not isinstance(found, dict):
        raise DamagedFileError(f"{path}: has no config; delete it and measure it anew")
    found = {"weighting": ["once"], **found}  # qlip 0.1 had no other
    return all(found.get(name) == value for name, value in _plain(config).items() if name not in ("out", "device"))
