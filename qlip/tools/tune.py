"""``qlip tune``: which settings lose least for their tokens on the user's own pictures."""

import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from qlip.core.rules import check, shown
from qlip.data.readable import log_skipped
from qlip.data.sources import list_pictures
from qlip.evaluation.journal import Journal
from qlip.files import replacing_file
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import read_image, read_size
from qlip.images.worker import keep_memory
from qlip.structured import DamagedFileError, check_fields
from qlip.tools.advice import PLAIN, RULE, Setting, advice, draw_chart, gains, tabulate
from qlip.tools.config import TuneConfig
from qlip.tools.geometry import Geometry, read_geometry
from qlip.tools.loss import can_read
from qlip.tools.measure import Pictures, bounded, bounded_size

CRITERIA = ("derivative", "gradient", "reconstruction")
SCALED = (("derivative", 0.3), ("derivative", 1.0), ("gradient", 0.5), ("reconstruction", 0.002))
TIMES = (2, 3)  # the model's own size, where pictures have as many pixels
READ = 8  # pictures in which words are sought: tesseract takes a second for each setting
CALIBRATED = 32  # pictures on which a threshold is brought to the budget
STEPS = 12


class Line(TypedDict):
    """A line of the journal: what a picture loses, see `measure`, or a threshold that was found."""

    id: str
    arms: dict | None
    alpha: float | None


def run_tune(config: TuneConfig, console: Console) -> None:
    """Measure, and show a table, a plot and the setting that is recommended.

    Args:
        config: The options.
        console: Where the table goes.

    Raises:
        OSError: if there is no picture that can be read, or the model cannot be found.
        ValueError: if an option is not taken.
    """
    geometry = read_geometry(config.model)
    listed = list_pictures(config.images)
    files = random.Random(config.seed).sample(listed, min(config.limit or len(listed), len(listed)))
    shapes = list(filter(None, map(_shape, files)))
    if not shapes:
        raise OSError(
            f"images: got {shown(config.images)}, of whose pictures none can be read; takes a folder of pictures"
        )
    budget = budget_of(config, geometry, shapes)
    out = folder_of(config)
    journal = Journal(out / "journal.jsonl", Line)
    settings = find_settings(geometry, shapes, budget, files, journal)
    records = _measure(
        files, {each.name: each.processor(geometry) for each in settings}, budget * geometry.side**2, journal, config
    )
    if not records:
        raise OSError(
            f"images: got {shown(config.images)}, of whose pictures none can be read; takes a folder of pictures"
        )
    found = gains(records, settings)
    with replacing_file(out / "tune.png") as new:
        draw_chart(found, budget).savefig(new, format="png", dpi=130)
    console.print(tabulate(found, records))
    console.print(RULE, highlight=False)
    lines = advice(found, records, geometry, budget, len(files) - len(records))
    console.print(
        f"\n{lines}\n\nPlot: {out / 'tune.png'}", highlight=False, soft_wrap=True, markup=False
    )  # to be pasted


def folder_of(config: TuneConfig) -> Path:
    """The folder of these options' results: a run with other options has another one."""
    fields = {name: value for name, value in asdict(config).items() if name not in ("out", "workers")}
    digest = hashlib.sha256(json.dumps([fields, can_read()], sort_keys=True).encode()).hexdigest()
    return config.out / f"{Path(config.images).resolve().name}-{digest[:8]}"


def budget_of(config: TuneConfig, geometry: Geometry, shapes: Sequence[tuple[int, int]]) -> int:
    """The budget in tokens, from widths and heights of the pictures where it is a share of their grids."""
    if config.budget is not None:
        return config.budget
    own = geometry.tokens or median(math.prod(geometry.processor(size=None).grid(h, w)) for w, h in shapes)
    return max(round((config.share or 1) * own), 1)


def find_settings(
    geometry: Geometry, shapes: Sequence[tuple[int, int]], budget: int, files: Sequence[Path], journal: Journal
) -> list[Setting]:
    """The settings that are compared; thresholds that meet the budget on average are found once and kept in the journal.

    Args:
        geometry: Of the model.
        shapes: Widths and heights of the pictures.
        budget: Tokens.
        files: The pictures.
        journal: Where the thresholds are kept.
    """
    sizes = find_sizes(geometry, shapes)
    found = [Setting(size, criterion, "prune", None, budget) for size in sizes for criterion in CRITERIA]
    found += [Setting(sizes[-1], criterion, "scale", alpha, budget) for criterion, alpha in SCALED]
    known = {record["id"]: _alpha(record, journal) for record in journal.recover() if record["alpha"] is not None}
    for size in sizes:
        name = f"alpha at size {size}"
        if name not in known:
            plain = Setting(size, "derivative", "prune", 0.0, None).processor(geometry)
            known[name] = calibrate(plain, files[:CALIBRATED], budget)
            journal.append([Line(id=name, arms=None, alpha=known[name])])
        found.append(Setting(size, "derivative", "prune", known[name], None))
    return found


