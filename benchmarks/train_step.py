"""A training step against the same step written the obvious way: images per second and peak memory.

Run as ``python benchmarks/train_step.py``. On a GPU it has the paper's shape, on a CPU a small one; each way runs in a
process of its own.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import skimage.data
import torch
import torch.nn.functional as F
from _report import PHOTOGRAPHS, machine, seconds, table, write_for
from PIL import Image
from torch import Tensor

from qlip.core.quadtree import Quadtree
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import read_image
from qlip.towers.synthetic import random_clip
from qlip.training.batch import TrainBatch
from qlip.training.config import MLPConfig
from qlip.training.data import Photos, TrainingPhotos, View
from qlip.training.module import QlipModule
from qlip.training.sampler import SeededIndex

ASPECTS = (1.0, 1.25, 4 / 3, 1.5)  # width by height; every other photograph stands upright
PAPERS_IMAGES = 9469 * 100  # photographs of Imagenette's training split, times epochs


@dataclass(frozen=True)
class Shape:
    """Sizes of the tower, of the network and of the photographs of a step."""

    width: int
    layers: int
    view: int  # pixels of the standard view
    hidden: int
    images: int
    edge: int  # shortest edge of a photograph


PAPER = Shape(width=1024, layers=24, view=336, hidden=1024, images=14, edge=560)
SMALL = Shape(width=256, layers=4, view=168, hidden=256, images=14, edge=280)


def write_photographs(folder: Path, count: int, edge: int) -> list[Path]:
    """JPEG files of scikit-image's photographs at several aspects, shortest edge ``edge``."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i in range(count):
        longest = round(edge * ASPECTS[i % len(ASPECTS)])
        size = (longest, edge) if i % 2 else (edge, longest)
        image = Image.fromarray(getattr(skimage.data, PHOTOGRAPHS[i % len(PHOTOGRAPHS)])())
        files.append(folder / f"{i:05}.jpg")
        image.resize(size, Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


class Case:
    """A module, its optimiser, and a batch of photographs cut once, with the standard views that their targets come from."""

    def __init__(self, shape: Shape, files: list[Path], device: str, *, recompute: bool = False) -> None:
        self.device = device
        torch.manual_seed(0)  # the same network for every way
        with tempfile.TemporaryDirectory() as folder:
            random_clip(shape.width, shape.layers, image_size=shape.view).save_pretrained(folder)
            mlp = MLPConfig(hidden=shape.hidden, init="random")
            self.module = QlipModule(folder, mlp=mlp, recompute_activations=recompute).train().to(device)
        self.optimizer = torch.optim.Adam(self.module.position.parameters(), lr=1e-5, fused=True)
        standard = QlipImageProcessor(shape.view, "square", Quadtree(criterion="uniform"))
        views = torch.stack([standard.prepare(read_image(file)) for file in files])
        targets = torch.cat([self.module.encode_standard(view[None]).float().cpu() for view in views])
        photos = TrainingPhotos(Photos(files, targets, []), shape.edge, (0.1, 0.1), View(14))
        items = [photos[SeededIndex(i, seed=i)] for i in range(len(files))]
        order = sorted(range(len(files)), key=lambda i: items[i][0].mask.shape[1])  # as the sampler has them
        self.items, self.views = [items[i] for i in order], views[order].to(device)

    def update(self, loss: Tensor) -> float:
        """Take gradients and a step of the optimiser."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach().item()


def ours(case: Case, *, dtype: torch.dtype, micro_batches: int = 1) -> Callable[[], float]:
    """The step of `QlipModule`, the batch as a data loader's worker makes it, in about so many micro-batches."""
    longest = max(item.patches.mask.shape[1] for item in case.items)
    batch = TrainBatch.collate(case.items, -(-len(case.items) // micro_batches) * longest).to(case.device)

    def step() -> float:
        with torch.autocast(case.device, dtype, enabled=dtype != torch.float32):
            loss = case.module.losses(batch)["loss"]
        return case.update(loss)

    return step


def obvious(case: Case) -> Callable[[], float]:
    """One photograph after the other, padded to the longest of the batch, its target computed on the spot, float32."""
    module, tower = case.module, case.module.backbone.vision_model
    longest = max(item.patches.mask.shape[1] for item in case.items)
    padded = []
    for patches, *_ in case.items:
        missing = longest - patches.mask.shape[1]
        hidden = torch.zeros(1, 1, 1, 1 + longest)
        hidden[..., 1 + longest - missing :] = torch.finfo(torch.float32).min
        cut = F.pad(patches.patches[0], (0, 0, 0, 0, 0, 0, 0, missing))
        padded.append([x.to(case.device) for x in (cut, F.pad(patches.coords[0], (0, 0, 0, missing)), hidden)])

    def encode(cut: Tensor, coords: Tensor, hidden: Tensor) -> Tensor:
        tokens = tower.embeddings.patch_embedding(cut).flatten(1) + module.position(coords)
        first = tower.embeddings.class_embedding + tower.embeddings.position_embedding.weight[0]
        states = tower.pre_layrnorm(torch.cat([first[None], tokens])[None])
        for layer in tower.encoder.layers:
            states = layer(states, hidden)
        return module.backbone.visual_projection(tower.post_layernorm(states[:, 0]))

    def step() -> float:
        pairs = zip(padded, case.views, strict=True)
        losses = [F.mse_loss(encode(*image), module.encode_standard(view[None])) for image, view in pairs]
        return case.update(torch.stack(losses).mean() + module.position.residual(module.table)[0])

    return step


def memory(device: str) -> tuple[int, int]:
    """Bytes in use, and the most since the last call."""
    if device == "cuda":
        used, most = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return used, most
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")  # Linux: start the peak anew
    used, most = (1024 * int(status[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    return used, most


def measure(way: str, shape: Shape, files: list[Path], device: str, repeats: int) -> tuple[float, float, float]:
    """Loss of the first step, images per second, and gigabytes that the step adds to weights and batch."""
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    dtype = torch.bfloat16 if "bfloat16" in way else torch.float32
    if way == OBVIOUS:
        step = obvious(Case(shape, files, device))
    else:
        torch.set_float32_matmul_precision("high")  # as train.py does
        step = ours(
            Case(shape, files, device, recompute="recomputed" in way),
            dtype=dtype,
            micro_batches=4 if "micro" in way else 1,
        )
    before, _ = memory(device)
    loss = step()
    _, most = memory(device)
    return loss, len(files) / seconds(step, device, repeats), (most - before) / 1e9


OBVIOUS = "the obvious way"
WAYS = {
    "cpu": ["ours", "ours, in four micro-batches", "ours, activations recomputed"],
    "cuda": [
        "ours, float32",
        "ours, bfloat16",
        "ours, bfloat16, in four micro-batches",
        "ours, bfloat16, activations recomputed",
    ],
}


def apart(way: str, *arguments: object) -> tuple[float, float, float]:
    """`measure` in a fresh process, so that no way finds the memory of another."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, way, *arguments).result()


def shape_and_repeats() -> tuple[Shape, int, str]:
    """What the command line asks for; by default what suits the machine."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in asdict(PAPER if device == "cuda" else SMALL).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--repeats", type=int, default=3)
    given = vars(parser.parse_args())
    return Shape(**{name: given[name] for name in asdict(SMALL)}), given["repeats"], device


def main() -> None:
    """Measure every way and write the section.

    Raises:
        RuntimeError: if a way computes another loss than the obvious one.
    """
    shape, repeats, device = shape_and_repeats()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = write_photographs(Path(folder), shape.images, shape.edge)
        expected, slow, much = apart(OBVIOUS, shape, files, device, repeats)
        for way in [OBVIOUS, *WAYS[device]]:
            loss, fast, little = (expected, slow, much) if way == OBVIOUS else apart(way, shape, files, device, repeats)
            if abs(loss - expected) > (0.05 if "bfloat16" in way else 2e-3) * expected:
                raise RuntimeError(f"{way}: a loss of {loss}, the obvious way has {expected}")
            rows.append([way, f"{fast:.2f}", f"{fast / slow:.2f}x", f"{little:.2f}", f"{little / much:.2f}x"])
            rows[-1].append(f"{PAPERS_IMAGES / fast / 3600:.1f}" if shape == PAPER else "-")
            print(*rows[-1], sep="\t", flush=True)
    where = "one thread, processor time" if device == "cpu" else "seconds on the clock"
    header = ["step", "images/s", "ratio", "GB", "ratio", "hours, computed"]
    text = TEXT.format("GPU" if device == "cuda" else "CPU", machine(device), where, **asdict(shape))
    write_for(device, "train_step", f"{text}\n{table(header, rows)}\n{CLOSING}")


TEXT = """## Training step, {}

`python benchmarks/train_step.py` ({}; {}, best of the repeats)

One step, from a batch in the device's memory to updated weights: {images} photographs of shortest edge {edge}, merged with
probability 0.1, a tower with random weights of width {width} and {layers} layers, the standard view of {view} pixels, a network of
4 x {hidden}. The obvious way encodes one photograph after the other, padded to the longest of the batch, has the
frozen CLIP compute the target on the spot, evaluates the network at every token, and takes one backward pass at the end, in
float32 with torch's defaults. Every row checks its loss against it. GB is what a step adds at its peak to weights and batch.
"""

CLOSING = f"""
Ours evaluates the network once for each coordinate that occurs, has the targets already, and takes the gradient of
each micro-batch before it encodes the next. Neither way computes gradients of frozen weights. Hours are computed, not
measured: the paper's {PAPERS_IMAGES:,} photographs (Imagenette, 100 epochs) at this rate on one device; only for its shape.
"""


if __name__ == "__main__":
    main()
