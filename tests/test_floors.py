"""The floors of the package: which part may import which. Reads the source; nothing is imported."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qlip"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the ground up. A file may import its own part and the parts of lower floors; parts of one floor do not meet.
FLOORS = [
    {"_version"},
    {"core"},
    {"files", "configs"},
    {"structured"},
    {"options"},
    {"images"},
    {"shipped"},
    {"towers"},
    {"zoo"},
    {"encoder"},
    {"families"},
    {"viz"},
    {"conversion"},
    {"data"},
    {"training", "evaluation"},
    {"tools"},
    {"__init__"},
    {"help"},
    {"cli"},
    {"__main__"},
]
AROUND = {"recipes", "tests", "benchmarks", "examples", "train", "evaluate"}  # in a clone, but not in the package
HEIGHT = {part: height for height, floor in enumerate(FLOORS) for part in floor}


def part_of(module: str) -> str:
    """``qlip.core.patches`` -> ``core``; the package itself -> ``__init__``."""
    return module.split(".")[1] if "." in module else "__init__"


def name_of(path: Path) -> str:
    """Dotted name of a file's module."""
    parts = ["qlip", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in the file, as written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def ours(path: Path) -> set[str]:
    return {module for module in imports(path) if module.split(".")[0] == "qlip"}


@pytest.mark.parametrize("path", FILES, ids=[name_of(path) for path in FILES])
def test_a_file_imports_only_its_own_part_and_lower_floors(path):
    part = part_of(name_of(path))
    for module in ours(path):
        other = part_of(module)
        assert other == part or HEIGHT[other] < HEIGHT[part], f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda path: path.stem)
def test_core_needs_torch_alone(path):
    loops = {"compiled": {"numpy"}, "kernels": {"numpy", "numba"}}.get(path.stem, set())
    outside = {module.split(".")[0] for module in imports(path)} - {"qlip", "torch"} - loops
    assert outside <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", FILES, ids=[name_of(path) for path in FILES])
def test_the_package_needs_nothing_of_the_repository_around_it(path):
    assert not {module.split(".")[0] for module in imports(path)} & AROUND


def test_no_file_reaches_itself():
    edges = {module: ours(path) & MODULES.keys() - {module} for module, path in MODULES.items()}
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for other in sorted(edges[module]):
                walk(other, (*trail, module))
            done.add(module)

    for module in edges:
        walk(module, ())


def test_every_part_has_a_floor():
    assert {part_of(module) for module in MODULES} <= HEIGHT.keys()
    assert "core" in {part_of(module) for module in MODULES}


@pytest.mark.parametrize("path", FILES, ids=[name_of(path) for path in FILES])
def test_files_and_functions_stay_short(path):
    source = path.read_text()
    assert source.count("\n") <= 350
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