def find_sizes(geometry: Geometry, shapes: Sequence[tuple[int, int]]) -> list[int | None]:
    """Sizes that are compared, rising: the model's own, its multiples that most pictures have, and the pictures' own.

    Where more than a tenth of the pictures are measured smaller than they are, their own size is left out: it would be another.
    """
    shortest = int(median(min(bounded_size(*shape)) for shape in shapes))
    own = geometry.size
    sizes: list[int | None] = [] if own is None else [own, *(own * k for k in TIMES if own * k <= shortest)]
    if sum(bounded_size(*shape) != shape for shape in shapes) <= 0.1 * len(shapes):
        return [*sizes, None]
    return sizes or [shortest]


def calibrate(settings: QlipImageProcessor, files: Sequence[Path], budget: int) -> float:
    """The threshold, to three digits, at which pictures take ``budget`` tokens on average."""
    pictures = []
    for file in files:
        try:
            pictures.append(bounded(read_image(file)))
        except OSError:
            continue  # it is named when it is measured
    low, high = 1e-3, 10.0
    for _ in track(range(STEPS), description=f"threshold at size {settings.size or 'own'}", transient=True):
        middle = (low * high) ** 0.5
        tried = settings.with_options(alpha=middle)
        over = sum(tried.count_tokens(pictures)) > budget * len(pictures)
        low, high = (middle, high) if over else (low, middle)
    return float(f"{1.005 * high:.3g}")  # rounded up: many blocks may have just that score


def _shape(file: Path) -> tuple[int, int] | None:
    """Width and height of a picture; None if it cannot be read, which is told when it is measured."""
    try:
        return read_size(file)
    except OSError:
        return None


def _measure(
    files: Sequence[Path], arms: Mapping[str, QlipImageProcessor], pixels: int, journal: Journal, config: TuneConfig
) -> list[dict[str, Any]]:
    """The records of all pictures that can be read; those in the journal are not measured again."""
    done = {record["id"]: record for record in journal.recover() if record["arms"] is not None}
    for record in done.values():
        _check_arms(record, arms, journal)
    read = READ if can_read() else 0
    todo = [file for file in files if str(file) not in done]
    texts = sum(str(file) not in done for file in files[:read])  # those come first in what is left, too
    loader = DataLoader(
        Pictures(todo, arms, pixels, texts),
        batch_size=None,
        num_workers=config.workers,
        collate_fn=_same,
        worker_init_fn=keep_memory,
    )
    for record in track(loader, description="pictures", total=len(todo)):
        if "error" in record:
            log_skipped(Path(record["id"]), OSError(record["error"]))
        else:
            journal.append([Line(id=record["id"], arms=record["arms"], alpha=None)])
            done[record["id"]] = record
    return [done[str(file)] for file in files if str(file) in done]


def _alpha(record: Line, journal: Journal) -> Any:
    """The threshold of a line that another run has written."""
    try:
        return check("alpha", record["alpha"])
    except ValueError as error:
        raise DamagedFileError(f"{journal.path}: {record['id']}: {error}; delete it to measure anew") from error


def _check_arms(record: Line, arms: Mapping[str, QlipImageProcessor], journal: Journal) -> None:
    """Check that a line of another run has what is compared now: with other pictures in the folder sizes may be others.

    Raises:
        DamagedFileError: if not.
    """
    values: dict[str, Any] = {"ssim": float, "edges": float | None, "words": float | None}
    kinds: dict[str, dict[str, Any]] = {PLAIN: values, **{name: {"tokens": int, **values} for name in arms}}
    try:
        held = check_fields(record["arms"], record["id"], dict.fromkeys(kinds, dict))
        for name, kind in kinds.items():
            check_fields(held[name], f"{record['id']}: {name}", kind)
    except DamagedFileError as error:
        raise DamagedFileError(
            f"{journal.path}: {error}. It was measured on other pictures, or is damaged; delete it to measure anew"
        ) from error


def _same(record: Any) -> Any:
    """What a loader does to a record: nothing."""
    return record
