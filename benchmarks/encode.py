"""The encoder against Hugging Face's own at equal tokens, a ragged batch against its parts, and latency over tokens kept.

Run as ``python benchmarks/encode.py``. On a GPU it has the shape of ViT-L/14 in bfloat16, on a CPU a small one in float32.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from _report import REPORT, machine, photograph, seconds, table, write_for
from matplotlib.figure import Figure
from torch import Tensor
from transformers import CLIPVisionModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

from qlip import PatchBatch, PositionMLP, QlipVisionModel, Quadtree
from qlip.towers.packing import Packing
from qlip.towers.synthetic import random_clip

P = 14
PLOT = REPORT.parent / "images" / "latency.png"
SHARES = (1.0, 0.75, 0.5, 0.25)
LENGTHS = 8  # different ones in the mixed batch


@dataclass(frozen=True)
class Shape:
    """What is encoded, and by what."""

    width: int
    layers: int
    hidden: int  # of the position's network
    grids: Sequence[int]  # sides of the square images, in patches
    batches: Sequence[int]
    most: int  # tokens in a batch of equal images
    shortest: int  # of the mixed batch, in tokens
    longest: int
    copies: int  # images of each length in it
    side: int  # pixels of the image of which ever less is kept
    repeats: int


VIT_L = Shape(1024, 24, 1024, (16, 24, 32, 48, 64), (1, 8, 32), 2**17, 100, 2500, 4, 1344, 10)
SMALL = Shape(256, 4, 128, (16, 24, 32, 48, 64), (1, 8), 4096, 100, 900, 1, 672, 3)


@dataclass(frozen=True)
class Bench:
    """A tower with random weights, where it is, and how long calls take there."""

    shape: Shape
    device: str
    tower: CLIPVisionModel

    @classmethod
    def build(cls, shape: Shape, device: str) -> "Bench":
        """On a GPU in bfloat16."""
        tower = random_clip(shape.width, shape.layers).vision_model.requires_grad_(False)
        return cls(shape, device, tower.to(device, torch.bfloat16 if device == "cuda" else torch.float32))

    def milliseconds(self, function: Callable[[], Any]) -> float:
        """Of a call, best of the repeats; on a CPU of processor time."""

        def step() -> None:
            function()
            if self.device == "cuda":
                torch.cuda.synchronize()

        return 1000 * seconds(step, self.device, self.shape.repeats)

    def megabytes(self, function: Callable[[], Any]) -> str:
        """What a call adds at its peak to what is there already; on a GPU alone."""
        if self.device == "cpu":
            return "-"
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return f"{(torch.cuda.max_memory_allocated() - before) / 1e6:.0f}"

    def with_grid(self, grid: int) -> None:
        """Give the tower embeddings for images of ``grid x grid`` patches."""
        config = copy.copy(self.tower.config)
        config.image_size = grid * P
        old = self.tower.embeddings.patch_embedding.weight
        self.tower.embeddings = CLIPVisionEmbeddings(config).requires_grad_(False).to(old.device, old.dtype)

    def pixels(self, count: int, grid: int) -> Tensor:
        """Noise, ``(count, 3, H, W)``."""
        return torch.randn(count, 3, grid * P, grid * P, device=self.device)

    def network(self) -> QlipVisionModel:
        """Ours, with a position network; an unsolved one takes as long. Frozen, it would be evaluated once, on a CPU."""
        return QlipVisionModel(self.tower, PositionMLP(self.shape.width, 24, hidden=self.shape.hidden).to(self.device))


def equal_tokens(bench: Bench) -> list[list[str]]:
    """Hugging Face's encoder and ours on the same images.

    Raises:
        RuntimeError: if they do not agree.
    """
    rows = []
    for grid, count in product(bench.shape.grids, bench.shape.batches):
        if count * grid * grid > bench.shape.most:
            continue
        bench.with_grid(grid)
        pixels = bench.pixels(count, grid)
        batch = PatchBatch.from_images(pixels, Quadtree(criterion="uniform").batch(pixels))
        stock, ours = partial(bench.tower, pixels), partial(QlipVisionModel.from_clip(bench.tower, "bicubic"), batch)
        expected, got = stock().pooler_output.float(), ours().pooler_output.float()
        if (got - expected).norm() > (0.02 if bench.device == "cuda" else 1e-4) * expected.norm():
            raise RuntimeError(f"the two encoders disagree on {count} images of {grid} x {grid} patches")
        base, table_ms, network_ms = map(bench.milliseconds, (stock, ours, partial(bench.network(), batch)))
        ratios = (f"{table_ms / base:.2f}x", f"{network_ms / base:.2f}x")
        rows.append([str(grid * grid), str(count), f"{base:.1f}", f"{table_ms:.1f}", ratios[0]])
        rows[-1] += [f"{network_ms:.1f}", ratios[1]]
        print(*rows[-1], sep="\t", flush=True)
    return rows


def of_lengths(lengths: Sequence[int], device: str) -> PatchBatch:
    """Noise in a ragged batch."""
    items = [
        PatchBatch(torch.randn(1, n, 3, P, P), torch.rand(1, n, 2) * 2 - 1, torch.ones(1, n, dtype=torch.bool))
        for n in lengths
    ]
    return PatchBatch.collate(items).to(device)


def padded(model: QlipVisionModel, batch: PatchBatch) -> Tensor:
    """[CLS] the usual way: every image as long as the longest, padding masked."""
    tower, clip = model.tower, model.vision_model
    packing = Packing.of(torch.ones_like(batch.mask), 1)
    states = tower.embed(batch.patches)
    states = tower.before(packing.insert(tower.prefix(), states + model.position(batch.coords).to(states.dtype)))
    with_class = F.pad(batch.mask, (1, 0), value=True).long()
    mask = create_bidirectional_mask(config=model.config, inputs_embeds=states, attention_mask=with_class)
    for layer in clip.encoder.layers:
        states = layer(states, mask)
    return clip.post_layernorm(states[:, 0])


def mixed(bench: Bench) -> list[list[str]]:
    """A ragged batch, the same padded, and the sum of its lengths run apart, each as a batch without padding.

    Raises:
        RuntimeError: if they do not agree.
    """
    shape = bench.shape
    lengths = torch.linspace(shape.shortest, shape.longest, LENGTHS).long().tolist()
    model = QlipVisionModel.from_clip(bench.tower, "bicubic")
    batch = of_lengths(sorted(lengths * shape.copies), bench.device)
    together, usual = partial(model, batch), partial(padded, model, batch)
    got, expected = together().pooler_output.float(), usual().float()
    if (got - expected).norm() > (0.02 if bench.device == "cuda" else 1e-4) * expected.norm():
        raise RuntimeError("the ragged batch and the padded one disagree")
    apart = [partial(model, of_lengths([n] * shape.copies, bench.device)) for n in lengths]
    base = sum(map(bench.milliseconds, apart))
    rows = [["its lengths apart, summed", f"{base:.1f}", "1.00x", "-"]]
    for name, way in (("ragged, in one row", together), ("padded and masked", usual)):
        took = bench.milliseconds(way)
        rows.append([name, f"{took:.1f}", f"{took / base:.2f}x", bench.megabytes(way)])
    for row in rows:
        print(*row, sep="\t", flush=True)
    return rows


def work(tokens: int, shape: Shape) -> float:
    """Multiplications of the encoder for an image of so many patches."""
    t, d = tokens + 1, shape.width
    return shape.layers * (12 * t * d * d + 2 * t * t * d) + tokens * 3 * P * P * d


def kept(bench: Bench) -> tuple[list[list[str]], Figure]:
    """Latency of one image over the share of its tokens that are kept, ours and by scaling it down, and the plot."""
    shape, grid = bench.shape, bench.shape.side // P
    bench.with_grid(24)
    model, image = bench.network(), photograph("astronaut", grid * P, grid * P)
    ours, stock = [], []
    for share in SHARES:
        tree = Quadtree(max_tokens=round(share * grid * grid))
        batch = PatchBatch.from_image(image, tree.batch(image[None])[0]).to(bench.device)
        ours.append((int(batch.num_tokens), bench.milliseconds(partial(model, batch))))
        side = round(share**0.5 * grid)
        pixels = photograph("astronaut", side * P, side * P)[None].to(bench.device)
        call = partial(bench.tower, pixels, interpolate_pos_encoding=True)
        stock.append((side * side, bench.milliseconds(call)))
    whole, full = ours[0]
    rows = []
    for share, (tokens, took), (count, other) in zip(SHARES, ours, stock, strict=True):
        predicted = full * work(tokens, shape) / work(whole, shape)
        rows.append([f"{share:.0%}", str(tokens), f"{took:.1f}", f"{predicted:.1f}", f"{took / predicted:.2f}x"])
        rows[-1] += [str(count), f"{other:.1f}"]
        print(*rows[-1], sep="\t", flush=True)
    return rows, draw(ours, stock, shape, bench.device)


def draw(ours: Sequence[tuple[int, float]], stock: Sequence[tuple[int, float]], shape: Shape, device: str) -> Figure:
    """Milliseconds over tokens, and what the number of multiplications says."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    whole, full = ours[0]
    line = range(0, whole + 1, max(whole // 60, 1))
    axes.plot(line, [full * work(t, shape) / work(whole, shape) for t in line], color="0.6", lw=1.2, label="FLOPs")
    axes.plot(*zip(*ours, strict=True), "o", color="#c4513d", label="qlip, max_tokens")
    axes.plot(
        *zip(*stock, strict=True), "s", mfc="none", color="#2b6ca3", label="scaled down, interpolate_pos_encoding"
    )
    axes.set(xlabel="tokens", ylabel="ms", xlim=0, ylim=0)
    axes.set_title(f"one {shape.side} px image, {machine(device)}", fontsize=10, loc="left")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return figure


def shape_and_device() -> tuple[Shape, str]:
    """What the command line asks for; by default what suits the machine."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in asdict(VIT_L if device == "cuda" else SMALL).items():
        several = isinstance(value, tuple)
        parser.add_argument(f"--{name}", type=int, default=value, nargs="+" if several else None)
    return Shape(**vars(parser.parse_args())), device


@torch.no_grad()
def main() -> None:
    """Measure everything, write the section and the plot."""
    shape, device = shape_and_device()
    if device == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    bench = Bench.build(shape, device)
    where = "one thread, processor time, float32" if device == "cpu" else "bfloat16"
    equal = table(["tokens", "batch", "Hugging Face", "ours", "ratio", "with network", "ratio"], equal_tokens(bench))
    ragged = table(["batch", "ms", "ratio", "MB at the peak"], mixed(bench))
    rows, figure = kept(bench)
    figure.savefig(PLOT, dpi=130)
    header = ["kept", "tokens", "ms", "FLOPs say", "ratio", "tokens, scaled down", "ms, stock"]
    text = TEXT.format(
        "GPU" if device == "cuda" else "CPU", machine(device), where, equal, ragged, table(header, rows),
        images=LENGTHS * shape.copies, **asdict(shape),
    )  # fmt: skip
    write_for(device, "encode", text)


TEXT = """## Encoder, {0}

`python benchmarks/encode.py` ({1}; {2}, best of {repeats})

A tower with random weights of width {width} and {layers} layers, patches of 14 pixels. Milliseconds a batch. Hugging Face's own
encoder has a table for the size of the image; ours looks the same table up, and in the last two columns evaluates a
network of 4 x {hidden} at every token. Every row checks that both find the same [CLS].

{3}

A mixed batch of {images} images of {shortest} to {longest} tokens, against its lengths run one after the other, each in a batch
without padding.

{4}

One photograph of {side} pixels, ever fewer of its tokens kept by `max_tokens`, with the network. What the number of
multiplications says is anchored at the whole image. A user of the stock encoder would scale the image down and set
`interpolate_pos_encoding=True`: the last two columns.

{5}

![Latency over tokens](images/latency.png)
"""


if __name__ == "__main__":
    main()
