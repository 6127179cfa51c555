"""The peers of benchmarks/peers.py: with nothing to give up each is the converted model, and their rules are the published ones, slowly."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import peer_tome
import peer_visionzip
import peers

QUESTION = "what is the color of the circle ?"


@pytest.fixture(scope="module")
def reader() -> peers.Reader:
    return peers.Reader("pocket-llava")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (112, 140, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def grid(reader: peers.Reader, picture: Image.Image) -> Tensor:
    with torch.no_grad():
        return reader.embed(reader.images(picture))


@pytest.mark.parametrize("method", ["downscaling", "quadtree", "tome", "visionzip"])
@torch.no_grad()
def test_with_nothing_given_up_each_is_the_converted_model(
    method: str, reader: peers.Reader, picture: Image.Image, grid: Tensor
) -> None:
    whole = len(grid) - 1
    if method == "tome":
        features = reader.project(peer_tome.encode(reader.layers, grid, [whole] * len(reader.layers)))
    elif method == "visionzip":
        features = reader.project(peer_visionzip.choose(*reader.passed(grid), whole, 0)[1:])
    else:
        way = peers.Way("uniform", whole, whole) if method == "downscaling" else peers.Way("quadtree", whole)
        ((_, seen),) = reader.see(picture, [way])
        features = seen.features
    asked = reader.arm.prepare(picture, reader.arm.prompt(QUESTION, "llava"), seed=0)
    expected = reader.model(**asked.inputs).logits
    got = reader.model(inputs_embeds=reader.prompt(features, QUESTION)).logits
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_flops_are_those_that_torch_counts(reader: peers.Reader, grid: Tensor) -> None:
    after = peers.falling(80, 20, 4)
    with FlopCounterMode(display=False) as counted:
        peer_tome.encode(reader.layers, grid, after)
    embedding = 2 * 80 * 3 * 14**2 * 128  # is in `grid` already
    attention = 4 * 128 * sum(before**2 for before in (81, 66, 51, 36))  # which torch does not count on a CPU
    costs = peers.flops(reader.geometry, peers.pairs(80, after))
    assert costs - embedding - attention == pytest.approx(counted.get_total_flops(), rel=0.01)


@torch.no_grad()
def test_ways_cost_what_they_say(reader: peers.Reader, picture: Image.Image) -> None:
    geometry, depth = reader.geometry, len(reader.layers)
    assert peers.flops(geometry, [(50, 50)] * depth) == geometry.flops(50)
    assert depth == 4
    ways = [way for way in reader.ways() if way.tokens <= 64 and (way.start or 80) <= 80]
    seen = dict(reader.see(picture, ways))
    for way in ways:
        tokens = len(seen[way].features)
        assert way.tokens - 3 <= tokens <= way.tokens + (3 if way.method == "uniform" else 0)
    for tokens in peers.BUDGETS:
        start = reader.start_for(tokens, tokens // 2)
        costs = [
            peers.flops(geometry, peers.pairs(s, peers.falling(s, tokens // 2, depth))) for s in (start, start + 1)
        ]
        assert costs[0] <= geometry.flops(tokens) < costs[1]


def slowly_matched(keys: Tensor, r: int) -> dict[int, int]:
    """ToMe, section 3 of the paper: draw an edge from each of A to the most similar of B, keep the r strongest; which goes into which."""
    normed = [key / key.norm() for key in keys]
    edges = []
    for a in range(2, len(keys), 2):  # 0 is the class token
        similar = [(float(normed[a] @ normed[b]), b) for b in range(1, len(keys), 2)]
        best, b = max(similar)
        edges.append((best, a, b))
    return {a: b for _, a, b in sorted(edges, reverse=True)[:r]}


@pytest.mark.parametrize(("tokens", "r"), [(9, 0), (9, 3), (10, 4), (30, 14), (31, 15)])
def test_tome_matches_and_merges_as_the_paper_says(tokens: int, r: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    keys, values = torch.randn(tokens, 8, generator=generator), torch.randn(tokens, 5, generator=generator)
    sizes = torch.randint(1, 5, (tokens,), generator=generator).float()
    into = slowly_matched(keys, r)
    stay, go, where = peer_tome.match(keys, r)
    assert dict(zip(go.tolist(), where.tolist(), strict=True)) == into
    assert stay[0] == 0
    assert sorted([*stay.tolist(), *go.tolist()]) == list(range(tokens))
    merged, counted = peer_tome.merge(values, sizes, (stay, go, where))
    for place, token in enumerate(stay.tolist()):
        members = [token, *(a for a, b in into.items() if b == token)]
        weights = sizes[members]
        torch.testing.assert_close(merged[place], (weights[:, None] * values[members]).sum(0) / weights.sum())
        assert counted[place] == weights.sum()


@torch.no_grad()
def test_a_merged_token_counts_in_attention_as_its_patches_did(reader: peers.Reader, grid: Tensor) -> None:
    twice = torch.cat([grid, grid[3:4], grid[3:4]])
    sizes = torch.ones(len(grid)).index_fill(0, torch.tensor([3]), 3.0)
    got, _ = peer_tome.attend(reader.layers[0], grid, sizes)
    expected, _ = peer_tome.attend(reader.layers[0], twice, torch.ones(len(twice)))
    torch.testing.assert_close(got, expected[: len(grid)], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_tome_keeps_the_budget_and_the_reading_order(reader: peers.Reader, grid: Tensor) -> None:
    for count in (79, 40, 5):  # by one, by half, and by more than ToMe takes at once in a layer
        assert len(peer_tome.encode(reader.layers, grid, peers.falling(80, count, 4))) == count
    whole = reader.run(grid, reader.layers)[1:]
    few = peer_tome.encode(reader.layers, grid, [80, 80, 80, 76])
    distance, nearest = torch.cdist(few, whole, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    alone = distance < 1e-3
    assert alone.sum() >= 72  # four of eighty have gone into at most four others
    assert (nearest[alone].diff() > 0).all()


@torch.no_grad()
def test_visionzip_chooses_as_its_authors_do(reader: peers.Reader, grid: Tensor) -> None:
    states, keys, attention = reader.passed(grid)
    dominant, contextual = peer_visionzip.shares(32)
    assert (dominant, contextual) == (26, 5)
    assert [peer_visionzip.shares(n) for n in (64, 128, 192)] == [(53, 10), (107, 20), (161, 30)]  # as published
    ranked = sorted(range(80), key=lambda i: -float(attention[i]))
    kept, rest = sorted(ranked[:dominant]), sorted(ranked[dominant:])
    targets = rest[:: len(rest) // contextual][:contextual]
    members: dict[int, list[int]] = {target: [] for target in targets}
    for patch in rest:
        if patch not in members:
            similar = [float(torch.cosine_similarity(keys[patch], keys[target], dim=0)) for target in targets]
            members[targets[similar.index(max(similar))]].append(patch)
    patches = states[1:]
    merged = [patches[t] + (patches[m].mean(0) if m else 0) for t, m in members.items()]
    expected = torch.stack([states[0], *patches[kept], *merged])
    torch.testing.assert_close(peer_visionzip.choose(states, keys, attention, dominant, contextual), expected)


@torch.no_grad()
def test_visionzip_sees_the_attention_of_the_tower(reader: peers.Reader, grid: Tensor) -> None:
    before = reader.run(grid, reader.layers[:-1])
    layer = reader.layers[-1]
    how = layer.self_attn.config._attn_implementation
    layer.self_attn.config._attn_implementation = "eager"
    _, weights = layer.self_attn(layer.layer_norm1(before[None]))
    layer.self_attn.config._attn_implementation = how
    _, attention = peer_visionzip.look(layer, before)
    torch.testing.assert_close(attention, weights[0, :, 0, 1:].sum(0))
