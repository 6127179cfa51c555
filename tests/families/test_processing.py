"""What happens to a picture before it is cut, what it will cost, and what a call may change."""

import base64
import copy
import math
import re

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from transformers import (
    CLIPImageProcessor,
    CLIPVisionModel,
    Gemma3ImageProcessor,
    LlavaProcessor,
    SiglipImageProcessor,
    SiglipVisionModel,
    ViTImageProcessor,
    ViTModel,
)
from transformers.models.llava import LlavaImageProcessor

import qlip
from qlip import QlipImageProcessor, Quadtree
from qlip.families.context import check_context
from qlip.images.processor import OPTIONS
from qlip.images.read import to_pixels, to_rgb
from qlip.images.resize import pad_to_square
from tests.families.conftest import NEW, ONE, TWO
from tests.families.tiny_llava import scene
from tests.towers.test_towers import ROWS as TOWERS

MEAN = (0.48145466, 0.4578275, 0.40821073)
LANDSCAPE = (480, 360)


def paper_grid(width: int, height: int, size: int | None) -> tuple[int, int]:
    if size is not None:
        width, height = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    return height // 14, width // 14


@pytest.mark.parametrize("shape", [(224, 224), (480, 360), (300, 700), (2000, 30)])
@pytest.mark.parametrize("size", [112, 336, None])
def test_native_aspect(shape, size):
    processor = QlipImageProcessor(size, quadtree=Quadtree(criterion="uniform"))
    view = processor.view(scene(*shape, 0))
    h, w = paper_grid(*shape, size)
    assert (view.height, view.width) == (14 * h, 14 * w)
    assert processor.grid(shape[1], shape[0]) == (h, w)
    assert processor.count_tokens(scene(*shape, 0)) == [h * w]


@pytest.mark.parametrize(
    ("tower", "processor", "resample"),
    [
        (CLIPVisionModel, CLIPImageProcessor, "bicubic"),
        (SiglipVisionModel, SiglipImageProcessor, "bicubic"),
        (ViTModel, ViTImageProcessor, "bilinear"),
        (SiglipVisionModel, Gemma3ImageProcessor, "bilinear"),
    ],
)
def test_a_converted_model_has_the_pixels_of_its_own_processor(tower, processor, resample):
    size = {"shortest_edge": 280} if processor is CLIPImageProcessor else {"height": 280, "width": 280}
    stock = processor(size=size, do_center_crop=False) if processor is CLIPImageProcessor else processor(size=size)
    _, images = qlip.convert(TOWERS[tower.__name__].make(), stock, position="zero", size=280)
    assert images.resample == resample
    picture = scene(500, 500, 1)
    expected = stock(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(images.prepare(picture), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(480, 360), (361, 480), (336, 336)])
