"""What a budget leaves to read: pages of text at the same number of tokens, by three ways, read by tesseract; no model.

python benchmarks/legibility.py [--pages 24] [--photographs FOLDER]

Needs tesseract on the path (Debian: tesseract-ocr). Writes three sections of docs/budgets.md and a figure; twenty minutes on two cores.
The pocket result beside it comes from `evaluate.py sweep pocket-budgets`, which goes on where it stopped.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import _report
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

import qlip
from qlip.data.sources import list_pictures
from qlip.evaluation.config import SweepConfig
from qlip.evaluation.results import Result, find_results, group_results
from qlip.evaluation.run.sweep import run_sweep
from qlip.evaluation.statistics import Estimate, compare, draw_counts, estimate
from qlip.images.read import read_image

ROOT = Path(__file__).parents[1]
PAGE, FIGURE = ROOT / "docs/budgets.md", ROOT / "docs/images/legibility.png"
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
FACES = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Bold")
SIZE = (1288, 812)  # pixels, whole patches: 92 x 58
SHARES = (0.5, 0.35, 0.25, 0.15)
WAYS: Mapping[str, Mapping[str, object]] = {  # options of the processor, besides the budget
    "grid scaled down": {"criterion": "uniform"},
    "prune, derivative": {"fit": "prune"},
    "prune, gradient": {"fit": "prune", "criterion": "gradient"},
    "scale, derivative 1.0": {"fit": "scale", "alpha": 1.0},
    "scale, gradient 0.5": {"fit": "scale", "alpha": 0.5, "criterion": "gradient"},
}
COLOURS = dict(zip(WAYS, ("#c0392b", "#888888", "#bbbbbb", "#222222", "#2e9e5b"), strict=True))
WORDS = """ability account across action address advance afternoon agreement almost already although amount animal another answer anything
appear area around article attention available balance basket become before behind believe benefit better between beyond bottle bridge
bright brother building business calendar camera capital captain careful carry castle central certain chapter choice circle citizen city
clear climate close cloud coffee collect colour column common company complete concern condition consider contain continue control copper
corner correct country course cover create culture current customer daily danger decide degree deliver depend describe design detail
develop different difficult digital dinner direct discover distance document double during early earth easily economy education effect
either electric element energy engine enough entire equal escape evening event every evidence example except exercise expect explain
express family famous farmer father feature federal figure final finger finish flower follow foreign forest forward freedom friend future
garden gather general gentle glass government ground growth guide handle happen harbour health heart heavy history holiday hospital hundred
idea imagine important include increase indeed industry inside instead island journey judge justice kitchen knowledge language large later
learn leather letter level library listen little machine magazine manage market master material matter measure medical meeting member
memory method middle minute mirror modern moment morning mother mountain music narrow nation natural nature nearly network never
newspaper night normal north nothing number object observe ocean offer office often open orange order other outside paper parent
particular pattern people perhaps period person picture plan planet plastic player please pocket point police popular position possible
power prepare present pressure price private problem process produce program project promise protect provide public purpose quality
question quick quiet rabbit radio railway rather reach reason receive record reduce region remain remember repeat report require rescue
result return river safety school science season second section secret sentence separate serious service several shadow should silence
silver simple single sister smooth social soldier something south special spring square station steady still stone store story straight
stream street strong student subject success sudden summer supply support surface system table teacher temperature thing thought thousand
through ticket together tomorrow tongue tower traffic travel treasure triangle trouble under understand until useful valley value various
village visit voice volume watch water weather weight welcome western whether while whisper white window winter within without woman
wonder wooden worker world would write yellow yesterday young""".split()  # noqa: SIM905  a list of them would fill pages


def draw_page(seed: int) -> Image.Image:
    """A page of two columns, a table and buttons, in a size from 9 to 24 pixels; every third is dark."""
    rng = np.random.default_rng(seed)
    dark = seed % 3 == 2
    paper, ink, line = (
        ((24, 26, 32), (225, 225, 220), (80, 84, 96)) if dark else ((252, 252, 250), (28, 28, 30), (190, 190, 190))
    )
    page = Image.new("RGB", SIZE, paper)
    pen = ImageDraw.Draw(page)
    face, pixels = FACES[seed % len(FACES)], 9 + 7 * seed % 16  # each of 9 to 24 once in 16 pages
    font, heading = (
        ImageFont.truetype(FONTS / f"{name}.ttf", size) for name, size in ((face, pixels), ("DejaVuSans-Bold", 26))
    )
    pen.text((40, 24), " ".join(rng.choice(WORDS, 4)).title(), ink, heading)
    step = round(1.5 * pixels)
    bottom = int(rng.integers(380, 560))
    for left, right in ((40, 610), (680, 1248)):
        for top in range(84, bottom, step):
            _line(pen, rng, (left, top, right), font, ink, whole=rng.random() < 0.85)
    top = bottom + 30
    columns = int(rng.integers(3, 6))
    for row in range(min((SIZE[1] - 90 - top) // (step + 8), 6)):
        for column in range(columns):
            x, y = 40 + column * 700 // columns, top + row * (step + 8)
            pen.rectangle((x, y, x + 700 // columns, y + step + 8), outline=line)
            word = str(rng.choice(WORDS))
            if pen.textlength(word, font) < 700 // columns - 12:
                pen.text((x + 6, y + 4), word, ink, font)
    for number in range(3):
        word, x, y = str(rng.choice(WORDS)).title(), 800 + 150 * number, top + 20
        colour = [(40, 90, 200), (30, 130, 76), (180, 50, 40)][number]
        pen.rounded_rectangle((x, y, x + 136, y + 2 * pixels + 8), 8, fill=colour)
        if pen.textlength(word, font) < 130:
            pen.text((x + 68, y + pixels + 4), word, (255, 255, 255), font, anchor="mm")
    return page


def _line(pen: ImageDraw.ImageDraw, rng: np.random.Generator, place: tuple[int, int, int], font: ImageFont.FreeTypeFont,
          ink: tuple[int, int, int], whole: bool) -> None:  # fmt: skip
    left, top, right = place
    text, end = "", right if whole else left + (right - left) // 2
    while pen.textlength(longer := f"{text} {rng.choice(WORDS)}".strip(), font) < end - left:
        text = longer
    pen.text((left, top), text, ink, font)


def read(picture: Image.Image) -> Counter[str]:
    """Words of at least three letters that tesseract finds, and how often."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        picture.save(file.name)
        command = ["tesseract", file.name, "-", "--psm", "3"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_THREAD_LIMIT": "1"}
        )
    return Counter(word for word in done.stdout.split() if len(word) > 2)


