"""What one run measures, and on what it runs: dataclasses of plain values, which a command line or a report takes without torch."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from qlip.core.names import Cover, Weighting
from qlip.core.rules import check_fields, shown
from qlip.evaluation.names import Baseline, Dtype, Scoring, Style
from qlip.images.names import Crop, Fit

# fields that the first folders were named without, and what was measured then
LATER: dict[str, object] = {"fit": "prune", "weighting": None}


@dataclass(frozen=True, kw_only=True)
class Vision:
    """How an arm sees: the stock model, or the converted one with its position and quadtree."""

    baseline: Baseline | None = None
    """Ask the stock model in place of the converted one: ``own`` prepares images with the model's own processor as it is; for
    LLaVA-1.5 ``crop`` is the same, and ``pad`` does as its own repository does. Position, size, crop and the quadtree's options then
    have no effect; but with ``own``, a model that takes images of any size gets them scaled down to max_tokens."""
    position: str | None = None
    """Where tokens are; if not given, the position saved with the model, or else the solved one. Models that rotate take none."""
    size: int | Literal["model"] | None = "model"
    """Shortest edge in pixels that images are scaled to; null leaves them at their own size; ``model`` is what the model was made for."""
    crop: Crop = "units"
    """``units`` scales both sides to whole patches and cuts nothing; ``patch`` keeps the aspect and trims both sides; ``square`` cuts out
    the middle."""
    alpha: float = 0.1
    """Split threshold of the quadtree, in units of the criterion; a larger one gives fewer tokens."""
    max_tokens: int | None = None
    """Image tokens that one image may take at most; if given, it replaces alpha, but see fit."""
    criterion: str = "derivative"
    """Split criterion of the quadtree; with uniform nothing merges."""
    cover: Cover = "full"
    """``full`` lets the borders of an image merge too; ``roots`` leaves them in single patches, as the paper does."""
    fit: Fit = "prune"
    """How an image keeps to max_tokens: ``prune`` merges the least deserving blocks at the size that is set; ``scale`` merges what alpha
    says and scales the image down to the largest size at which that fits."""
    seed: int = 0
    """Seed of the random criterion; the others do not draw."""
    weighting: Weighting | None = None
    """How a leaf counts in the tower's attention: ``once``, or by its ``area``; the family's own if not given, which is ``once``."""


@dataclass(frozen=True, kw_only=True)
class Cell(Vision):
    """What is measured: the benchmark, the arm, the wording. Two runs of one cell measure the same thing.

    Raises:
        ValueError: if the benchmark or the criterion is unknown, the benchmark cannot be asked or scored this way, or a count
            is not positive.
    """

    benchmark: str
    """Which questions are asked; those called pocket and photo are drawn here, local asks those of questions.csv in the folder of --data, the
    others are downloaded."""
    model: str
    """A model that answers in words about images, of a family in docs/models.md, converted before or not: a Hub id, a folder, or
    pocket-llava or pocket-qwen, which come with the package."""
    model_revision: str | None = None
    """Commit, branch or tag of the model on the Hub; the newest commit if not given."""
    prompt_style: Style = "llava"
    """Whose wording of questions and whose parsers are used: those of LLaVA, VLMEvalKit or lmms-eval. The frame around a question
    is the model's own chat template, for LLaVA-1.5 that of the style."""
    scoring: Scoring = "letters"
    """``letters`` reads the answer from what the model writes; ``likelihood`` takes the most likely of several sentences, the
    official way of V*."""
    hub: str | None = None
    """Hub id of the data, in place of the benchmark's own."""
    data_revision: str | None = None
    """Commit, branch or tag of the data on the Hub; if not given, the one that the benchmark pins, or else the newest."""
    dtype: Dtype = "float32"
    """Number format that the weights are loaded in."""
    max_new_tokens: int | None = None
    """Tokens that an answer may have at most; the benchmark's own number if not given."""
    limit: int | None = None
    """How many questions are asked, from the first; all of them if not given."""

    def __post_init__(self) -> None:
        # Here, because the registries load torch, and the dataclass alone should not.
        from qlip.core.criteria import get_criterion
        from qlip.evaluation.benchmarks import get_benchmark

        benchmark = get_benchmark(self.benchmark)
        get_criterion(self.criterion)
        for name, taken in (("prompt_style", get_args(Style)), ("scoring", benchmark.scorings)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in taken:
                raise ValueError(f"{name}: got {shown(value)}; {self.benchmark} takes {', '.join(map(repr, taken))}")
        size = [] if _is_model(self.size) else ["size"]
        check_fields(
            self, *size, "crop", "alpha", "max_tokens", "cover", "fit", "weighting", "seed", "limit", "max_new_tokens"
        )

    @property
    def vision(self) -> Vision:
        """How the arm sees."""
        return Vision(**{name: getattr(self, name) for name in Vision.__dataclass_fields__})

    @property
    def folder(self) -> str:
        """A folder's name that says what is in it, and differs where any field does."""
        if self.baseline:
            what = f"baseline-{self.baseline}"
            what += f"-budget{self.max_tokens}" if self.baseline == "own" and self.max_tokens else ""
        else:
            budget = f"alpha{self.alpha:g}" if self.max_tokens is None else f"budget{self.max_tokens}"
            seen = f"{'' if self.crop == 'units' else self.crop}{self.size or 'native'}"
            counted = f"-{self.weighting}" if self.weighting else ""
            what = f"{self.position or 'default'}-{seen}-{self.criterion}-{budget}{counted}-seed{self.seed}"
        fields = {name: value for name, value in asdict(self).items() if LATER.get(name, ...) != value}
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
        return f"{self.benchmark}/{Path(self.model).name}/{what}-{digest[:8]}"


def _is_model(value: object) -> bool:
    """Whether an option is left to the model."""
    return isinstance(value, str) and value == "model"


@dataclass(frozen=True)
class Run:
    """How a cell is measured: where data and results lie, and on what. It makes no difference to what is measured."""

    data: Path | None = None
    """Folder with a copy of the data; downloaded from the Hub if not given."""
    out: Path | None = None
    """Folder that gets the results; results/BENCHMARK/MODEL/... if not given."""
    batch_size: int = 1
    """Number of questions in a batch on each device."""
    devices: int | Literal["auto"] = "auto"
    """Number of devices; ``auto`` takes all there are."""
    accelerator: str = "auto"
    """What Lightning computes on: ``gpu``, ``cpu`` and others; ``auto`` takes the best there is."""
    workers: int = 2
    """Number of processes that read and cut pictures for each device; 0 does it in the main process."""

    def __post_init__(self) -> None:
        check_fields(self, "batch_size", "workers")
