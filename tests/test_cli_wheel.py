"""The installed product: a wheel in a clean folder, its command run from another one."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from qlip._version import SUPPORTED, __version__
from qlip.cli import VERBS

ROOT = Path(__file__).parents[1]
PARTS = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel, built from a copy: a build leaves folders behind that the next one would pick up."""
    copy = tmp_path_factory.mktemp("source")
    for part in PARTS:
        shutil.copy(ROOT / part, copy)
    shutil.copytree(ROOT / "qlip", copy / "qlip", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "-w", copy / "dist", copy], check=True, capture_output=True
    )
    (built,) = (copy / "dist").glob("qlip-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel in it and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run([*command, "--disable-pip-version-check"], check=True, capture_output=True)
    return target


@pytest.fixture
def qlip(installed, tmp_path):
    """Runs a program of Python with the installed package, from an empty folder."""

    def run(*command) -> str:
        env = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", "COLUMNS": "80"}
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    files = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in files} == {"qlip", f"qlip-{__version__}.dist-info"}
    source = {path.relative_to(ROOT).as_posix() for path in (ROOT / "qlip").rglob("*") if path.is_file()}
    assert {name for name in source if "__pycache__" not in name} <= files


def test_what_computes_nothing(qlip, installed):
    script = installed / "bin" / "qlip"
    assert qlip(script, "--version") == f"qlip {__version__}\n"
    assert "Registered names" in qlip(script, "zoo", "list")
    assert qlip("-c", "import qlip; print(qlip.__file__)").strip() == str(installed / "qlip" / "__init__.py")
    for verb in VERBS:
        assert f"usage: qlip {verb}" in qlip(script, *verb.split(), "--help")


def test_recipes_sweeps_and_the_papers_tables_come_along(qlip):
    code = """
import sys
from qlip.cli import main
main(["sweep", "pocket", "--dry_run", "true"])
main(["sweep", "configs/sweeps/pocket.yaml", "--dry_run", "true", "--cells", "0/9"])
sys.argv = ["qlip"]  # Lightning warns of arguments from two sides
for args in (["fit", "--config", "quickstart", "--print_config"], ["report", "."]):
    try:
        main(args)
    except SystemExit as stopped:
        print("stopped:", stopped.code)
from pathlib import Path
from qlip.evaluation.report.paper import read_sweeps
from qlip.evaluation.report.report import ReportConfig
print("paper:", [sweep.number for sweep in read_sweeps(ReportConfig(Path()).paper)])
"""
    out = qlip("-c", code)
    assert "0 of 27 cells done" in out
    assert "0 of 3 cells done" in out
    assert "backbone: pocket-clip" in out
    assert "stopped: 0\nstopped: qlip: dir: got ., which holds no result.json" in out
    assert "paper: [3, 4, 5, 6]" in out


def test_the_supported_range_is_stated_once_and_the_same_everywhere():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = dict(re.findall(r"^(\w+)>=([\d.]+)$", setup["options"]["install_requires"], re.MULTILINE))
    readme = " ".join((ROOT / "README.md").read_text().split())
    project = (ROOT / "pyproject.toml").read_text()
    python = SUPPORTED["python"]
    assert setup["options"]["python_requires"] == f">={python}"
    assert f'python_version = "{python}"' in project
    assert f'target-version = "py{python.replace(".", "")}"' in project
    assert f"({python.replace('.', ', ')})" in (ROOT / "Makefile").read_text()
    assert f"Python >= {python} " in readme
    packages = {name: oldest for name, oldest in SUPPORTED.items() if name != "python"}
    assert packages == {name: needed[name] for name in packages}
    assert all(f"{name} >= {packages[name]} " in readme for name in ("torch", "transformers"))
