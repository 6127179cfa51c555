"""Scenes are what they say they are: objects where, how large and of the colour that the scene records."""

import pytest
import torch
from torch import Generator

from qlip.data.scenes import _SIGNED_DISTANCES, ABSENT, COLOURS, SHAPES, draw_scenes

SIZES = [(112, 112), (336, 504), (896, 448)]


def draw(count=16, height=112, width=112, seed=0, **options):
    return draw_scenes(count, height, width, Generator().manual_seed(seed), **options)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_same_seed_draws_the_same_scenes(height, width):
    one, same, other = draw(2, height, width), draw(2, height, width), draw(2, height, width, seed=1)
    assert one.images.shape == (2, 3, height, width)
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.centre, same.centre)
    assert not torch.equal(one.images, other.images)
    assert one.images.min() >= 0
    assert one.images.max() <= 1


def test_given_backgrounds_change_nothing_but_what_lies_behind_the_objects():
    plain = draw(4)
    given = torch.full((3, 3, 112, 112), 0.5) + torch.tensor([0.0, 0.1, 0.2]).view(3, 1, 1, 1)
    over = draw(4, backgrounds=given)
    for name in ("shape", "colour", "centre", "side"):
        assert torch.equal(getattr(over, name), getattr(plain, name)), name
    assert torch.equal(over.images[3], plain.images[3]), "one that is given no background is drawn as ever"
    assert torch.equal(draw(4, backgrounds=given[:0]).images, plain.images)
    for i in range(3):
        same = (over.images[i] == given[i]).all(0)
        assert 0.4 < same.float().mean() < 0.97
        for k in (plain.shape[i] != ABSENT).nonzero().flatten().tolist():
            if SHAPES[plain.shape[i, k]] != "ring":  # a ring's middle is background
                y, x = plain.centre[i, k].long().tolist()
                assert torch.equal(over.images[i, :, y, x], plain.images[i, :, y, x]), "the same paint"


@pytest.mark.parametrize("shape", [(5, 3, 112, 112), (2, 3, 112, 96), (2, 1, 112, 112)])
def test_backgrounds_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="backgrounds: got shape"):
        draw(4, backgrounds=torch.zeros(shape))


def test_drawn_scenes_stay_what_they_were():
    """What the shipped models were trained on, and the pictures of the drawn benchmarks."""
    pixels = (draw(8).images * 255).round()
    assert pixels.mean().item() == pytest.approx(121.024, abs=0.01)
    seen = torch.tensor([[190, 168, 125, 195, 136, 96, 186, 125, 73], [174, 155, 132, 147, 149, 118, 146, 130, 114]])
    assert (pixels[5, :2, ::40, ::40].flatten(1) - seen).abs().max() <= 1  # other machines may round otherwise


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_objects_lie_inside_apart_and_in_the_range_of_sizes(height, width):
    scenes = draw(32, height, width, objects=(2, 5))
    there = scenes.shape != ABSENT
    assert (there.sum(1) >= 1).all()
    assert (there.sum(1) <= 5).all()
    if height > 112:  # at 112 pixels some find no place
        assert (there.sum(1) >= 2).all()
        assert there.sum(1).float().mean() > 3
    side = scenes.side[there]
    assert side.min() >= 21
    assert side.max() <= 56
    assert side.max() > 2 * side.min()
    boxes = scenes.boxes[there]
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= height).all()
    assert (boxes[:, 3] <= width).all()
    for i in range(len(scenes)):
        inside = torch.zeros(height, width)
        for top, left, bottom, right in scenes.boxes[i][there[i]].round().long().tolist():
            inside[top + 2 : bottom - 2, left + 2 : right - 2] += 1
        # rotated squares reach into the corners of their boxes; boxes themselves may touch there, circles do not
        assert (inside > 1).float().mean() < 0.01
        assert len(set(scenes.shape[i][there[i]].tolist())) == there[i].sum()
        assert len(set(scenes.colour[i][there[i]].tolist())) == there[i].sum()


def test_an_object_shows_its_colour_where_the_scene_says_it_is():
    scenes = draw(64, 224, 336)
    colours = torch.tensor(list(COLOURS.values()))
    checked = 0
    for i in range(len(scenes)):
        for k in range(scenes.shape.shape[1]):
            if scenes.shape[i, k] == ABSENT or SHAPES[scenes.shape[i, k]] == "ring":  # a ring's middle is background
                continue
            y, x = scenes.centre[i, k].round().long().tolist()
            distance = (scenes.images[i, :, y, x] - colours).norm(dim=1)
            assert distance.argmin() == scenes.colour[i, k] or distance.min() > distance[scenes.colour[i, k]] - 0.15
            assert distance[scenes.colour[i, k]] < 0.35
            checked += 1
    assert checked > 60


def test_without_its_objects_a_scene_is_smooth():
    """What the quadtree needs: away from objects there is little to see."""
    scenes = draw(4, 448, 448, objects=(1, 1))
    for i in range(len(scenes)):
        top, left, bottom, right = scenes.boxes[i, scenes.shape[i] != ABSENT][0].long().tolist()
        step = (scenes.images[i].diff(dim=-1)).abs().amax(0)
        inside = step[max(top, 0) : bottom, max(left, 0) : right].max()
        step[max(top - 14, 0) : bottom + 14, max(left - 14, 0) : right + 14] = 0
        assert step.max() < 0.25
        assert inside > step.quantile(0.999)


@pytest.mark.parametrize("index", range(len(SHAPES)), ids=SHAPES)
def test_a_shape_fills_a_share_of_its_box_and_stays_inside(index):
    axis = torch.linspace(-1.5, 1.5, 301)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = _SIGNED_DISTANCES[index](x, y) < 0
    share = inside.float().mean() * 9 / 4
    assert 0.2 < share < 0.8
    assert inside[(x.abs() > 1.1) | (y.abs() > 1.1)].sum() == 0


def test_no_two_shapes_look_alike():
    axis = torch.linspace(-1.2, 1.2, 101)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    masks = torch.stack([distance(x, y) < 0 for distance in _SIGNED_DISTANCES]).flatten(1)
    for i in range(len(masks)):
        for j in range(i):
            union, common = (masks[i] | masks[j]).sum(), (masks[i] & masks[j]).sum()
            assert common / union < 0.9, f"{SHAPES[i]} and {SHAPES[j]}"


def test_bad_requests_name_the_argument():
    with pytest.raises(ValueError, match="objects"):
        draw(objects=(3, 7))
    with pytest.raises(ValueError, match="height, width"):
        draw(height=50)
