"""Options of the other commands, ``bias``, ``sweep`` and ``report``: dataclasses of plain values, which load no torch."""

from dataclasses import dataclass
from pathlib import Path

from qlip.core.names import Weighting
from qlip.core.rules import SIDE, check_fields, numbers, shown
from qlip.evaluation.names import BiasPosition

PAPER_RESULTS = Path(__file__).parent / "report" / "paper_results"


@dataclass(frozen=True)
class BiasConfig:
    """Measure interpolation and mesoscopic bias on a folder of images."""

    images: str
    """Folder of images, searched to any depth, or the name of a source: pocket (the drawn scenes of 336 to 896 pixels),
    samples or imagenette (those held out from training)."""
    clip: str = "openai/clip-vit-large-patch14-336"
    """Hub id or folder of a CLIP; random:64x3, a tower of width 64 with 3 layers, needs no download."""
    mlp: str = "solve"
    """Weights of the position called mlp: ``solve``, or a source that qlip.load takes."""
    positions: tuple[BiasPosition, ...] = ("mlp", "bicubic", "bilinear", "zero")
    """Positions to compare; those of the paper's figure 4 if not given."""
    sizes: tuple[int, int, int] = (224, 812, 28)
    """First and last side of the square images, and the step from one to the next, all in pixels."""
    alpha: float = 0.1
    """Split threshold of the quadtree, in units of the criterion; a larger one gives fewer tokens."""
    criterion: str = "derivative"
    """Split criterion of the quadtree; with uniform nothing merges."""
    weighting: tuple[Weighting, ...] = ("once",)
    """How the quadtree's leaves count in the attention: ``once``, as in the paper, by their ``area``, or both, one beside the other."""
    limit: int | None = None
    """How many images are used, from the first; all of them if not given."""
    out: Path = Path("results/bias")
    """Folder that gets bias.json, bias.csv, bias.png and TensorBoard's events."""
    device: str = "auto"
    """Device to compute on, as torch names it: ``cuda``, ``cuda:1``, ``cpu``; ``auto`` is CUDA if there is any, else the CPU."""

    def __post_init__(self) -> None:
        check_fields(self, "alpha", "limit")
        sizes = numbers(self.sizes, SIDE, count=3)
        if sizes is None or sizes[0] > sizes[1]:
            raise ValueError(
                f"sizes: got {shown(self.sizes)}; takes the first side, the last, which is no smaller, and the step, in pixels from 1 to {SIDE.high:,}"
            )


@dataclass(frozen=True)
class SweepConfig:
    """Measure every cell of a sweep."""

    sweep: Path
    """YAML file with the keys out, common, run, grid and bias."""
    data: Path | None = None
    """Folder with a copy of each benchmark, DATA/BENCHMARK; downloaded from the Hub if not given."""
    model: str | None = None
    """Hub id or folder of a model, in place of the file's."""
    out: Path | None = None
    """Folder that gets the results; the file's own if not given."""
    cells: str = "0/1"
    """Which of the cells to measure, written i/n: every n-th cell from the i-th, for arrays of jobs; i counts from 0."""
    ray: str | None = None
    """Address of a Ray cluster on which every cell is a task, ``auto`` for the one of this machine, or ``local`` to start one
    (needs the extra qlip[ray]); the cells run here, one after the other, if not given."""
    gpus: float = 1.0
    """Number of GPUs that one cell takes on Ray; 0 runs on CPUs."""
    dry_run: bool = False
    """List the cells that are left, and measure nothing."""

    def __post_init__(self) -> None:
        check_fields(self, "gpus")


@dataclass(frozen=True)
class ReportConfig:
    """Draw the tables and figures of a folder of finished runs."""

    dir: Path
    """Folder of finished runs, searched to any depth."""
    out: Path | None = None
    """Folder that gets the report; DIR/report if not given."""
    paper: Path = PAPER_RESULTS
    """Folder with the paper's numbers; a folder that is not there leaves them out of the page."""
