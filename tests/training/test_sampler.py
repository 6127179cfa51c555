import pytest

from qlip.training.sampler import TokenBatchSampler, epoch_seed, padding_waste

TOKENS = [100 + 37 * (i * 7 % 50) for i in range(103)]


def test_an_epoch_shows_every_image_and_fills_the_last_batch() -> None:
    sampler = TokenBatchSampler(TOKENS, 4, seed=0)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 26
    assert all(len(batch) == 4 for batch in batches)
    assert {seeded.index for batch in batches for seeded in batch} == set(range(103))


def test_same_seed_same_batches_and_other_seed_or_epoch_others() -> None:
    first = TokenBatchSampler(TOKENS, 4, seed=0)
    assert first.epoch_batches(0) == TokenBatchSampler(TOKENS, 4, seed=0).epoch_batches(0)
    assert first.epoch_batches(0) != first.epoch_batches(1)
    assert first.epoch_batches(0) != TokenBatchSampler(TOKENS, 4, seed=1).epoch_batches(0)


def test_every_image_of_every_batch_has_a_seed_of_its_own() -> None:
    seeds = [seeded.seed for batch in TokenBatchSampler(TOKENS, 4, seed=0) for seeded in batch]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("done", [1, 25, 26, 40])
def test_resumes_in_the_middle_of_the_stream(done: int) -> None:
    unbroken = TokenBatchSampler(TOKENS, 4, seed=0)
    stream = [batch for epoch in range(3) for batch in unbroken.epoch_batches(epoch)]
    resumed = TokenBatchSampler(TOKENS, 4, seed=0, batches_done=lambda: done)
    assert list(resumed) == stream[done : done + 26]


def test_ranks_share_an_epoch_out() -> None:
    ranks = [list(TokenBatchSampler(TOKENS, 4, seed=0, rank=rank, world_size=2)) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == 13
    assert {s.index for batches in ranks for batch in batches for s in batch} == set(range(103))
    assert not {s.seed for b in ranks[0] for s in b} & {s.seed for b in ranks[1] for s in b}


def test_grouping_wastes_little() -> None:
    tokens = [100 + (i * 7919) % 2400 for i in range(2000)]
    sampler = TokenBatchSampler(tokens, 14, seed=0)
    grouped = [[tokens[seeded.index] for seeded in batch] for batch in sampler]
    apart = [tokens[i : i + 14] for i in range(0, 2000, 14)]
    assert padding_waste(grouped) < 0.1 < padding_waste(apart)


def test_waste_is_the_padded_share() -> None:
    assert padding_waste([[1, 3], [2, 2]]) == pytest.approx(2 / 10)


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="batch_size: got 0"):
        TokenBatchSampler(TOKENS, 0, seed=0)


def test_the_batches_of_a_seed_are_the_same_in_every_process_and_version() -> None:
    numbers = [765232833172254823, 7272873589274253248, 8082331787402686543]
    assert [epoch_seed(0, 0), epoch_seed(0, 1), epoch_seed(7, 3)] == numbers
    batches = TokenBatchSampler([5, 9, 1, 7], 2, seed=3).epoch_batches(1)
    assert [[seeded.index for seeded in batch] for batch in batches] == [[3, 1], [2, 0]]
    assert batches[0][0].seed == 817447710870614038
