"""Options in Python and on command lines: what is odd is refused by its name, and what is taken holds."""

import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from qlip import QlipImageProcessor, Quadtree
from qlip.cli import main
from qlip.core.rules import RULES, Number, check
from qlip.evaluation.cell import Cell, Run
from qlip.evaluation.config import BiasConfig
from qlip.structured import parse_json
from qlip.tools.config import CompareConfig, ShowConfig, TuneConfig
from qlip.training.data import QlipDataModule
from qlip.zoo.config import ZooConfig
from tests.robustness.campaign import Campaign
from tests.robustness.damage import odd_values, spoiled_text
from tests.robustness.test_pictures import uncovered
from tests.zoo.helpers import describe, tiny_position

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8))
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 600), st.floats(), st.floats(0, 2), st.text(max_size=8),
    st.sampled_from(["", "nan", "1e3", "full", "prune", "model", "uniform", "derivative", "patch", "square"]),
    st.sampled_from([2**70, 10**5000, np.float32(0.5), np.int64(7), np.float64("nan"), np.bool_(True), np.ones(2), 1j, b"x", object()]),
    st.lists(st.integers(-1, 3), max_size=4), st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
)  # fmt: skip


def right_number(name: str, given: Any, got: Any) -> str | None:
    """What is wrong with what a rule of numbers made of a value."""
    rule = RULES[name]
    if not isinstance(rule, Number) or got is None:
        return None
    fine = type(got) in (int, float) and rule.low <= got <= rule.high and got == given and not isinstance(given, bool)
    return None if fine and (rule.fraction or type(got) is int) else f"taken as {got!r}"


def drawn(random: Random) -> list[Any]:
    """Fifty odd values, as hypothesis draws them."""
    values: list[Any] = []

    @seed(random.randrange(2**63))
    @settings(max_examples=50, database=None, deadline=None, phases=[Phase.generate])
    @given(ODD)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    return values


def shown(name: str, value: Any) -> str:
    """An option and its value; Python refuses to write out a very large integer."""
    large = isinstance(value, int) and value.bit_length() > 999
    return f"{name}: {type(value).__name__} {'of many digits' if large else f'{value!r:.80}'}"


def test_rules(campaign: Campaign) -> None:
    for random in campaign.rounds(len(RULES)):
        name = list(RULES)[campaign.round % len(RULES)]
        for value in drawn(random):
            campaign.offer(shown(name, value), partial(check, name, value), [name], partial(right_number, name, value))


def processor(name: str, value: Any) -> QlipImageProcessor:
    """A processor with one option, where there is one of the name."""
    if name in ("mean", "std", "unit"):
        return QlipImageProcessor(**{name: value, "size": 56})
    if name in ("patch_size", "quadtree"):
        tree = Quadtree(patch_size=value) if name == "patch_size" else value
        return QlipImageProcessor(size=None, quadtree=tree)
    return QlipImageProcessor(size=56).with_options(**{name: value})


OPTIONS = ("alpha", "max_tokens", "criterion", "cover", "score", "fit", "size", "crop", "pad", "mean", "std", "unit", "patch_size", "quadtree", "max_token")  # fmt: skip


def test_processors(campaign: Campaign) -> None:
    for random in campaign.rounds(len(OPTIONS)):
        name = OPTIONS[campaign.round % len(OPTIONS)]
        for value in drawn(random):
            taken = campaign.offer(shown(name, value), partial(processor, name, value), [name])
            if taken is not None and taken.unit == 1:
                campaign.offer(
                    f"cut with {shown(name, value)}", partial(cut_with, taken), [name, "image: "], lambda got: got
                )


def cut_with(taken: QlipImageProcessor) -> str | None:
    """What is wrong with how a processor cuts a picture."""
    return uncovered(taken, PICTURE, taken.quadtree.max_tokens)


KINDS: dict[type, dict[str, Any]] = {
    Cell: {"benchmark": "pope", "model": "pocket-llava"},
    Run: {},
    ShowConfig: {},
    TuneConfig: {"images": "samples", "share": 0.5},
    CompareConfig: {},
    BiasConfig: {"images": "samples"},
    QlipDataModule: {},
}
FIELDS = {
    Cell: ("alpha", "max_tokens", "seed", "limit", "max_new_tokens", "size", "cover", "fit", "crop", "criterion", "benchmark", "weighting", "prompt_style", "scoring"),
    Run: ("batch_size", "workers"),
    ShowConfig: ("alpha", "max_tokens", "patch_size", "size", "cover", "fit"),
    TuneConfig: ("share", "budget", "limit", "seed", "workers"),
    CompareConfig: ("budgets",),
    BiasConfig: ("alpha", "limit", "sizes"),
    QlipDataModule: ("batch_size", "max_size", "workers", "val_sizes", "merge", "repeats", "val_limit"),
}  # fmt: skip


