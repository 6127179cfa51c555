"""The one main: verbs, programs, errors, configurations by name, and that nothing imports torch before it must."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qlip import configs
from qlip._version import __version__
from qlip.cli import PROGRAMS, VERBS, main

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "lightning", "transformers", "datasets", "matplotlib")
QUICK = [["--version"], ["--help"], ["zoo", "--help"], ["zoo", "list"], [], ["no-such-verb"]]


@pytest.mark.parametrize("args", [*QUICK, *([*verb.split(), "--help"] for verb in VERBS)], ids=" ".join)
def test_what_computes_nothing_imports_nothing_heavy(args, tmp_path):
    code = (
        "import json, sys\nfrom qlip.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit: pass\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"qlip {__version__}\n"


@pytest.mark.parametrize("prog", PROGRAMS)
@pytest.mark.parametrize("args", [["frobnicate"], []], ids=["unknown", "none"])
def test_a_verb_that_is_not_there_is_one_line_with_those_that_are(prog, args, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(args, prog)
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert line.startswith(f"{prog}: {'got' if args else 'no verb'}")
    assert all(verb in line for verb in PROGRAMS[prog])


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_the_scripts_offer_their_own_verbs_under_their_own_name(script, tmp_path):
    done = subprocess.run([sys.executable, ROOT / script, "zoo", "list"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script}: got 'zoo list'; takes {', '.join(PROGRAMS[script])}.")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["zoo", "pull", "x", "--colour", "red"], "unrecognized arguments: --colour red. See qlip zoo pull --help"),
        (["vqa", "--benchmark", "pope"], "the following arguments are required: vqa.model. See qlip vqa --help"),
        (["vqa", "--benchmark=pope", "--model=m", "--alpha=high"], "alpha"),
        (["fit", "--model.gama=2"], "unrecognized arguments: --model.gama=2. See qlip fit --help"),
        (["fit", "--data.merge=often"], "data.merge"),
    ],
)
def test_options_that_cannot_be_understood_are_named(args, message, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["qlip"])
    with pytest.raises(SystemExit) as stopped:
        main(args)
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert err.startswith("qlip: ")
    assert message in err
    assert "usage:" not in err


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        (["fit", "--model.backbone=random:64x1"], "model: {lr: null}"),
        (["fit", "--model.backbone=random:64x1"], "data: {root: null}"),
        (["vqa", "--benchmark=pope", "--model=m"], "alpha: null"),
        (["show", "a.png"], "criterion: null"),
        (["tune", "photos"], "out: null"),
        (["zoo", "pull", "name"], "root: null"),
    ],
)
def test_null_is_refused_where_an_option_takes_none(verb, option, tmp_path, capsys, monkeypatch):
    """A parser takes null for "not given", unless it is told not to."""
    monkeypatch.setattr("sys.argv", ["qlip"])
    file = tmp_path / "options.yaml"
    file.write_text(option)
    with pytest.raises(SystemExit) as stopped:
        main([*verb, f"--config={file}"])
    assert stopped.value.code == 2
    assert re.search(rf"{option.split(':')[-2].strip(' {')}\": .*None", capsys.readouterr().err.replace("\n", " "))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["vqa", "--benchmark=gqa", "--model=m"], "qlip: benchmark: got 'gqa'; known are vstar"),
        (
            ["vqa", "--benchmark=vstar-pocket", "--model=m", "--baseline=own", "--weighting=area", "--fit=scale"],
            "qlip: baseline: got 'own' with fit, weighting; the stock model takes none of them",
        ),
        (["sweep", "pockte"], "qlip: sweep: got 'pockte', which is no file; .*pocket-weighting$"),
        (["fit", "--config", "quikstart"], "qlip: config: got 'quikstart', which is no file; .*paper, quickstart$"),
        (["fit", "--model.backbone=random:64x1", "--data.merge=2"], "qlip: merge: got 2.0; takes a probability"),
        (["fit", "--model.backbone=random:64x1", "--trainer.devices=0"], "qlip: .*devices"),
        (["fit", "--ckpt_path=last"], "qlip: ckpt_path: got 'last', but there is no run under"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["qlip"])
    with pytest.raises(SystemExit, match=message) as stopped:
        main(args)
    assert "\n" not in str(stopped.value)
    assert "Without a network" not in str(stopped.value)


def test_options_may_stand_before_the_verb_of_train_py(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    (tmp_path / "all.yaml").write_text("fit:\n  data:\n    root: samples\n")
    with pytest.raises(SystemExit) as stopped:
        main(["--config", str(tmp_path / "all.yaml"), "fit", "--print_config"], "train.py")
    assert stopped.value.code == 0
    assert "root: samples" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["recipe", "sweep"])
def test_every_configuration_is_found_by_its_name_and_by_its_old_path(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = "configs" if kind == "recipe" else "configs/sweeps"
    for name in configs.names(kind):
        found = configs.find(name, kind)
        assert found.is_file()
        assert found == configs.find(f"{name}.yaml", kind) == configs.find(f"{folder}/{name}.yaml", kind)


def test_a_file_of_the_users_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    mine = tmp_path / "configs" / "quickstart.yaml"
    mine.write_text("")
    assert configs.find("configs/quickstart.yaml", "recipe").resolve() == mine
    assert configs.find("quickstart", "recipe") == configs.FOLDER / "quickstart.yaml"


@pytest.mark.parametrize(
    "name", ["elsewhere/configs/paper.yaml", "pocket", "configs/pocket.yaml", "", ".", "paper.yml"]
)
def test_what_is_neither_a_file_nor_a_name_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"config: got .*; takes a YAML file, or the name of one .*: paper, quick"
    ):
        configs.find(name, "recipe")


@pytest.mark.parametrize("option", [["--config", "quickstart"], ["--config=quickstart"], ["-c", "quickstart"]], ids=str)
def test_a_recipe_by_its_name(option, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["qlip"])
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *option, "--print_config"])
    assert stopped.value.code == 0
    assert "backbone: pocket-clip" in capsys.readouterr().out


def test_a_sweep_by_its_name(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    main(["sweep", "pocket", "--dry-run", "true"])
    assert "0 of 27 cells done" in capsys.readouterr().out


def test_lightning_says_a_thing_once(tmp_path):
    (tmp_path / "loud.py").write_text(
        "from lightning.fabric.utilities.seed import seed_everything\ndef run(args, prog): seed_everything(0)\n"
    )
    code = "from qlip.cli import _run; _run('loud', [], 'qlip', 'fit')"
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout + done.stderr).count("Seed set to 0") == 1
