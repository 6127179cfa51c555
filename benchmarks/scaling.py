"""What does not depend on the step: several processes, data loading, the cache of targets, and a million photographs.

Run as ``python benchmarks/scaling.py``.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning as L
import torch
from _report import machine, table, write_for
from torch import Tensor
from train_step import Shape, apart, shape_and_repeats, write_photographs

from qlip.towers.synthetic import random_clip
from qlip.training.data import QlipDataModule, View

ROOT = Path(__file__).parents[1]
STEPS, WARM = 8, 2  # of a fit: those timed, and those before
LISTED = 1024  # photographs of which the start of a run is timed
MILLION = 1_000_000


class Clock(L.Callback):
    """Writes how long a rank's steps took to the file that ``QLIP_CLOCK`` names."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Start after the warm-up, stop at the last step."""
        if trainer.global_step == WARM:
            self.started = time.perf_counter()
        if trainer.global_step == WARM + STEPS and trainer.is_global_zero:
            Path(os.environ["QLIP_CLOCK"]).write_text(json.dumps(time.perf_counter() - self.started))


def fit(processes: int, shape: Shape, photos: Path, device: str) -> float:
    """Images per second of `train.py fit` under torchrun, one process a device."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        random_clip(shape.width, shape.layers, image_size=shape.view).save_pretrained(folder / "clip")
        command = [
            *f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node {processes}".split(),
            *f"{ROOT}/train.py fit --model.backbone clip --model.mlp.hidden {shape.hidden}".split(),
            *f"--data.root {photos} --data.batch_size {shape.images} --data.max_size {shape.edge}".split(),
            *f"--data.workers 0 --data.cache_dir cache --data.repeats {processes * (WARM + STEPS)}".split(),
            *f"--trainer.devices {processes} --trainer.strategy {'ddp' if processes > 1 else 'auto'}".split(),
            *f"--trainer.accelerator {'gpu' if device == 'cuda' else 'cpu'} --trainer.max_steps {WARM + STEPS}".split(),
            *f"--trainer.precision {'bf16-mixed' if device == 'cuda' else '32-true'} --trainer.limit_val_batches 0".split(),
            "--trainer.enable_progress_bar=false",
            "--trainer.callbacks+=scaling.Clock",
        ]
        environment = {
            "PYTHONPATH": str(ROOT / "benchmarks"),
            "QLIP_CLOCK": str(folder / "clock"),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-3000:]}")
        return processes * shape.images * STEPS / json.loads((folder / "clock").read_text())


def mean_colour(pixels: Tensor) -> Tensor:
    """Stands for the frozen CLIP where its time is not what is measured."""
    return pixels.mean((2, 3))


def built(root: Path, shape: Shape, cache: Path, workers: int) -> QlipDataModule:
    """The photographs under ``root`` as a run has them."""
    data = QlipDataModule(
        str(root), batch_size=shape.images, max_size=shape.edge, workers=workers, cache_dir=str(cache), val_limit=1
    )
    data.build(mean_colour, "mean colour", shape.view, View(14))
    return data


def loading(workers: int, shape: Shape, photos: Path, cache: Path) -> float:
    """Images per second of the loader, from JPEG files to batches, the first batch not counted."""
    data = built(photos, shape, cache, workers)
    data.repeats = 4
    batches = iter(data.train_dataloader())
    next(batches)
    start = time.perf_counter()
    images = sum(len(batch) for batch in batches)
    return images / (time.perf_counter() - start)


def elapsed(function: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def start_of_run(shape: Shape, photos: list[Path], folder: Path) -> float:
    """Seconds a photograph that a run takes before its first step, its targets in the cache."""
    (folder / "many").mkdir()
    for i in range(LISTED):
        os.link(photos[i % len(photos)], folder / "many" / f"{i:05}.jpg")
    build = partial(built, folder / "many", shape, folder / "many-cache", 0)
    build()
    return min(elapsed(build) for _ in range(3)) / LISTED


def main() -> None:
    """Measure everything and write the section."""
    shape, repeats, device = shape_and_repeats()
    torch.set_num_threads(1)
    processes = [1, 2] if device == "cpu" else sorted({1, torch.cuda.device_count()})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = write_photographs(folder / "photos", 4 * shape.images, shape.edge)
        way = "ours" if device == "cpu" else "ours, bfloat16"
        _, need, _ = apart(way, shape, photos[: shape.images], device, repeats)
        rates = [fit(n, shape, folder / "photos", device) for n in processes]
        fits = [[f"{n}", f"{rate:.1f}", f"{rate / rates[0]:.2f}x"] for n, rate in zip(processes, rates, strict=True)]
        loads = []
        for workers in (0, 2, 8):
            rate = loading(workers, shape, folder / "photos", folder / "cache")
            loads.append([f"{workers}", f"{rate:.1f}", f"{rate / need:.1f}x"])
            print(*loads[-1], sep="\t", flush=True)
        start = start_of_run(shape, photos, folder)
    each = 4 * 768 + 2 * 4  # E of ViT-L/14@336 in float32, and height and width
    million = [
        ["listing, checking and reading the cache of targets, each rank at each start", f"{start * 1e6:.0f} us"],
        ["decoding and cutting in one process, an epoch", f"{1000 / float(loads[0][1]):.1f} ms"],
        ["steps on one device, an epoch", f"{1000 / need:.1f} ms"],
        ["cache of targets", f"{each} bytes"],
    ]
    seconds = [start, 1 / float(loads[0][1]), 1 / need]
    totals = [f"{s * MILLION / 3600:.2f} hours" for s in seconds] + [f"{each * MILLION / 1e9:.2f} GB"]
    text = TEXT.format(
        "GPU" if device == "cuda" else "CPU", machine(device), shape.images, shape.edge, shape.width, shape.layers,
        table(["processes", "images/s", "ratio"], fits), way, f"{need:.1f}", table(["workers", "images/s", "of need"], loads),
        table(["", "a photograph, measured", "a million, computed"], [[*a, b] for a, b in zip(million, totals, strict=True)]),
    )  # fmt: skip
    write_for(device, "scaling", text)


TEXT = """## Scaling, {}

`python benchmarks/scaling.py` ({}; batches of {} photographs of shortest edge {}, a tower with random weights of width {} and
{} layers; seconds on the clock)

`train.py fit` under torchrun, one thread a process, data loaded in the same process:

{}

Data loading from JPEG files to batches, one thread a worker, against the need of one device: the step in
`benchmarks/train_step.py` ("{}") takes {} images a second.

{}

A million photographs like these. The right column is computed from the left, not measured; the size of the cache is that of
ViT-L/14@336 and exact.

{}
"""


if __name__ == "__main__":
    main()