def legibility(seed: int) -> dict[tuple[float, str], float]:
    """For one page, the share of the words read in the whole page that are still read, by share of the tokens and way."""
    torch.set_num_threads(1)
    page = draw_page(seed)
    words = read(page)
    plain = qlip.QlipImageProcessor(size=None)
    whole = int(np.prod(plain.grid(page.height, page.width)))
    found = {}
    for share in SHARES:
        for way, options in WAYS.items():
            asked = plain.with_options(**{"max_tokens": int(share * whole), **options})
            view, leaves = asked.view_and_leaves(page)
            assert len(leaves) <= share * whole
            rebuilt = qlip.rebuild(view, leaves).resize(page.size, Image.Resampling.BICUBIC)
            again = read(rebuilt)
            found[share, way] = sum(min(count, again[word]) for word, count in words.items()) / words.total()
    return found


@dataclass(frozen=True)
class Legibility:
    """Every page's share of words, by share of the tokens and way."""

    pages: list[dict[tuple[float, str], float]]

    def mean(self, share: float, way: str, less: str | None = None) -> Estimate:
        """The mean over pages in percent, or that of the paired difference, with its interval."""
        values = np.array([100 * (page[share, way] - (page[share, less] if less else 0)) for page in self.pages])
        return estimate(values.mean(), draw_counts(("",) * len(values)) @ values / len(values))

    def rows(self) -> Iterator[list[str]]:
        """Lines of the table."""
        for share in SHARES:
            for way in WAYS:
                less = "" if way == "grid scaled down" else interval(self.mean(share, way, "grid scaled down"), "+")
                yield [f"{share:.0%}", way, interval(self.mean(share, way)), less]


def interval(value: Estimate, sign: str = "") -> str:
    """A number and its 95 % interval."""
    return f"{value.value:{sign}.0f} [{value.low:{sign}.0f}, {value.high:{sign}.0f}]"


