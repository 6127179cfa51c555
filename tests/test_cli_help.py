"""The texts of ``--help``: what the parsers say, in an order and a width that can be read."""

import re
from importlib.metadata import version
from typing import get_args

import pytest

from qlip import configs
from qlip.cli import PROGRAMS, VERBS, main
from qlip.core.criteria import CRITERIA
from qlip.core.position import TableMode
from qlip.evaluation.benchmarks import BENCHMARKS
from qlip.evaluation.benchmarks.base import Scoring, Style
from qlip.help import FOLDER, LIGHTNING, read_help
from qlip.help.write import texts


@pytest.fixture(scope="module")
def written():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["qlip"])  # Lightning warns of arguments from two sides
        return texts()


def help_of(verb, capsys, prog="qlip"):
    main([*verb.split(), "--help"], prog)
    return capsys.readouterr().out


def test_the_texts_are_those_of_the_parsers(written):
    kept = {path.name: path.read_text() for path in FOLDER.glob("*.txt")}
    if f"lightning {version('lightning')}." not in " ".join(kept[LIGHTNING].split()):
        kept.pop(LIGHTNING), written.pop(LIGHTNING)  # another Lightning is installed than the text says it is from
    assert kept == written, "run: python -m qlip.help.write"


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_into_80_columns_and_names_the_program(verb, capsys):
    for prog in (prog for prog, verbs in PROGRAMS.items() if verb in verbs):
        text = help_of(verb, capsys, prog)
        assert text.startswith(f"usage: {prog} {verb} ")
        assert max(map(len, text.splitlines())) <= 80
        assert not re.search(r"\{prog\}|lightning\.txt|``|==SUPPRESS==", text)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_its_default_or_that_it_is_required(verb):
    entries = re.split(r"\n  (?=\S)|\n\n", read_help(verb, "qlip"))
    options = [entry for entry in entries if "--" in entry.split("\n")[0] and not entry.startswith(("usage", "-h"))]
    silent = [entry for entry in options if not re.search(r"\((default:.*|required)\)$", entry, re.DOTALL)]
    assert len(options) > 1
    assert {entry.split()[0] for entry in silent} <= {"-c,", "--config", "--print_config"}


def test_our_own_options_come_before_lightnings(capsys):
    text = help_of("fit", capsys)
    parts = ("--config", "--ckpt_path", "--model.", "--data.", "--export.", "--preview.", "--checkpoint.", "--trainer.")
    places = [text.index(f"  {part}") if part != "--config" else text.index(part) for part in parts]
    assert places == sorted(places)
    assert text.rindex("--preview.") < text.index("--checkpoint.")
    assert text.rindex("\n  --checkpoint.") < text.index("\n  --trainer.")


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("vqa", [*BENCHMARKS, *CRITERIA, *get_args(TableMode), "solve", *get_args(Style), *get_args(Scoring)]),
        ("bias", [*CRITERIA, "mlp", "bicubic", "bilinear", "zero", "pocket"]),
        ("sweep", configs.names("sweep")),
        ("fit", [*configs.names("recipe"), "imagenette", "samples", "pocket", "mse", "image_embeds", "solved"]),
    ],
)
def test_what_an_option_takes_is_listed(verb, names, capsys):
    words = set(re.findall(r"[\w-]+", help_of(verb, capsys)))
    assert set(names) <= words


def test_the_overview_lists_every_verb_once(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    assert [line.split("  ")[1] for line in text.splitlines() if re.match(r"  \w", line)] == list(VERBS)
    assert max(map(len, text.splitlines())) <= 80
    main(["zoo", "--help"])
    assert "fit" not in capsys.readouterr().out.split()
