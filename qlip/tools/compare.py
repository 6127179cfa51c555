"""``qlip compare``: the user's own questions put to the stock and the converted model, answers side by side."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from PIL import Image

from qlip.evaluation.benchmarks.base import Benchmark, Record
from qlip.evaluation.benchmarks.local import Local, read_questions
from qlip.evaluation.benchmarks.source import Source
from qlip.evaluation.cell import Cell, Run
from qlip.evaluation.report.tables import Table
from qlip.evaluation.results import RESULT, Result, read_result
from qlip.evaluation.run.arm import load_arm, load_stock
from qlip.evaluation.run.vqa import run_vqa
from qlip.evaluation.statistics import Estimate, compare, score
from qlip.files import replacing_file
from qlip.images.read import to_rgb
from qlip.tools.config import CompareConfig
from qlip.viz import draw_leaves

SHARES = (0.5, 0.25)  # of the stock model's tokens, where no budget is given
SIDE = 640  # pixels of the longer side of a picture for the page
SHOWN = 352  # and of one on the page, on a wide screen


@dataclass(frozen=True)
class Arm:
    """One arm and how it did.

    Attributes:
        name: What the page calls it.
        result: Its run.
        answers: Its answers, by the question's id.
        accuracy: Share of right answers in percent; None where no question has one.
        difference: That, less the stock model's, on the same questions; None for the stock model too.
        agreement: Share of answers that are the stock model's, in percent; None for the stock model.
    """

    name: str
    result: Result
    answers: Mapping[str, Record]
    accuracy: Estimate | None
    difference: Estimate | None = None
    agreement: Estimate | None = None

    @property
    def tokens(self) -> float:
        """Mean number of image tokens of a question."""
        return sum(record["tokens"] for record in self.answers.values()) / len(self.answers)

    @property
    def seconds(self) -> float:
        """What the model takes for an answer, the median."""
        return median(record["seconds"] for record in self.answers.values())


@dataclass(frozen=True)
class Comparison:
    """Everything that the page shows.

    Attributes:
        model: Name of the model.
        source: The questions and pictures.
        stock: The stock model.
        converted: The converted model at each budget.
        scaled: The stock model at each budget, its processor scaling the pictures down; without those budgets that it cannot
            keep, or keeps anyway.
    """

    model: str
    source: Source
    stock: Arm
    converted: Mapping[int, Arm]
    scaled: Mapping[int, Arm]

    @property
    def arms(self) -> list[Arm]:
        """The stock model, then at each budget the picture scaled down and the quadtree."""
        pairs = [(self.scaled.get(budget), arm) for budget, arm in self.converted.items()]
        return [self.stock, *(arm for pair in pairs for arm in pair if arm)]

    @property
    def shown(self) -> list[Arm]:
        """The arms that have a picture of their own on the page: as it is, and with leaves."""
        return [self.stock, *self.converted.values()]


def run_compare(folder: Path, questions: Path, cell: Cell, run: Run, config: CompareConfig) -> tuple[Comparison, Path]:
    """Ask both models what has not been asked yet; returns the comparison and the folder of its answers.

    Args:
        folder: Folder of the pictures.
        questions: CSV file, see `qlip.evaluation.benchmarks.local.read_questions`.
        cell: How the converted model is asked; its budget is left open.
        run: On what both run.
        config: Budgets, and the folder of results.

    Raises:
        OSError: if pictures, questions or model are not there.
        ValueError: if a line of the questions or an option is not taken.
    """
    if cell.criterion == "random":
        raise ValueError(
            "criterion: got 'random', which cuts a picture anew for every question; takes any other criterion"
        )
    out = config.out or Path("results/compare") / questions.stem
    source = read_questions(folder, questions)
    own = Cell(
        benchmark=cell.benchmark, model=cell.model, model_revision=cell.model_revision, dtype=cell.dtype,
        max_new_tokens=cell.max_new_tokens, limit=cell.limit, baseline="own",
    )  # fmt: skip
    stock = _arm("stock", _ask(own, run, source, out))
    budgets = list(dict.fromkeys(config.budgets or _budgets(stock)))
    processor = load_stock(cell.model, cell.model_revision)
    sizes = {size for size in source.sizes() if all(size)}
    converted, scaled = {}, {}
    for budget in budgets:
        if processor.scales(budget, *sizes):
            result = _ask(replace(own, max_tokens=budget), run, source, out)
            scaled[budget] = _against(_arm(f"scaled down, {budget} tokens", result), stock)
    for budget in budgets:
        result = _ask(replace(cell, max_tokens=budget), run, source, out)
        converted[budget] = _against(_arm(f"{budget} tokens", result), stock)
    return Comparison(cell.model, source, stock, converted, scaled), out


def _ask(cell: Cell, run: Run, source: Source, out: Path) -> Result:
    folder = out / cell.folder
    run_vqa(cell, replace(run, out=folder), source)
    return read_result(folder / RESULT)


def _budgets(stock: Arm) -> list[int]:
    spent = sum(record["baseline_tokens"] for record in stock.answers.values()) / len(stock.answers)
    return [max(round(spent * share), 1) for share in SHARES]


def _arm(name: str, result: Result) -> Arm:
    answers = {record["id"]: record for record in result.records}
    return Arm(name, result, answers, result.scores.get(result.primary))


def _against(arm: Arm, stock: Arm) -> Arm:
    """An arm with what it has in common with the stock model, on the questions that both answered."""
    both = [name for name in stock.answers if name in arm.answers]
    ours, theirs = ([side.answers[name] for name in both] for side in (arm, stock))
    benchmark: Benchmark = Local()
    same: list[Record] = [
        {**one, "answer": "that of the stock model", "correct": agree(one, other)}
        for one, other in zip(ours, theirs, strict=True)
    ]
    agreement = score(benchmark, same)[benchmark.primary]
    return replace(arm, agreement=agreement, difference=compare(benchmark, ours, theirs).get(benchmark.primary))


def agree(one: Record, other: Record) -> bool:
    """Whether two answers mean the same: the same letter, or the same words."""
    return one["parsed"] == other["parsed"]


def answers_table(comparison: Comparison) -> Table:
    """Every question with the answers side by side, for a spreadsheet."""
    rows = []
    for name, record in comparison.stock.answers.items():
        row = comparison.source.rows[int(name.split(":")[0])]
        given = [arm.answers[name]["raw"] if name in arm.answers else "" for arm in comparison.arms]
        rows.append([row["image"], row["question"], record["answer"], *given])
    return Table("answers", "Answers", ["image", "question", "answer", *(arm.name for arm in comparison.arms)], rows)


def draw_pictures(comparison: Comparison, out: Path) -> dict[tuple[str, str], Path]:
    """Draw each picture as it is, and its leaves at each budget; what is drawn already stays.

    Returns:
        Files below ``out``, by the picture's name and the arm's.
    """
    first = {row["image"]: index for index, row in reversed(list(enumerate(comparison.source.rows)))}
    asked = {record["unit"] for record in comparison.stock.answers.values()}
    files: dict[tuple[str, str], Path] = {}
    for arm in comparison.shown:
        folder = arm.result.folder / "pictures"
        wanted = {image: folder / f"{index:04}.jpg" for image, index in first.items() if image in asked}
        files |= {(image, arm.name): path.relative_to(out) for image, path in wanted.items()}
        missing = {image: path for image, path in wanted.items() if not path.is_file()}
        cell = arm.result.cell
        if missing and cell.baseline:
            for image, path in missing.items():
                picture = to_rgb(comparison.source.image(first[image])).copy()
                picture.thumbnail((SIDE, SIDE))
                _save(picture, path)
        elif missing:
            loaded = load_arm(cell.model, cell.vision, cell.model_revision, cell.dtype)
            settings = loaded.processor.image_processor.settings
            for image, path in missing.items():
                view, leaves = settings.view_and_leaves(comparison.source.image(first[image]))
                factor = max(SIDE // max(view.size), 1)
                large = view.resize((view.width * factor, view.height * factor), Image.Resampling.BICUBIC)
                thick = max(round(max(large.size) / SHOWN), 1)  # a line that is thinner than a pixel of the page fades
                _save(draw_leaves(large, leaves, width=thick), path)
    return files


def _save(picture: Image.Image, path: Path) -> None:
    with replacing_file(path) as new:
        picture.save(new, "JPEG", quality=90, subsampling=0)
