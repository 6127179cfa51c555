"""What options take, wherever they are given."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

import qlip
from qlip import QlipImageProcessor, Quadtree
from qlip.core.rules import RULES, Number, check, suggestion

BAD = [math.nan, math.inf, -math.inf, -1, True, "0.3", [1], (448, 448), {}, 10**5000, torch.tensor(3), b"3", 1j]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("value", BAD, ids=range(len(BAD)))
def test_what_no_option_takes_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: got .*; takes "):
        check(name, value)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if isinstance(rule, Number)])
def test_the_ends_are_taken_and_what_is_beyond_them_is_not(name):
    rule = RULES[name]
    for end, beyond in ((rule.low, rule.low - 1), (rule.high, rule.high * 2 + 1)):
        value = float(end) if rule.fraction else int(end)
        assert check(name, value) == value
        with pytest.raises(ValueError, match=f"{name}: got"):
            check(name, type(value)(beyond))
    with nullcontext() if rule.none else pytest.raises(ValueError, match="got None"):
        assert check(name, None) is None


def test_fractions_of_whole_numbers_are_refused():
    for name in ("max_tokens", "size", "batch_size", "patch_size"):
        with pytest.raises(ValueError, match=rf"{name}: got 400\.5; takes a whole number"):
            check(name, 400.5)


def test_numbers_of_numpy_become_pythons_own():
    assert type(QlipImageProcessor(np.int64(336)).size) is int
    assert type(Quadtree(np.float32(0.5)).alpha) is float


@pytest.mark.parametrize("make", [lambda **o: Quadtree(**o), lambda **o: QlipImageProcessor().with_options(**o)])
def test_every_way_in_python_asks_the_table(make):
    for options in ({"alpha": math.nan}, {"alpha": "0.3"}, {"max_tokens": 400.5}, {"max_tokens": 0}, {"alpha": -1}):
        (name,) = options
        with pytest.raises(ValueError, match=f"{name}: got {options[name]!r}"):
            make(**options)


def test_names_are_suggested():
    assert suggestion("max_token", RULES) == "; did you mean 'max_tokens'?"
    assert suggestion("colour", RULES) == suggestion(3, RULES) == ""
    with pytest.raises(TypeError, match=r"options: got max_token; takes .*; did you mean 'max_tokens'"):
        QlipImageProcessor().with_options(max_token=400)
    with pytest.raises(ValueError, match=r"criterion: got 'derivativ'; .*; did you mean 'derivative'"):
        Quadtree(criterion="derivativ")


def test_a_number_in_place_of_a_quadtree_is_refused():
    with pytest.raises(TypeError, match=r"quadtree: got 0\.3; takes a Quadtree"):
        QlipImageProcessor(quadtree=0.3)
    with pytest.raises(TypeError, match=r"quadtree: got 0\.3; takes a Quadtree; convert\(..., alpha=0\.3\)"):
        qlip.convert(qlip.load_clip("random:64x1"), quadtree=0.3)


@pytest.mark.parametrize(
    "options", [{"mean": (0, 0)}, {"mean": (0, 0, math.nan)}, {"std": (1, 0, 1)}, {"std": (1, 1, math.inf)}]
)
def test_the_statistics_of_the_channels_are_finite(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}: got"):
        QlipImageProcessor(**options)


@pytest.mark.parametrize("options", [{"alpha": 0.1}, {"max_tokens": 8}])
def test_a_block_without_a_score_is_refused(options):
    image = torch.zeros(3, 56, 56)
    image[0, 3, 3] = math.nan
    for criterion in ("derivative", lambda blocks: blocks.amin((-3, -2, -1)) * torch.nan):
        with pytest.raises(ValueError, match="scored some blocks NaN"):
            Quadtree(criterion=criterion, **options)(image)
