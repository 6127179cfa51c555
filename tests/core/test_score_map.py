"""A map from outside decides where the quadtree looks; its content only where the map is level."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlip import QlipImageProcessor, Quadtree
from qlip.core.score_map import largest_inside
from tests.core import reference


def test_a_block_scores_its_largest_value_inside():
    score = torch.rand(7, 11)
    rows, cols = [i / 5 for i in range(6)], [i / 3 for i in range(4)]
    got = largest_inside(score, rows, cols)
    for i in range(5):
        for j in range(3):
            touched = [
                score[y, x]
                for y in range(7)
                for x in range(11)
                if y + 1 > rows[i] * 7 + 1e-6 and y < rows[i + 1] * 7 - 1e-6
                and x + 1 > cols[j] * 11 + 1e-6 and x < cols[j + 1] * 11 - 1e-6
            ]  # fmt: skip
            assert got[i, j] == max(touched)
    assert torch.equal(largest_inside(got, rows, cols), got)  # at its own resolution nothing changes
    assert largest_inside(score, [-0.5, -0.1, 0.5], [0, 1]).tolist() == [[0.0], [score[:4].max()]]


@settings(max_examples=60, deadline=None)
@given(
    h=st.integers(1, 20), w=st.integers(1, 20), seed=st.integers(0, 99), share=st.floats(0, 1), kinds=st.integers(1, 3)
)
def test_the_budget_is_exact_whatever_the_map(h, w, seed, share, kinds):
    image = reference.make_image(seed, 2, h, w)
    score = torch.randint(0, kinds, (5, 9), generator=torch.Generator().manual_seed(seed)).float()
    least = len(Quadtree(1e9, patch_size=2)(image))
    budget = max(int(least + share * (h * w - least)), 1)
    tree = Quadtree(max_tokens=budget, patch_size=2, score=score)
    leaves = tree(image)
    assert min(budget, h * w) - 2 <= len(leaves) <= budget
    assert (leaves.size**2).sum() == h * w


def test_what_the_map_marks_is_looked_at_first():
    image = torch.randn(3, 256, 256)  # everything is busy
    score = torch.zeros(16, 16)
    score[4, 9] = 1
    leaves = Quadtree(max_tokens=40, patch_size=8, score=score)(image)
    marked = [size for row, col, size in zip(*(x.tolist() for x in (leaves.row, leaves.col, leaves.size)), strict=True)
              if row // 2 == 4 and col // 2 == 9]  # fmt: skip
    assert marked == [1, 1, 1, 1]
    assert len(Quadtree(0.5, patch_size=8, score=score)(image)) == 40 - 24  # alpha is a threshold of the map


def test_a_level_map_leaves_the_choice_to_the_content():
    for seed in range(5):
        image = reference.make_image(seed, 4, 16, 12)
        for budget in range(20, 190, 17):
            plain = Quadtree(max_tokens=budget, patch_size=4)(image)
            level = Quadtree(max_tokens=budget, patch_size=4, score=np.full((3, 3), 0.5))(image)
            assert torch.equal(plain.geometry(), level.geometry())


def test_parents_split_before_their_children_whatever_the_content():
    """The content tree splits a parent before its children; a map must not tear that apart."""
    for seed in range(20):
        image = reference.make_image(seed, 2, 16, 16)
        score = torch.rand(4, 4, generator=torch.Generator().manual_seed(seed)).round(decimals=1)
        painted = torch.zeros(16, 16, dtype=torch.long)
        leaves = Quadtree(max_tokens=61, patch_size=2, score=score)(image)
        for row, col, size in zip(leaves.row, leaves.col, leaves.size, strict=True):
            painted[row : row + size, col : col + size] += 1
        assert (painted == 1).all()


@pytest.mark.parametrize("options", [{}, {"crop": "square"}, {"crop": "units"}, {"pad": "square"}, {"size": None}])
def test_a_processor_cuts_the_map_as_it_cuts_the_picture(options):
    """A map with one marked spot: the finest leaf of the prepared picture lies on that spot."""
    pixels = np.zeros((301, 499, 3), np.uint8)
    spot = (150, 260)  # row, column
    pixels[spot[0] - 3 : spot[0] + 3, spot[1] - 3 : spot[1] + 3] = 255
    score = np.zeros((301, 499))
    score[spot] = 1
    processor = QlipImageProcessor(224, quadtree=Quadtree(max_tokens=60)).with_options(**options)
    marked, leaves = processor.with_options(score=score).cut(pixels)
    flat = QlipImageProcessor(224, quadtree=Quadtree(max_tokens=60)).with_options(**options)
    bright = marked.floats.sum(0)
    row, col = divmod(int(bright.argmax()), bright.shape[1])
    inside = (
        (leaves.row * 14 <= row) & (row < (leaves.row + leaves.size) * 14)
        & (leaves.col * 14 <= col) & (col < (leaves.col + leaves.size) * 14)
    )  # fmt: skip
    assert leaves.size[inside].tolist() == [1]
    assert flat.cut(pixels)[1].grid == leaves.grid


def test_a_map_for_each_picture():
    processor = QlipImageProcessor(112, quadtree=Quadtree(max_tokens=30))
    picture, score = torch.rand(3, 112, 112), torch.rand(4, 4)
    both = processor([picture, picture], score=[score, None])
    assert torch.equal(both.geometry[:1, : both.num_tokens[0]], processor(picture, score=score).geometry)
    assert torch.equal(both.geometry[1:, : both.num_tokens[1]], processor(picture).geometry)
    with pytest.raises(
        ValueError, match="score: got 1 maps for 2 pictures; takes a list with a map, or None, for each"
    ):
        processor([picture, picture], score=score)


@pytest.mark.parametrize(
    ("score", "error", "message"),
    [
        (torch.zeros(3), ValueError, r"score: got torch.float32 of shape \(3,\); takes a map \(rows, columns\)"),
        (torch.zeros(0, 3), ValueError, r"score: got torch.float32 of shape \(0, 3\)"),
        (
            torch.tensor([[0.0, -1.0]]),
            ValueError,
            "score: got values from -1 to 0; takes finite values that are not neg",
        ),
        (torch.tensor([[0.0, torch.nan]]), ValueError, "score: got values from nan to nan"),
        (torch.tensor([[0.0, torch.inf]]), ValueError, "score: got values from 0 to inf"),
        ("saliency", TypeError, "score: got str; takes a map"),
        (torch.zeros(2, 2, dtype=torch.complex64), ValueError, "score: got torch.complex64"),
    ],
)
def test_bad_maps_are_refused(score, error, message):
    with pytest.raises(error, match=message):
        Quadtree(score=score)


def test_a_map_is_not_saved(tmp_path):
    processor = QlipImageProcessor(quadtree=Quadtree(score=torch.ones(2, 2)))
    with pytest.raises(TypeError, match="score: got a map, which belongs to one picture"):
        processor.save_pretrained(tmp_path)
    assert "score" not in QlipImageProcessor().to_dict()["quadtree"]