def test_padding_is_that_of_the_original_repository(shape):
    picture = scene(*shape, 2)
    side = max(shape)
    square = Image.new("RGB", (side, side), tuple(int(x * 255) for x in MEAN))
    square.paste(picture, (0, (side - shape[1]) // 2) if shape[0] > shape[1] else ((side - shape[0]) // 2, 0))
    assert np.array_equal(np.asarray(to_rgb(pad_to_square(to_pixels(picture), MEAN))), np.asarray(square))
    stock = LlavaImageProcessor(do_pad=True, size={"shortest_edge": 336}, crop_size=336)
    ours = QlipImageProcessor(336, pad="square").prepare(picture)
    assert (ours - stock(picture, return_tensors="pt")["pixel_values"][0]).abs().max() < 1e-6
    assert QlipImageProcessor(336, pad="square").grid(shape[1], shape[0]) == (24, 24)


def test_the_padding_is_merged_and_the_picture_is_not():
    tree = Quadtree(alpha=0.5)
    picture = scene(672, 224, 3)
    padded = QlipImageProcessor(336, pad="square", quadtree=tree)
    seen, leaves = padded.cut(picture)
    edge = (seen.floats[:, 0] - seen.floats[:, :1, 0]).abs().max()
    assert edge == 0
    assert leaves.size[leaves.row == 0].max() > 1
    assert len(leaves) < 24 * 24 // 2


@pytest.mark.parametrize(
    ("options", "field"),
    [({"size": 112}, "size"), ({"size": None}, "size"), ({"crop": "square"}, "crop"), ({"pad": "square"}, "pad")],
)
def test_options_of_a_call(options, field):
    processor = QlipImageProcessor(224)
    changed = processor.with_options(**options)
    assert getattr(changed, field) == options[field]
    assert changed.quadtree == processor.quadtree
    picture = scene(*LANDSCAPE, 1)
    assert torch.equal(processor(picture, **options).patches, changed(picture).patches)
    assert processor == QlipImageProcessor(224)


def test_options_of_the_quadtree():
    processor = QlipImageProcessor(224, quadtree=Quadtree(alpha=0.5, max_tokens=100, criterion="gradient"))
    assert processor.with_options(alpha=0.7).quadtree == Quadtree(alpha=0.7, criterion="gradient")
    assert processor.with_options(max_tokens=50).quadtree == Quadtree(alpha=0.5, max_tokens=50, criterion="gradient")
    assert processor.with_options(max_tokens=50, alpha=0.7).quadtree.max_tokens == 50
    assert processor.with_options(max_tokens=None).quadtree.max_tokens is None
    with pytest.raises(TypeError, match=f"options: got colour; takes {', '.join(OPTIONS)}"):
        processor.with_options(colour="red")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 2.0},
        {"alpha": 1},
        {"max_tokens": 60},
        {"size": None},
        {"size": 112},
        {"crop": "square"},
        {"pad": "square"},
    ],
    ids=str,
)
def test_a_call_of_the_converted_processor(pair, pictures, options):
    _, processor = pair
    settings = processor.image_processor.settings.with_options(**options)
    inputs = processor(images=pictures, text=[ONE, TWO], return_tensors="pt", padding=True, **options)
    counts = settings.count_tokens(pictures)
    assert [len(patches) for patches, _ in inputs["pixel_values"]] == counts
    assert (inputs["input_ids"] == 3).sum(1).tolist() == [counts[0], counts[1] + counts[2]]
    assert processor.count_tokens(pictures, **options) == counts
    assert processor.count_tokens([pictures[:1], pictures[1:]], **options) == counts
    nested = processor(images=[pictures[:1], pictures[1:]], text=[ONE, TWO], images_kwargs=options)
    assert [len(patches) for patches, _ in nested["pixel_values"]] == counts


def test_options_make_a_difference(pair, pictures):
    costs = [
        pair[1].count_tokens(pictures, **options) for options in ({}, {"alpha": 2.0}, {"size": 336}, {"pad": "square"})
    ]
    assert len({tuple(cost) for cost in costs}) == 4


def test_files_arrays_and_tensors(pair, pictures, tmp_path):
    pictures[0].save(tmp_path / "a.png")
    array = np.asarray(pictures[0])
    for image in (str(tmp_path / "a.png"), array, torch.from_numpy(array.copy()).movedim(-1, 0)):
        assert pair[1].count_tokens(image) == pair[1].count_tokens(pictures[0])


def test_bad_values_are_refused_by_name(pair, pictures):
    with pytest.raises(ValueError, match="crop: got 'middle'"):
        pair[1](images=pictures[0], text=ONE, crop="middle")
    with pytest.raises(ValueError, match="max_tokens: got 0; takes a whole number"):
        pair[1](images=pictures[0], text=ONE, max_tokens=0)
    with pytest.raises(TypeError, match=r"options: got max_token; takes alpha, .*did you mean 'max_tokens'"):
        pair[1](images=pictures[0], text=ONE, max_token=100)


def test_a_path_gives_the_same_pixels_as_the_picture_in_it(pair, tmp_path):
    """transformers would cut 16 bits off at 255 and lay transparency over black."""
    wide = Image.fromarray(np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64))
    clear = Image.new("RGBA", (64, 64), (10, 20, 30, 0))
    for number, picture in enumerate([wide, clear]):
        path = tmp_path / f"{number}.png"
        picture.save(path)
        address = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        wanted = pair[1](images=picture, text=ONE)["pixel_values"][0][0]
        assert torch.equal(wanted, pair[1].image_processor.settings(np.asarray(to_rgb(picture))).patches[0])
        for image in (path, str(path), path.read_bytes(), address, [path], [[path]]):
            assert torch.equal(pair[1](images=image, text=ONE)["pixel_values"][0][0], wanted)