def draw(text: Legibility, groups: Mapping[str, list[tuple[float, Estimate]]], stock: Estimate) -> Figure:
    """Words read over the share of tokens, and answers of the pocket model over tokens."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, way in enumerate(WAYS):
        found = [text.mean(share, way) for share in SHARES]
        values = np.array([each.value for each in found])
        ends = np.abs(np.array([(each.low, each.high) for each in found]).T - values)
        x = 100 * np.array(SHARES) + 0.5 * (number - 2)
        left.errorbar(x, values, ends, fmt="o-", ms=4, lw=1.4, capsize=2, color=COLOURS[way], label=way)
    left.set(xlabel="tokens, % of the whole grid", ylabel="words still read, %")
    left.set_title("pages of text", loc="left", fontsize=10)
    for (name, points), colour in zip(groups.items(), ("#c0392b", "#888888", "#222222", "#6a4fb3"), strict=False):
        values = np.array([each.value for _, each in points])
        ends = np.abs(np.array([(each.low, each.high) for _, each in points]).T - values)
        right.errorbar(
            [tokens for tokens, _ in points], values, ends, fmt="s-", ms=4, lw=1.4, capsize=2, color=colour, label=name
        )
    right.axhline(stock.value, color="#c0392b", ls=":", lw=1, label="stock crop, 64 tokens")
    right.set(xlabel="image tokens", ylabel="vstar-pocket, % right")
    right.set_title("small objects on quiet ground", loc="left", fontsize=10)
    for panel in (left, right):
        panel.grid(alpha=0.25)
        panel.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


def pocket() -> tuple[list[list[str]], dict[str, list[tuple[float, Estimate]]], Estimate]:
    """Table and curves of the sweep, and the stock model."""
    run_sweep(SweepConfig(sweep=ROOT / "qlip/configs/sweeps/pocket-budgets.yaml"))
    (group,) = group_results(find_results(ROOT / "results/pocket-budgets"))
    stock = next(iter(group.baselines.values()))
    named: dict[str, list[Result]] = {}
    for run in sorted(group.cells, key=lambda run: run.cell.max_tokens or 0):
        cell = run.cell
        name = (
            "grid scaled down"
            if cell.criterion == "uniform"
            else "prune"
            if cell.fit == "prune"
            else f"scale, alpha {cell.alpha:g}"
        )
        named.setdefault(name, []).append(run)
    named = dict(sorted(named.items()))
    rows, curves = [], {}
    for name, runs in named.items():
        curves[name] = [(float(np.mean([record["tokens"] for record in run.records])), run.score) for run in runs]
        for run, (tokens, score) in zip(runs, curves[name], strict=True):
            grid = next(other for other in named["grid scaled down"] if other.cell.max_tokens == run.cell.max_tokens)
            gap = "" if run is grid else interval(compare(group.benchmark, run.records, grid.records)[run.primary], "+")
            rows.append([str(run.cell.max_tokens), name, f"{tokens:.0f}", interval(score), gap])
    return sorted(rows, key=lambda row: int(row[0])), curves, stock.score


def costs(folder: Path | None) -> str:
    """What settings cost on photographs, with LLaVA-1.5's geometry."""
    files = list_pictures(str(folder))[:32] if folder else []
    pictures = [read_image(file) for file in files] or [
        Image.fromarray(getattr(_report.skimage.data, name)()) for name in _report.PHOTOGRAPHS
    ]
    settings = [
        ("`convert(model, processor)`: 336 px, at most 576", {"size": 336, "max_tokens": 576}),
        ("the README's: 672 px, at most 576", {"size": 672, "max_tokens": 576}),
        ("336 px, alpha 0.1", {"size": 336, "alpha": 0.1}),
        ("672 px, alpha 0.3", {"size": 672, "alpha": 0.3}),
        ("672 px, alpha 1.0", {"size": 672, "alpha": 1.0}),
        ("the paper's cover of roots: 672 px, alpha 0.3", {"size": 672, "alpha": 0.3, "cover": "roots"}),
    ]
    rows = []
    for name, options in settings:
        counts = [qlip.QlipImageProcessor().count_tokens(picture, **options)[0] for picture in pictures]
        tenth, half, most = np.quantile(counts, (0.1, 0.5, 0.9))
        dearer = sum(count > 576 for count in counts)
        rows.append([name, f"{tenth:.0f} / {half:.0f} / {most:.0f}", f"{dearer} of {len(counts)}"])
    return _report.table(["settings", "tokens at 10 / 50 / 90 %", "dearer than stock (576)"], rows)


def main() -> None:
    """Draw, read, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=24, help="pages that are drawn and read")
    parser.add_argument(
        "--photographs",
        type=Path,
        help="folder of the photographs for the table of costs; four of scikit-image's if not given",
    )
    args = parser.parse_args()
    if shutil.which("tesseract") is None:
        parser.error("tesseract: not on the path; on Debian, apt-get install tesseract-ocr")
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        text = Legibility(list(workers.map(legibility, range(args.pages))))
    head = ["tokens", "way", "words still read, %", "less the grid scaled down"]
    intro = f"{args.pages} pages of {SIZE[0]} x {SIZE[1]} pixels, {92 * 58:,} tokens of 14 pixels; means over pages, 95 % intervals, differences paired."
    _report.write_section("text", f"{intro}\n\n{_report.table(head, list(text.rows()))}", PAGE)
    rows, curves, stock = pocket()
    head = ["budget", "way", "tokens used", "right, %", "less the grid scaled down"]
    intro = f"vstar-pocket, 300 questions, native size; the stock model's square crop, 64 tokens: {interval(stock)}."
    _report.write_section("objects", f"{intro}\n\n{_report.table(head, rows)}", PAGE)
    _report.write_section("costs", costs(args.photographs), PAGE)
    draw(text, curves, stock).savefig(FIGURE, dpi=110)


if __name__ == "__main__":
    main()
