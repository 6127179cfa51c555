"""What families whose own classes cut tiles, put newlines or take videos do in their place."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import qlip
from qlip import Quadtree
from qlip.core.patches import patchify
from qlip.core.quadtree import Leaves
from qlip.families.lines import line_lengths
from tests.families.row import PLACEHOLDER
from tests.families.rows import ROWS
from tests.families.tiny_llava import scene
from tests.shaken import shake

SIZES = ((448, 224), (224, 448), (336, 224), (224, 672))


def converted(name: str, **options: object):
    row = ROWS[name]
    return qlip.convert(shake(row.make()), row.processor(), position=row.position, **options)


@pytest.mark.parametrize("name", ["internvl", "smolvlm", "llava onevision"])
def test_videos_are_refused_by_the_processor(name):
    _, new = converted(name)
    kind = type(new).original.__name__.removesuffix("Processor")
    with pytest.raises(ValueError, match=rf"videos: got some; a converted {kind} takes images alone"):
        new(videos=[torch.zeros(4, 3, 28, 28, dtype=torch.uint8)], text=["<video> what is there"])


def test_onevision_refuses_frames_of_videos_however_they_come():
    model, _ = converted("llava onevision")
    frames = {"input_ids": torch.full((1, 3), 91), "pixel_values_videos": torch.zeros(1, 1, 3, 168, 168)}
    for call in (model, model.generate):
        with pytest.raises(ValueError, match=r"pixel_values_videos: got some"):
            call(**frames)


@pytest.mark.parametrize("budget", [*range(60, 64), 81, 88, 137, 200])
def test_a_budget_of_next_holds_for_leaves_and_newlines_and_no_larger_tree_fits(budget):
    _, new = converted("llava next", size=None, max_tokens=budget, cover="full")
    tree = new.image_processor.settings.quadtree
    for seed, shape in enumerate(SIZES):
        seen, leaves = new.image_processor.cut(new.image_processor.settings, scene(*shape, seed))
        count = len(leaves) + len(leaves.row.unique())
        assert budget - 3 <= count <= budget
        more = replace(tree, max_tokens=len(leaves) + 3)(seen.floats)
        assert len(more) + len(more.row.unique()) > budget
    assert new.count_tokens(scene(448, 224, 0), max_tokens=16)[0] - new.extra_tokens in range(12, 17)  # scaled down
    with pytest.raises(ValueError, match=r"max_tokens: got 1; takes at least 2, a leaf and the token after"):
        new.count_tokens(scene(224, 224, 0), max_tokens=1)


@pytest.mark.parametrize("budget", [36, 41, 60])
def test_a_budget_of_mistral_holds_for_leaves_breaks_and_end(budget):
    _, new = converted("mistral3", max_tokens=budget, cover="full")
    for seed, shape in enumerate(SIZES):
        inputs = new(images=[scene(*shape, seed)], text=["what [IMG] there"], return_tensors="pt")
        ((_, leaves),) = inputs["pixel_values"]
        ids = inputs["input_ids"][0, 1:-1].tolist()
        assert budget - 3 <= len(ids) == new.count_tokens(scene(*shape, seed))[0] <= budget
        rows = leaves[:, 0].tolist()
        read = [token for row, after in pairwise([*rows, None]) for token in ([90] if after == row else [90, 91])]
        assert ids == [*read[:-1], 92]
    most = new._get_num_multimodal_tokens([(168, 224), (56, 56)]).num_image_tokens
    assert most == [min(6 * 9, budget), 6]


@pytest.mark.parametrize(("taken", "short"), [(slice(1, None), 0), (slice(-2), 1)])
@pytest.mark.parametrize("text", ["[IMG] what [IMG]", "[IMG] [IMG]"])
def test_mistral_refuses_a_prompt_with_one_placeholder_too_few(text, taken, short):
    model, new = converted("mistral3", max_tokens=60, cover="full")
    images = [scene(448, 224, 1), scene(224, 448, 2)]
    inputs = new(images=images, text=[text], return_tensors="pt")
    found = short if "what" in text else 1  # neighbouring images run together, and the last one comes short
    with pytest.raises(ValueError, match=rf"image {found} in prompt 0 has \d+ tokens, but \d+ placeholders"):
        model(input_ids=inputs["input_ids"][:, taken], pixel_values=inputs["pixel_values"])


def test_next_over_a_class_token_refuses_to_show_it_as_transformers_does():
    row = ROWS["llava next"]
    model, processor = shake(row.make()), row.processor()
    stock = processor(images=[scene(168, 168, 0)], text=["<image> what"], return_tensors="pt")
    with pytest.raises(RuntimeError, match="shape"):
        model.model.get_image_features(
            stock["pixel_values"], stock["image_sizes"], vision_feature_select_strategy="full"
        )
    says = "vision_feature_select_strategy: got 'full', which keeps the class token"
    model, new = qlip.convert(model, processor, position="bicubic")
    inputs = new(images=[scene(168, 168, 0)], text=["<image> what"], return_tensors="pt")
    for call in (model, model.generate):
        with pytest.raises(ValueError, match=says):
            call(**inputs, vision_feature_select_strategy="full")
    model = qlip.restore(model)
    model.config.vision_feature_select_strategy = "full"
    with pytest.raises(ValueError, match=says):
        qlip.convert(model, processor, position="bicubic")
    assert type(model) is row.make().__class__


def test_the_small_picture_of_next_is_the_first_of_the_stock_processors():
    row = ROWS["llava next"]
    image, stock = scene(448, 224, 2), row.processor()
    expected = stock.image_processor(image, return_tensors="pt")["pixel_values"][0, 0]
    _, new = converted("llava next")
    (((patches, leaves), _),) = new(images=image, text="<image>")["pixel_values"]
    level = 1 / 255 / min(new.image_processor.settings.std)
    expected = patchify(expected, Leaves.from_geometry(leaves))
    assert (patches - expected).abs().max() < 2.5 * level  # both round to whole levels
    assert (patches - expected).abs().mean() < 0.5 * level


def test_next_counts_its_small_picture_newlines_and_leaves_alike_everywhere():
    model, new = converted("llava next", size=None, max_tokens=60, cover="full")
    images = [scene(*shape, seed) for seed, shape in enumerate(SIZES)]
    inputs = new(images=images, text=["<image> <image> what is there <image> <image>"], return_tensors="pt")
    placeholders = int((inputs["input_ids"] == new.placeholder_id).sum())
    trees = [leaves for _, (_, leaves) in inputs["pixel_values"]]
    by_hand = [144 + len(leaves) + len(leaves[:, 0].unique()) for leaves in trees]
    with torch.no_grad():
        features = model.model.get_image_features(inputs["pixel_values"]).pooler_output
    assert new.count_tokens(images) == [len(each) for each in features] == by_hand
    assert placeholders == sum(by_hand)
    most = new._get_num_multimodal_tokens([(168, 168)], max_tokens=None).num_image_tokens
    assert most == [144 + 12 * 13]
    assert new._get_num_multimodal_tokens([(168, 168)]).num_image_tokens == [144 + 60]


@torch.no_grad()
def test_a_newline_of_next_ends_each_line_and_no_other_place():
    model, new = converted("llava next", size=None, max_tokens=60, cover="full")
    inputs = new(images=[scene(448, 224, 1)], text=["<image> what"], return_tensors="pt")
    (features,) = model.model.get_image_features(inputs["pixel_values"]).pooler_output
    newlines = (features == model.model.image_newline).all(1).nonzero().flatten().tolist()
    ((_, (_, leaves)),) = inputs["pixel_values"]
    rows = leaves[:, 0].tolist()
    last = [i for i, row in enumerate(rows) if i + 1 == len(rows) or rows[i + 1] > row]
    assert newlines == [144 + i + 1 + line for line, i in enumerate(last)]


def test_next_refuses_a_prompt_with_one_placeholder_too_few():
    model, new = converted("llava next", max_tokens=60, cover="full")
    inputs = new(images=[scene(448, 224, 1)], text=["<image> what"], return_tensors="pt")
    with pytest.raises(ValueError, match=r"image 0 in prompt 0 has \d+ tokens, but \d+ placeholders"):
        model(input_ids=inputs["input_ids"][:, 1:], pixel_values=inputs["pixel_values"])


def test_lines_are_runs_of_one_row():
    leaves = Quadtree(criterion="uniform")(torch.zeros(3, 28, 42))
    assert line_lengths(leaves.row) == [3, 3]
    assert line_lengths(torch.tensor([0, 0, 1, 2, 2, 2])) == [2, 1, 3]


@pytest.mark.parametrize("shape", [(512, 512), (600, 400), (427, 640), (1000, 510), (300, 880)])
def test_the_defaults_of_next_never_cost_more_than_tiles(shape):
    """With pinpoints as of the published models, in their shapes."""
    row = ROWS["llava next"]
    model, processor = row.make(), row.processor()
    tile = processor.image_processor.crop_size["height"]
    pinpoints = [[tile * rows, tile * cols] for rows, cols in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]
    model.config.image_grid_pinpoints = processor.image_processor.image_grid_pinpoints = pinpoints
    picture = scene(*shape, 0)
    stock = processor(images=[picture], text=["<image> what"])["input_ids"][0]
    _, new = qlip.convert(model, processor, position=row.position)
    assert new.count_tokens(picture)[0] <= sum(token == PLACEHOLDER for token in stock)