def test_pictures_that_cannot_be_had_are_named(pair, tmp_path):
    for image in (tmp_path / "missing.png", str(tmp_path / "missing.png"), "http://127.0.0.1:9/a.png"):
        with pytest.raises(OSError, match=f"^image: {image} cannot be"):
            pair[1](images=image, text=ONE)
    with pytest.raises(OSError, match="not encoded in base64"):
        pair[1](images="data:image/png;base64,?", text=ONE)
    with pytest.raises(TypeError, match="image: got int; takes a PIL image"):
        pair[1](images=3, text=ONE)


@pytest.mark.parametrize("size", [224, None])
def test_the_most_an_image_of_a_size_can_cost(pair, size):
    most = (
        pair[1]
        ._get_num_multimodal_tokens(image_sizes=[(240, 360), (100, 100)], size=size, crop="patch")
        .num_image_tokens
    )
    grids = [paper_grid(360, 240, size), paper_grid(100, 100, size)]
    assert most == [h * w for h, w in grids]
    limited = pair[1]._get_num_multimodal_tokens(image_sizes=[(240, 360)], size=size, max_tokens=90).num_image_tokens
    assert limited == [90]


def test_images_of_one_shape_and_budget_need_no_padding(pair):
    photos = [scene(360, 240, seed) for seed in range(4)]
    inputs = pair[1](images=photos, text=[ONE] * 4, return_tensors="pt", padding=True, max_tokens=100)
    assert inputs["attention_mask"].all()
    assert len({len(patches) for patches, _ in inputs["pixel_values"]}) == 1


def test_images_of_any_shape_under_one_budget_lie_within_two_tokens(pair):
    photos = [scene(*shape, 5) for shape in ((360, 240), (240, 360), (224, 224), (500, 230), (230, 320))]
    inputs = pair[1](images=photos, text=[ONE] * 5, return_tensors="pt", padding=True, max_tokens=120)
    counts = [len(patches) for patches, _ in inputs["pixel_values"]]
    assert 118 <= min(counts) <= max(counts) <= 120


@pytest.fixture(scope="session")
def photograph():
    return scene(400, 300, 6).resize((4000, 3000), Image.Resampling.NEAREST)


def test_a_huge_photograph_fits_the_free_context(own_pair, photograph):
    """4000 x 3000 pixels at a shortest edge of 1344 are 12 000 patches: three times the whole context."""
    model, processor = own_pair
    context = model.config.text_config.max_position_embeddings
    budget = processor.budget(ONE, context, max_new_tokens=NEW)
    assert budget == context - NEW - 7
    assert processor.count_tokens(photograph, alpha=0.0, size=1344)[0] > context
    inputs = processor(images=photograph, text=ONE, return_tensors="pt", max_tokens=budget, size=1344)
    length = inputs["input_ids"].shape[1]
    assert context - 2 <= length + NEW <= context
    assert model.generate(**inputs, max_new_tokens=1).shape == (1, length + 1)


def test_a_native_photograph_keeps_its_size_where_roots_cover_it(photograph):
    """At 4000 pixels the paper's cover leaves thousands of single patches around its roots, so that it is scaled down."""
    full = QlipImageProcessor(None, quadtree=Quadtree(max_tokens=4000))
    roots = full.with_options(cover="roots")
    assert full.fitted(photograph).grid(3000, 4000) == full.grid(3000, 4000) == (214, 285)
    assert math.prod(roots.fitted(photograph).grid(3000, 4000)) < 214 * 285
    for settings in (full, roots):
        assert 3998 <= settings.count_tokens(photograph)[0] <= 4000


def test_the_context_is_checked_before_anything_is_encoded(own_pair, photograph, monkeypatch):
    model, processor = own_pair
    context = model.config.text_config.max_position_embeddings
    inputs = processor(images=photograph, text=ONE, return_tensors="pt", max_tokens=context, size=1344)
    monkeypatch.setattr(type(model.model), "get_image_features", None)  # must not be reached
    with pytest.raises(
        ValueError, match=f"do not fit the model's context of {context}. Set max_tokens=(\\d+) or lower"
    ) as says:
        model.generate(**inputs, max_new_tokens=NEW)
    monkeypatch.undo()
    budget = int(re.search(r"max_tokens=(\d+) or", str(says.value))[1])
    assert budget == processor.budget(ONE, context, NEW)
    fitting = processor(images=photograph, text=ONE, return_tensors="pt", max_tokens=budget, size=1344)
    assert model.generate(**fitting, max_new_tokens=NEW).shape[1] > budget


