"""The quadtree against a recursion written from the definitions, and the promises it makes about counts."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlip import Leaves, Quadtree
from qlip.core.criteria import CRITERIA
from tests.core import reference

SEEDS = range(200)
COVERS = ("roots", "full")
bounded = settings(max_examples=40, deadline=None, derandomize=True)


def triples(leaves: Leaves) -> list[tuple[int, int, int]]:
    return list(zip(leaves.row.tolist(), leaves.col.tolist(), leaves.size.tolist(), strict=True))


def scores_and_tree(seed: int, criterion: str, cover: str):
    """A random image, the slow scores of all its blocks, and a function from alpha to (leaves, slow leaves)."""
    image, p = reference.random_case(seed)
    image = image + 3 * (seed % 3)  # grey ranges without zero
    h, w = image.shape[1] // p, image.shape[2] // p
    torch.manual_seed(seed)
    score = reference.score_of(criterion, image, p, cover)
    scores = {block: float(score(block)) for block in reference.all_blocks(h, w, cover)}

    def both(alpha: float):
        torch.manual_seed(seed)
        got = Quadtree(alpha, criterion, patch_size=p, cover=cover)(image)
        return triples(got), reference.leaves(scores, alpha, h, w, cover)

    return scores, both


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_leaves_equal_the_recursion(criterion, cover):
    sizes = set()
    for seed in SEEDS:
        scores, both = scores_and_tree(seed, criterion, cover)
        for alpha in map(abs, reference.alphas_between(scores, 2, seed)):  # where no score is negative, none is between
            got, expected = both(alpha)
            assert got == expected, (seed, alpha)
            sizes |= {size for _, _, size in got}
    assert sizes == ({1} if criterion == "uniform" else {1, 2, 4, 8})  # otherwise the cases were too easy


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"random", "uniform"}))
def test_scores_equal_the_slow_ones(criterion, cover):
    for seed in range(60):
        image, p = reference.random_case(seed)
        h, w = image.shape[1] // p, image.shape[2] // p
        side, rows, cols, top, left = reference.roots(h, w, cover)
        if min(side, top + 1, left + 1) < 1 or side == 1 or top < 0 or left < 0 or cover == "full":
            continue
        area = image[:, top * p : (top + rows * side) * p, left * p : (left + cols * side) * p]
        score = reference.score_of(criterion, area, p, cover)
        levels = side.bit_length() - 1
        for k, got in enumerate(CRITERIA[criterion](area[None], p, levels), start=1):
            blocks = [(i * 2**k, j * 2**k, 2**k) for i in range(got.shape[1]) for j in range(got.shape[2])]
            expected = torch.tensor([float(score(block)) for block in blocks])
            torch.testing.assert_close(got[0].flatten(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("criterion", ["derivative", "gradient"])
def test_a_score_equal_to_alpha_splits(criterion):
    scores, both = scores_and_tree(11, criterion, "roots")
    for value in sorted(scores.values()):
        got, expected = both(value)
        assert got == expected


def test_derivative_is_signed():
    ramp = torch.arange(56.0).expand(3, 56, 56) / 10
    assert len(Quadtree(0.05)(ramp)) == 16
    assert len(Quadtree(0.05)(-ramp)) == 4
    assert len(Quadtree(0.05, "gradient")(-ramp)) == 16


@pytest.mark.parametrize(
    ("pixels", "counts"),
    [((672, 896), {16: 12}), ((476, 518), {16: 4, 1: 34 * 37 - 4 * 256}), ((336, 336), {8: 9}), ((14, 700), {1: 50})],
)
def test_roots_of_the_definitions(pixels, counts):
    leaves = Quadtree(1e9, cover="roots")(torch.zeros(3, *pixels))
    assert {int(s): int((leaves.size == s).sum()) for s in leaves.size.unique()} == counts
    assert leaves.grid == (pixels[0] // 14, pixels[1] // 14)


def test_roots_are_centred_and_full_cover_merges_borders():
    image = torch.zeros(3, 34 * 14, 37 * 14)
    roots = Quadtree(1e9, cover="roots")(image)
    assert [(row, col) for row, col, size in triples(roots) if size == 16] == [(1, 2), (1, 18), (17, 2), (17, 18)]
    full = Quadtree(1e9)(image)
    assert len(full) < len(roots)
    assert (full.size**2).sum() == 34 * 37


def test_uniform_is_clips_own_grid_whatever_alpha():
    for alpha in (0.0, 0.5, 1e9):
        leaves = Quadtree(alpha, "uniform")(torch.randn(3, 70, 98))
        assert triples(leaves) == [(row, col, 1) for row in range(5) for col in range(7)]


def test_alpha_of_random_is_the_probability_of_merging():
    image = torch.zeros(3, 64, 64)
    torch.manual_seed(0)
    merged = [len(Quadtree(0.25, "random", patch_size=2)(image)) == 1024 for _ in range(30)]
    assert not any(merged)
    assert len(Quadtree(0.0, "random", patch_size=2)(image)) == 1024
    assert len(Quadtree(1.0, "random", patch_size=2)(image)) == 4
    two_by_two = torch.zeros(500, 3, 16, 16)  # roots of 2 x 2 patches, four an image, nothing above them
    whole = sum((leaves.size == 2).sum().item() for leaves in Quadtree(0.25, "random", patch_size=4)(two_by_two))
    assert 0.22 < whole / 2000 < 0.28


@bounded
@given(
    h=st.integers(1, 24), w=st.integers(1, 24), p=st.integers(1, 3), seed=st.integers(0, 999),
    alpha=st.floats(0, 2), criterion=st.sampled_from(sorted(CRITERIA)), cover=st.sampled_from(COVERS),
)  # fmt: skip
def test_leaves_tile_the_image_in_reading_order(h, w, p, seed, alpha, criterion, cover):
    found = triples(Quadtree(alpha, criterion, patch_size=p, cover=cover)(reference.make_image(seed, p, h, w)))
    painted = torch.zeros(h, w, dtype=torch.long)
    for row, col, size in found:
        assert row >= 0
        assert col >= 0
        assert row + size <= h
        assert col + size <= w
        assert size & (size - 1) == 0
        painted[row : row + size, col : col + size] += 1
    assert (painted == 1).all()
    assert found == sorted(found)


@bounded
@given(
    h=st.integers(1, 24), w=st.integers(1, 24), seed=st.integers(0, 999), low=st.floats(0, 2), high=st.floats(0, 2),
    criterion=st.sampled_from(sorted(CRITERIA)), cover=st.sampled_from(COVERS),
)  # fmt: skip
def test_token_count_never_rises_with_alpha(h, w, seed, low, high, criterion, cover):
    image = reference.make_image(seed, 2, h, w)
    low, high = sorted((low, high))
    counts = []
    for alpha in (low, high):
        tree = Quadtree(alpha, criterion, patch_size=2, cover=cover)
        torch.manual_seed(seed)
        counts.append(len(tree(image)))
        torch.manual_seed(seed)
        assert tree.count(image[None]) == [counts[-1]]
    assert counts[0] >= counts[1]


@bounded
@given(
    h=st.integers(1, 24), w=st.integers(1, 24), seed=st.integers(0, 999), share=st.floats(0, 1.2),
    criterion=st.sampled_from(sorted(CRITERIA)), cover=st.sampled_from(COVERS), levels=st.sampled_from([1, 3, 1000]),
)  # fmt: skip
def test_budget_is_never_exceeded_and_nearly_spent(h, w, seed, share, criterion, cover, levels):
    image = (reference.make_image(seed, 2, h, w) * levels).round() / levels  # few levels: many ties
    budget = max(1, round(share * h * w))
    tree = Quadtree(max_tokens=budget, criterion=criterion, patch_size=2, cover=cover)
    merged = 1e9 if criterion != "uniform" else 0.0
    least = len(Quadtree(merged, criterion, patch_size=2, cover=cover)(image))
    if budget < least:
        with pytest.raises(ValueError, match=rf"max_tokens: got {budget}, .* at least {least} leaves"):
            tree(image)
    else:
        assert min(budget - 2, h * w) <= len(tree(image)) <= min(budget, h * w)


@pytest.mark.parametrize("cover", COVERS)
def test_budget_splits_what_the_smallest_fitting_alpha_splits(cover):
    for seed in range(40):
        image, p = reference.random_case(seed)
        h, w = image.shape[1] // p, image.shape[2] // p
        score = reference.score_of("derivative", image, p, cover)
        scores = {block: float(score(block)) for block in reference.all_blocks(h, w, cover)}
        alphas = [*sorted(set(scores.values())), 1e9]
        trees = [reference.leaves(scores, alpha, h, w, cover) for alpha in alphas]
        for budget in {len(trees[-1]), (len(trees[-1]) + h * w) // 2, (len(trees[-1]) + 2 * h * w) // 3}:
            coarse = next(tree for tree in trees if len(tree) <= budget)  # alphas rise, counts fall
            fine = triples(Quadtree(max_tokens=budget, patch_size=p, cover=cover)(image))
            home = {(r, c): leaf for leaf in coarse for r in range(leaf[0], leaf[0] + leaf[2]) for c in range(leaf[1], leaf[1] + leaf[2])}  # fmt: skip
            assert all(size <= home[row, col][2] for row, col, size in fine)
            assert len(coarse) <= len(fine) <= budget


def test_a_random_tree_of_a_given_size():
    image = torch.zeros(3, 336, 336)
    tree = Quadtree(max_tokens=300, criterion="random")
    torch.manual_seed(0)
    first, second = triples(tree(image)), triples(tree(image))
    torch.manual_seed(0)
    assert first == triples(tree(image)) != second
    assert len(first) == len(second) == 300


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("budget", [None, 60])
@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"random"}))
def test_a_batch_equals_its_images_one_by_one(criterion, budget, cover):
    images = torch.stack([reference.make_image(seed, 4, 9, 15) for seed in range(5)])
    budget = 9 * 15 if budget and criterion == "uniform" else budget
    tree = Quadtree(0.4, criterion, max_tokens=budget, patch_size=4, cover=cover)
    together = [triples(leaves) for leaves in tree(images)]
    assert together == [triples(tree(image)) for image in images] == [triples(x) for x in tree.batch(images)]
    by_alpha = replace(tree, max_tokens=None, score=torch.rand(3, 4))
    assert replace(by_alpha, max_tokens=60).count(images) == [len(leaves) for leaves in by_alpha.batch(images)]


def test_images_without_roots_come_in_batches_too():
    strips = torch.zeros(3, 3, 14, 70)
    assert [len(leaves) for leaves in Quadtree(1e9)(strips)] == Quadtree(1e9).count(strips) == [5, 5, 5]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_give_the_leaves_of_their_float32_values(dtype):
    image = reference.make_image(3, 14, 12, 17).to(dtype)
    assert triples(Quadtree(0.5)(image)) == triples(Quadtree(0.5)(image.float()))


def test_layout_in_memory_and_gradients_do_not_matter():
    image = reference.make_image(3, 4, 12, 17)
    expected = triples(Quadtree(0.5, patch_size=4)(image))
    strided = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert triples(Quadtree(0.5, patch_size=4)(strided)) == expected
    assert triples(Quadtree(0.5, patch_size=4)(image.clone().requires_grad_())) == expected


def test_a_users_criterion_sees_every_block_of_a_level():
    shapes = []

    def spread(blocks):
        shapes.append(tuple(blocks.shape))
        return blocks.amax((-3, -2, -1)) - blocks.amin((-3, -2, -1))

    image = reference.make_image(5, 4, 9, 15)
    got = triples(Quadtree(1.0, spread, patch_size=4, cover="roots")(image))
    assert shapes == [(1, 4, 6, 3, 8, 8), (1, 2, 3, 3, 16, 16)]
    pixels = image.numpy()
    scores = {}
    for block in reference.all_blocks(9, 15, "roots"):
        inside = reference.crop(pixels, block, 4)
        scores[block] = float(inside.max() - inside.min())
    assert got == reference.leaves(scores, 1.0, 9, 15, "roots")


@pytest.mark.parametrize(("h", "w"), [(24, 24), (5, 7), (1, 6), (17, 12)])
def test_coords_equal_the_formula(h, w):
    leaves = Quadtree(0.6, patch_size=2)(reference.make_image(1, 2, h, w))
    got = leaves.coords()
    assert got.dtype == torch.float32
    assert got.shape == (len(leaves), 2)
    torch.testing.assert_close(got, torch.tensor(reference.coords(triples(leaves), h, w)), rtol=0, atol=1e-7)


def test_coords_of_the_uniform_grid_are_the_papers():
    got = Quadtree(criterion="uniform")(torch.zeros(3, 336, 336)).coords().view(24, 24, 2)
    expected = [[(-1 + 2 * i / 23, -1 + 2 * j / 23) for j in range(24)] for i in range(24)]
    torch.testing.assert_close(got, torch.tensor(expected), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Quadtree(criterion="edges"), ValueError, "criterion: got 'edges'; known are derivative, .*uniform"),
        (lambda: Quadtree(criterion=3), TypeError, "criterion: got int; pass a name or a function"),
        (lambda: Quadtree(cover="all"), ValueError, "cover: got 'all'; takes 'roots', 'full'"),
        (lambda: Quadtree(patch_size=0), ValueError, "patch_size: got 0; takes a whole number of pixels from 1"),
        (lambda: Quadtree(max_tokens=0), ValueError, "max_tokens: got 0; takes a whole number from 1 to 10,000,000, or None to use alpha"),
        (lambda: Quadtree()(torch.zeros(3, 28, 30)), ValueError, "got 28 x 30 pixels; .* multiples of patch_size=14"),
        (lambda: Quadtree()(torch.zeros(3, 0, 28)), ValueError, "image: got 0 x 28 pixels"),
        (lambda: Quadtree()(torch.zeros(28, 28)), ValueError, r"image: got torch.float32 of shape \(28, 28\)"),
        (lambda: Quadtree()(torch.zeros(3, 28, 28).byte()), ValueError, "image: got torch.uint8"),
        (lambda: Quadtree(max_tokens=5)(torch.zeros(3, 14, 98)), ValueError, "got 5, .* at least 7 leaves"),
        (lambda: Quadtree(max_tokens=3)(torch.zeros(3, 56, 56)), ValueError, "got 3, .* at least 4 leaves"),
        (lambda: Quadtree(0.1, torch.mean)(torch.zeros(3, 56, 56)), ValueError, r"criterion: got \(\) for blocks of"),
        (lambda: Quadtree(0.1, lambda b: 1.0)(torch.zeros(3, 56, 56)), ValueError, "criterion: got float for blocks"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(make, error, message):
    with pytest.raises(error, match=message):
        make()
