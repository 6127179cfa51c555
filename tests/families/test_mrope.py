"""Where leaves stand for Qwen-VL, on leaves small enough to check by hand."""

import pytest
import torch

from qlip.families.mrope import prompt_positions, sequence_ends, table_taps, windows

# rows 0-1: a leaf of 2 x 2 units and two single ones; row 2: three single ones
LEAVES = torch.tensor(
    [[0, 0, 2, 3, 3], [0, 2, 1, 3, 3], [1, 2, 1, 3, 3], [2, 0, 1, 3, 3], [2, 1, 1, 3, 3], [2, 2, 1, 3, 3]]
)
ROWS = [0.5, 0, 1, 2, 2, 2]
COLUMNS = [0.5, 2, 2, 0, 1, 2]


def test_leaves_stand_at_their_centres_and_text_goes_on_after_the_whole_grid():
    positions, following = prompt_positions([False] * 2 + [True] * 6 + [False], iter([LEAVES]))
    assert positions.dtype == torch.float32
    assert positions[:, :2].tolist() == [[0, 1]] * 3
    assert positions[:, 2:8].tolist() == [[2.0] * 6, [2 + row for row in ROWS], [2 + column for column in COLUMNS]]
    assert positions[:, 8].tolist() == [5, 5, 5]
    assert following == 6


def test_images_side_by_side_are_told_apart():
    positions, following = prompt_positions([True] * 12, iter([LEAVES, LEAVES]))
    assert positions[:, 6:].tolist() == (positions[:, :6] + 3).tolist()
    assert following == 6


def test_a_leaf_is_in_the_window_of_its_centre_and_windows_are_those_of_one_image():
    told = windows([LEAVES, LEAVES], side=2, patches=4)
    # windows of 2 x 2 units: the large leaf; the two on its right; two below; the corner
    assert told["window_index"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert told["cu_window_seqlens"].tolist() == [0, 4, 12, 20, 24, 28, 36, 44, 48]
    row = torch.tensor([[0, column, 1, 2, 4] for column in range(4)] + [[1, column, 1, 2, 4] for column in range(4)])
    assert windows([row], side=2, patches=1)["window_index"].tolist() == [0, 1, 4, 5, 2, 3, 6, 7]


def test_the_table_is_read_bilinearly_with_its_corners_on_those_of_the_image():
    parts = torch.tensor([[0, 0, 1, 3, 3], [2, 2, 1, 3, 3], [0, 0, 2, 3, 3]])
    told = table_taps(parts, side=5)
    table = torch.arange(25.0).view(5, 5)
    read = (table.flatten()[told["interp_indices"]] * told["interp_weights"]).sum(1)
    assert read.tolist() == pytest.approx([0, 24, table[1, 1].item()])
    assert told["interp_weights"].sum(1).tolist() == pytest.approx([1, 1, 1])


def test_sequences_end_where_lengths_add_up():
    assert sequence_ends([2, 3]).tolist() == [0, 2, 5]
    assert sequence_ends([2, 3]).dtype == torch.int32