def test_a_picture_that_its_file_says_to_turn_is_turned_once(pair, tmp_path):
    """A phone writes how it was held; the picture passes several hands on its way to the model."""
    upright, exif = scene(240, 360, 7), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    expected = pair[1](images=upright, text=ONE)["pixel_values"][0]
    opened = Image.open(tmp_path / "phone.png")
    for way in (tmp_path / "phone.png", opened, opened.copy()):
        got = pair[1](images=way, text=ONE)["pixel_values"][0]
        assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


@pytest.mark.parametrize("earlier", [0, 12])
def test_the_budget_that_is_named_counts_images_of_earlier_turns(earlier):
    X, context = 99, 60
    ids = torch.tensor([[1] * 10 + [X] * earlier + [X] * 50])
    room = context - 5 - 10 - earlier
    with pytest.raises(ValueError, match=f"got {60 + earlier} tokens, .*Set max_tokens={room} or lower"):
        check_context(ids, X, [50], 5, context)
    check_context(ids[:, : 10 + earlier + room], X, [room], 5, context)  # fits


def test_an_automatic_budget_is_what_the_context_leaves(own_pair, photograph):
    model, processor = own_pair
    context = model.config.text_config.max_position_embeddings
    inputs = processor(
        images=[photograph] * 3, text=[ONE, TWO], padding=True, return_tensors="pt",
        max_tokens="auto", max_new_tokens=NEW, size=1344,
    )  # fmt: skip
    assert context - 6 <= inputs["input_ids"].shape[1] + NEW <= context
    processor.context = None
    with pytest.raises(ValueError, match='max_tokens: got "auto"; takes a number'):
        processor(images=photograph, text=ONE, max_tokens="auto")
    assert processor(text="what is there", max_tokens="auto").keys() == processor(text="what is there").keys()


def test_defaults_never_cost_more_than_the_stock_model(llava, processor):
    _, converted = qlip.convert(copy.deepcopy(llava), processor)
    photos = [scene(*shape, 5) for shape in ((360, 240), (240, 360), (224, 224), (500, 230), (1200, 900))]
    for size in ("model", None, 448):
        options = {} if size == "model" else {"size": size}
        stock = (llava.config.vision_config.image_size // 14) ** 2
        assert max(converted.count_tokens(photos, **options)) <= stock


def test_options_of_the_tree_for_one_call(pair):
    """Each alone changes the leaves, and counting agrees with the call."""
    score = np.zeros((10, 10))
    score[2, 3] = 1
    calls = [
        {"max_tokens": 80}, {"max_tokens": 80, "criterion": "gradient"}, {"max_tokens": 80, "cover": "roots"},
        {"max_tokens": 80, "fit": "scale", "alpha": 0.5}, {"max_tokens": 80, "score": score},
    ]  # fmt: skip
    picture, seen = scene(250, 360, 5), set()
    for options in calls:
        inputs = pair[1](images=picture, text=ONE, **options)
        (_, leaves) = inputs["pixel_values"][0]
        seen.add(tuple(leaves.flatten().tolist()))
        assert [len(leaves)] == pair[1].count_tokens(picture, **options)
    assert len(seen) == len(calls)


def test_the_budget_is_shared_by_the_images_of_a_prompt(pair):
    assert pair[1].budget(TWO, 1000, 50) == (1000 - 50 - 11) // 2
    for text, context in (("USER: what is there ? ASSISTANT:", 1000), (ONE, 40)):
        with pytest.raises(ValueError, match="leave no room for images"):
            pair[1].budget(text, context, 35)


def test_mean_and_deviation_are_the_processor_s(llava, processor):
    images = CLIPImageProcessor(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.2, 0.1])
    other = LlavaProcessor(images, processor.tokenizer, patch_size=14, vision_feature_select_strategy="default")
    _, converted = qlip.convert(llava, other, position="zero")
    settings = converted.image_processor.settings
    assert (settings.mean, settings.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