def test_dataclasses_of_options(campaign: Campaign) -> None:
    places = [(kind, name) for kind, names in FIELDS.items() for name in names]
    for random in campaign.rounds(len(places)):
        kind, name = places[campaign.round % len(places)]
        for value in drawn(random):
            fields = {**KINDS[kind], name: value} | ({"share": None} if (kind, name) == (TuneConfig, "budget") else {})
            what = f"{kind.__name__} {shown(name, value)}"
            campaign.offer(what, partial(kind, **fields), [name, name.removesuffix("s"), "budget"])


def test_fields_of_entries(campaign: Campaign) -> None:
    fields = vars(describe(tiny_position()))
    for random in campaign.rounds(len(fields)):
        name = list(fields)[campaign.round % len(fields)]
        for value in drawn(random):
            campaign.offer(f"entry {shown(name, value)}", partial(ZooConfig, **{**fields, name: value}), [name])


# what is typed: verb, its first words, its options with whether it is quick when they are taken
LINES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "show": (["show", "a.png", "--size=56"], ("size", "alpha", "max-tokens", "criterion", "cover", "fit", "patch-size", "model", "out")),
    "tune": (["tune", "pictures", "--workers=0", "--limit=1", "--share=0.5"], ("budget", "share", "seed", "model")),
    "sweep": (["sweep", "pocket"], ("cells", "gpus", "out", "data", "dry-run")),
    "report": (["report", "runs"], ("out", "paper")),
    "compare": (["compare", "pictures", "q.csv", "--model=nowhere"], ("budgets", "alpha", "size", "criterion", "cover", "fit", "batch-size", "workers", "limit", "max-new-tokens", "dtype", "out")),
    "vqa": (["vqa", "--benchmark=local", "--model=nowhere", "--data=pictures"], ("benchmark", "max-tokens", "size", "position", "crop", "scoring", "prompt-style", "batch-size", "devices", "weighting", "limit", "baseline", "seed")),
    "zoo show": (["zoo", "show", "x"], ("root",)),
    "zoo pull": (["zoo", "pull", "nowhere"], ("name", "root")),
}  # fmt: skip
TYPED = ("", "-1", "0", "nan", "inf", "1e400", "0x10", "1_0", "null", "true", "[]", "[1,2]", "{}", "{a: 1}", "x", "ü\u202e", "'", '"', "[", "{", "&a [*a]", "!!python/object/apply:os.system [touch {marker}]", "a: b: c", "9" * 1000, "../../x", "-", "--", "%s", "*", "\t", "a=b", "[" * 500)  # fmt: skip


@pytest.mark.parametrize("verb", LINES)
def test_command_lines(
    verb: str, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "argv", ["qlip"])
    words, options = LINES[verb]
    Path("pictures").mkdir()
    PICTURE.save("a.png")
    PICTURE.save("pictures/a.png")
    Path("q.csv").write_text("image,question\na.png,x\n")
    Path("pictures/questions.csv").write_text("image,question\na.png,x\n")
    for random in campaign.rounds(12 if verb != "tune" else 4):
        option, value = random.choice(options), random.choice(TYPED)
        if random.random() < 0.4:
            value = str(odd_values(random))[:3000].replace("\x00", "").encode(errors="replace").decode()
        args = [*words, f"--{option}={value.replace('{marker}', str(campaign.marker))}"]
        if random.random() < 0.2:
            given = {option.replace("-", "_"): odd_values(random)}
            Path("options.yaml").write_bytes(spoiled_text(given, "YAML", random, campaign.marker))
            args = [*words, "--config=options.yaml"]
        args += ["--dry-run=true"] if verb == "sweep" else []  # last, so that nothing is run for being asked twice
        what = f"qlip {' '.join(args)}"[:400]
        campaign.offer(
            what,
            lambda args=args: run(args, capsys),
            [option, option.replace("-", "_"), "options.yaml", *words[1:], "nowhere", value[:90]],
        )


def run(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Run a verb; its one line on stderr is raised as an error."""
    try:
        main(args)
    except SystemExit as stopped:
        if stopped.code in (None, 0):
            return
        text = stopped.code if isinstance(stopped.code, str) else capsys.readouterr().err
        if "Traceback" in text:
            raise RuntimeError(text) from stopped
        from qlip.structured import DamagedFileError

        parse = DamagedFileError(text)
        raise parse.with_traceback(ours()) from stopped


def ours() -> Any:
    """A traceback that ends in the package, as that of a line on stderr would."""
    try:
        parse_json("", "x")
    except ValueError as error:
        found = error.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    return found
