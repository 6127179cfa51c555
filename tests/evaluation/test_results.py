"""Results on disk: read once into the dataclass they describe, old files included, damaged ones by name."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from qlip.core.names import TableMode
from qlip.evaluation import cell as cells
from qlip.evaluation import config as configs
from qlip.evaluation.bias_points import BiasPoint, read_points
from qlip.evaluation.cell import Cell
from qlip.evaluation.names import BiasPosition
from qlip.evaluation.report.figures import POSITIONS
from qlip.evaluation.results import PREDICTIONS, RESULT, find_results, read_result
from qlip.zoo.resolve import PositionName
from tests.evaluation.fake_answers import make_run


def rewrite(root, **changed):
    """A run whose result has other fields of its cell; None takes one away."""
    path = make_run(root, 0.5, 40, size=448, criterion="entropy", cover="full") / RESULT
    values = json.loads(path.read_text())
    config = values["config"] | {name: value for name, value in changed.items() if value is not None}
    values["config"] = {name: value for name, value in config.items() if changed.get(name, "") is not None}
    path.write_text(json.dumps(values))
    return path


def test_a_result_gives_back_the_cell_that_was_measured(tmp_path):
    make_run(tmp_path, 0.5, 40, size=None, criterion="random", max_tokens=64, seed=3)
    (result,) = find_results(tmp_path)
    fields = {"benchmark": "vstar", "model": "made-up/llava-1.5-13b"}
    assert result.cell == Cell(**fields, size=None, criterion="random", max_tokens=64, seed=3)
    assert result.size == "native"
    assert (result.data["questions"], result.unparsed, result.primary) == (60, 0, "accuracy")
    assert result.score == result.scores["accuracy"]
    assert result.percent == pytest.approx(40, abs=0.2)


def test_a_result_that_0_1_0_wrote_is_read():
    result = read_result(Path(__file__).parent / "result-0.1.0.json")
    assert result.cell == Cell(
        benchmark="vstar-pocket", model="pocket-llava", size=224, crop="patch", cover="roots", limit=4
    )
    assert (result.score.value, round(result.percent), result.data["questions"]) == (25, 413, 4)


@pytest.mark.parametrize(("name", "then"), [("cover", "roots"), ("weighting", None)])
def test_results_from_before_something_could_be_chosen_are_read(name, then, tmp_path):
    rewrite(tmp_path, **{name: None})
    (result,) = find_results(tmp_path)
    assert getattr(result.cell, name) == then


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"colour": "red"}, "config: got unknown colour in {}; takes baseline, position"),
        ({"alpha": None, "seed": None}, "config: got missing alpha, seed in {}; takes baseline, position"),
        ({"colour": "red", "model": None}, "config: got unknown colour and missing model in {}; takes"),
        ({"benchmark": "gqa"}, "config: {} holds what is not taken: benchmark: got 'gqa'; known are vstar"),
        ({"model": 3}, "config: {} holds what is not taken: config: model: got 3; takes text"),
        ({"size": "big"}, "config: size: got 'big'; takes a whole number or 'model' or null"),
        ({"crop": "round"}, "config: crop: got 'round'; takes 'patch', 'square', 'units'"),
        ({"alpha": True}, "config: alpha: got True; takes a number"),
    ],
)
def test_what_is_wrong_with_a_result_is_named_with_its_file(changed, message, tmp_path):
    path = rewrite(tmp_path, **changed)
    with pytest.raises(ValueError, match=re.escape(message.format(path))):
        find_results(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (RESULT, "{", "damaged, it is no JSON of ours"),
        (RESULT, '{"config": {}}', "missing data, primary, scores, tokens, unparsed"),
        (PREDICTIONS, "{}\n", "line 1: missing answer"),
        (PREDICTIONS, "", "holds 0 of 60 answers"),
        (PREDICTIONS, None, "but no predictions.jsonl"),
    ],
)
def test_a_damaged_run_is_left_out_and_named(name, text, message, tmp_path, caplog):
    make_run(tmp_path, 0.5, 40)
    path = make_run(tmp_path, 0.5, 40, alpha=0.5) / name
    path.unlink() if text is None else path.write_text(text)
    (whole,) = find_results(tmp_path)
    assert whole.cell.alpha == 0.1
    (left_out,) = caplog.messages
    assert str(path.parent) in left_out
    assert message in left_out


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "scores",
            {"accuracy": {"value": 1, "se": 0, "low": "0", "high": 2}},
            "scores: accuracy: low: got '0'; takes a number",
        ),
        ("data", {"origin": "here"}, "data: missing questions, revision, sha256"),
        ("tokens", {"percent": True}, "tokens: percent: got True; takes a number"),
        ("primary", "f1", "primary: got 'f1', which is none of its scores"),
        ("unparsed", None, "unparsed: got None; takes a number"),
    ],
)
def test_fields_of_a_result_have_their_types(field, value, message, tmp_path):
    path = make_run(tmp_path, 0.5, 40) / RESULT
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        read_result(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"position": "spline"}, "row 1: position: got 'spline'; takes 'mlp', 'bicubic'"),
        ({"interpolation_bias": None}, "row 1: interpolation_bias: got None; takes null for 'zero' alone"),
        ({"size": 336.5}, "row 1: size: got 336.5; takes a whole number"),
        ({"cosines": [0.5, "1"]}, "row 1: cosines: got '1'; takes numbers"),
    ],
)
def test_what_is_wrong_with_a_bias_is_named(changed, message, tmp_path):
    row = {"size": 336, "position": "mlp", "quadtree": True, "cosine": 1, "interpolation_bias": 0.5, "tokens": 9}
    (tmp_path / "bias.json").write_text(json.dumps({"rows": [row]}))
    assert read_points(tmp_path / "bias.json") == [BiasPoint(**row)]
    (tmp_path / "bias.json").write_text(json.dumps({"rows": [row | changed]}))
    with pytest.raises(ValueError, match=f"^{tmp_path / 'bias.json'}: {message}"):
        read_points(tmp_path / "bias.json")
    (tmp_path / "bias.json").write_text("[]")
    with pytest.raises(ValueError, match="has no rows"):
        read_points(tmp_path / "bias.json")


def test_the_dataclasses_of_the_command_line_load_no_torch():
    heavy = "{'torch', 'numpy', 'transformers', 'lightning', 'datasets', 'matplotlib'}"
    code = f"import sys, qlip.evaluation.cell, qlip.evaluation.config; print(*({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def described(kind):
    """The docstring of each field that a class adds to its parents'."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    pairs = zip(tree.body, tree.body[1:], strict=False)
    return {
        field.target.id: text.value.value
        for field, text in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


@pytest.mark.parametrize(
    "kind", [cells.Vision, cells.Cell, cells.Run, configs.BiasConfig, configs.SweepConfig, configs.ReportConfig]
)
def test_every_option_has_its_help(kind):
    assert described(kind).keys() == inspect.get_annotations(kind).keys()


def test_every_position_has_a_colour():
    assert POSITIONS.keys() >= {*get_args(TableMode), *get_args(BiasPosition), *get_args(PositionName)}
