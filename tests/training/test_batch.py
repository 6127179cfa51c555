import pytest
import torch

from qlip.training.batch import TrainBatch, distinct, runs_within
from tests.training.conftest import cut_images

GRIDS = [(4, 6), (5, 3), (4, 6), (8, 8), (3, 3)]
LENGTHS = [[5], [1, 2, 3, 4, 5], [9, 1, 1, 9, 30, 2, 2], [7] * 10, [3, 100, 3]]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("most", [1, 8, 20, 1000])
def test_a_run_stays_within_the_budget_and_takes_what_fits(lengths: list[int], most: int) -> None:
    runs = [lengths[run] for run in runs_within(lengths, most)]
    assert [n for run in runs for n in run] == lengths
    for run, following in zip(runs, [*runs[1:], []], strict=True):
        assert len(run) * max(run) <= most or len(run) == 1
        assert not following or (len(run) + 1) * max(*run, following[0]) > most


def test_without_a_budget_there_is_one_run() -> None:
    assert runs_within([3, 100, 3], None) == [slice(0, 3)]


def test_every_coordinate_is_named_once_and_found_again() -> None:
    lists = [patches.coords[0] for patches, _ in cut_images(*GRIDS, width=2)]
    coords, rows = distinct(lists)
    assert all(torch.equal(coords[row], given) for row, given in zip(rows, lists, strict=True))
    assert len(coords) == len({tuple(pair) for given in lists for pair in given.tolist()})
    assert len(coords) < sum(map(len, lists))


@pytest.mark.parametrize("tokens_at_once", [None, 40, 1])
def test_parts_hold_the_photographs_in_order(tokens_at_once: int | None) -> None:
    items = cut_images(*GRIDS, width=7)
    batch = TrainBatch.collate(items, tokens_at_once)
    assert len(batch) == len(items)
    assert len(batch.parts) == {None: 1, 40: 3, 1: 5}[tokens_at_once]
    shown = []
    for part in batch.parts:
        mask = part.patches.mask
        assert torch.equal(batch.coords[part.row][mask], part.patches.coords[mask])
        assert mask.any(0).all()  # padded to the longest of the part, not of the batch
        shown += [(part.patches.patches[i][mask[i]], part.target[i]) for i in range(len(part))]
    for (patches, target), (given, its) in zip(shown, items, strict=True):
        assert torch.equal(patches, given.patches[0])
        assert torch.equal(target, its)
    assert batch.tokens == sum(len(patches) for patches, _ in shown)


def test_a_batch_holds_its_patches_and_little_else() -> None:
    items = cut_images((4, 6), (4, 6), width=7)
    batch = TrainBatch.collate(items)
    (part,) = batch.parts
    tensors = [part.patches.patches, part.patches.coords, part.patches.mask, part.row, part.target, batch.coords]
    padded = 2 * max(patches.mask.shape[1] for patches, _ in items)
    a_token = 3 * 14 * 14 * 4 + 2 * 4 + 1 + 8  # pixels, coordinate, mask, row
    assert sum(t.nbytes for t in tensors) == padded * a_token + 2 * 7 * 4 + len(batch.coords) * 2 * 4
    assert batch.padding_waste == pytest.approx(1 - batch.tokens / padded)


def test_moving_keeps_everything() -> None:
    batch = TrainBatch.collate(cut_images(*GRIDS, width=7), 40)
    moved = batch.to("cpu")
    assert (len(moved), moved.tokens) == (len(batch), batch.tokens)
    assert all(torch.equal(a.row, b.row) for a, b in zip(batch.parts, moved.parts, strict=True))
