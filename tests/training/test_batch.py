import pytest
import torch

from qlip.training.batch import TrainBatch, split_by_tokens, unique_coords
from tests.training.conftest import cut_images

GRIDS = [(4, 6), (5, 3), (4, 6), (8, 8), (3, 3)]
LENGTHS = [[5], [1, 2, 3, 4, 5], [9, 1, 1, 9, 30, 2, 2], [7] * 10, [3, 100, 3]]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("most", [1, 8, 20, 1000])
def test_a_group_stays_within_the_budget_and_takes_what_fits(lengths: list[int], most: int) -> None:
    groups = [lengths[group] for group in split_by_tokens(lengths, most)]
    assert [n for group in groups for n in group] == lengths
    for group, following in zip(groups, [*groups[1:], []], strict=True):
        assert len(group) * max(group) <= most or len(group) == 1
        assert not following or (len(group) + 1) * max(*group, following[0]) > most


def test_without_a_budget_there_is_one_group() -> None:
    assert split_by_tokens([3, 100, 3], None) == [slice(0, 3)]


def test_every_coordinate_is_named_once_and_found_again() -> None:
    lists = [patches.coords[0] for patches, *_ in cut_images(*GRIDS, width=2)]
    coords, indices = unique_coords(lists)
    assert all(torch.equal(coords[index], given) for index, given in zip(indices, lists, strict=True))
    assert len(coords) == len({tuple(pair) for given in lists for pair in given.tolist()})
    assert len(coords) < sum(map(len, lists))


@pytest.mark.parametrize("tokens_at_once", [None, 40, 1])
def test_micro_batches_hold_the_photographs_in_order(tokens_at_once: int | None) -> None:
    items = cut_images(*GRIDS, width=7)
    batch = TrainBatch.collate(items, tokens_at_once)
    assert len(batch) == len(items)
    assert len(batch.micro_batches) == {None: 1, 40: 3, 1: 5}[tokens_at_once]
    shown = []
    for micro_batch in batch.micro_batches:
        mask = micro_batch.patches.mask
        assert torch.equal(batch.coords[micro_batch.coord_index][mask], micro_batch.patches.coords[mask])
        assert mask.any(0).all()  # padded to the longest of the micro_batch, not of the batch
        shown += [(micro_batch.patches.patches[i][mask[i]], micro_batch.target[i]) for i in range(len(micro_batch))]
    for (patches, target), (given, its, _) in zip(shown, items, strict=True):
        assert torch.equal(patches, given.patches[0])
        assert torch.equal(target, its)
    assert batch.tokens == sum(len(patches) for patches, _ in shown)


def test_a_batch_holds_its_patches_and_little_else() -> None:
    items = cut_images((4, 6), (4, 6), width=7)
    batch = TrainBatch.collate(items)
    (micro_batch,) = batch.micro_batches
    tensors = [
        micro_batch.patches.patches,
        micro_batch.patches.coords,
        micro_batch.patches.mask,
        micro_batch.coord_index,
        micro_batch.target,
        batch.coords,
    ]
    padded = 2 * max(patches.mask.shape[1] for patches, *_ in items)
    a_token = 3 * 14 * 14 * 4 + 2 * 4 + 1 + 8  # pixels, coordinate, mask, index
    assert sum(t.nbytes for t in tensors) == padded * a_token + 2 * 7 * 4 + len(batch.coords) * 2 * 4
    assert batch.padding_waste == pytest.approx(1 - batch.tokens / padded)


def test_moving_keeps_everything() -> None:
    batch = TrainBatch.collate(cut_images(*GRIDS, width=7), 40)
    moved = batch.to("cpu")
    assert (len(moved), moved.tokens) == (len(batch), batch.tokens)
    assert all(
        torch.equal(a.coord_index, b.coord_index) for a, b in zip(batch.micro_batches, moved.micro_batches, strict=True)
    )
