"""The notebook runs from top to bottom, and is kept without its outputs."""

import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs the extra qlip[dev]")
nbformat = pytest.importorskip("nbformat", reason="needs the extra qlip[dev]")

ROOT = Path(__file__).parents[1]
PATH = ROOT / "examples" / "first_steps.ipynb"


def said(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_notebook_runs_and_converting_helps():
    notebook = nbformat.read(PATH, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    pictures = sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    assert pictures == 4
    (budget,) = [line for line in said(code[3]).splitlines() if "max_tokens" in line]
    counts = [int(count) for count in re.findall(r"\d+", budget.partition("[")[2])]
    assert len(counts) == 3
    assert all(254 <= count <= 256 for count in counts)
    answers = [line.replace(",", "").split() for line in said(code[5]).splitlines() if "converted" in line]
    right = [(words[0] == words[5], words[0] == words[-1]) for words in answers]
    assert len(right) == 8
    assert sum(new for _, new in right) > sum(old for old, _ in right)
