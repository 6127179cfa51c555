"""Models in which one vector stands for a picture, against their own classes of transformers: zero-shot models and classifiers."""

import copy
import pickle
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from PIL.Image import Image, Resampling, fromarray
from torch import Tensor
from transformers import AutoImageProcessor, AutoProcessor, PreTrainedModel, ProcessorMixin, pipeline

import qlip
from qlip.families import FAMILIES
from qlip.families.base import ConvertedGenerative
from qlip.images.pixels import to_pairs
from tests.families.case import deviation
from tests.families.embedding_rows import EMBEDDINGS, LABELS, PATCH, SIDE
from tests.families.tiny_llava import scene
from tests.shaken import shake

TEXTS = ["what is left </s>", "is there what </s>", "right </s>"]
ASIS = {"do_resize": False, "do_center_crop": False}


@cache
def stock_model(name: str) -> PreTrainedModel:
    return shake(EMBEDDINGS[name].make())


class Embedder:
    """A row with a model of its own, which a test may change."""

    def __init__(self, name: str) -> None:
        self.row = EMBEDDINGS[name]
        self.model: Any = copy.deepcopy(stock_model(name))
        self.processor: Any = self.row.processor()
        self.natives = [scene(SIDE, SIDE, seed) for seed in range(3)]
        self.pictures = [scene(w * PATCH, h * PATCH, seed) for seed, (w, h) in enumerate(((9, 9), (7, 12), (12, 8)))]

    @property
    def reads(self) -> bool:
        """Whether the model takes words."""
        return isinstance(self.processor, ProcessorMixin)

    def inputs(self, processor: Any, images: list[Image], **options: object) -> Any:
        """What a processor makes of pictures, and of the words where there are any."""
        words = {"text": TEXTS, "padding": "max_length", "max_length": 12} if self.reads else {}
        return processor(images=images, return_tensors="pt", **words, **options)

    def convert(self, **options: object) -> Any:
        return qlip.convert(self.model, self.processor, position=self.row.position, **options)

    def ragged(self, **options: object) -> tuple[Any, Any, Any]:
        """The converted model, its processor, and what that makes of pictures of three shapes with 50 tokens at most."""
        converted, new = self.convert(max_tokens=50, cover="full", size=None, **options)
        return converted, new, self.inputs(new, self.pictures)


@pytest.fixture(params=EMBEDDINGS)
def case(request: pytest.FixtureRequest) -> Embedder:
    return Embedder(request.param)


def logits(output: Any) -> Tensor:
    return output.logits_per_image if "logits_per_image" in output else output.logits


def with_pixels(inputs: Any, pixel_values: object) -> dict[str, Any]:
    return {**inputs, "pixel_values": pixel_values}


@torch.no_grad()
def test_uniform_leaves_at_the_native_size_are_the_stock_model(case):
    stock = case.inputs(case.processor, case.natives)
    expected = case.model(**stock, output_hidden_states=True)
    converted, new = case.convert(criterion="uniform", max_tokens=None)
    inputs = case.inputs(new, case.natives)
    assert inputs.keys() == stock.keys() - case.row.left_out
    for name in inputs.keys() - {"pixel_values"}:
        assert torch.equal(inputs[name], stock[name]), name
    got = converted(**inputs, output_hidden_states=True)
    assert deviation(logits(got), logits(expected)) < 1e-5
    assert logits(expected).std() > 0.01
    theirs = expected.vision_model_output if case.reads else expected
    ours = got.vision_model_output if case.reads else got
    for one, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert deviation(one, other) < 1e-5
    assert torch.equal(converted(**inputs, return_dict=False)[0], got[0])


@torch.no_grad()
def test_other_sizes_are_its_own_interpolation(case):
    stock = copy.deepcopy(case.model)
    converted, new = case.convert(criterion="uniform", size=None, max_tokens=None)
    for h, w in case.row.grids:
        picture = [scene(w * PATCH, h * PATCH, 5)]
        free = {"max_num_patches": h * w} if case.row.left_out else ASIS
        expected = stock(**case.inputs(case.processor, picture, **free), **case.row.told)
        assert deviation(logits(converted(**case.inputs(new, picture))), logits(expected)) < 1e-4


@torch.no_grad()
def test_a_ragged_batch_is_its_pictures_alone_within_the_budget(case):
    converted, new, batch = case.ragged()
    counts = new.count_tokens(case.pictures)
    assert counts == [len(leaves) for _, leaves in batch["pixel_values"]]
    assert all(0 <= 50 - count <= 2 for count in counts)
    together = logits(converted(**batch))
    for row, pair in zip(together, to_pairs(batch["pixel_values"]), strict=True):
        assert deviation(row, logits(converted(**with_pixels(batch, [pair])))[0]) < 1e-5
    assert torch.pdist(together).min() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("weighting", [None, "once"])
def test_by_area_a_leaf_is_as_many_leaves_as_it_has_patches(case, weighting):
    """As tokens repeated count, which nothing here was told of; a control is not repeated, and differs."""
    converted, _, batch = case.ragged(weighting=weighting)
    assert converted.qlip.weighting == (weighting or "area")
    repeated = [
        tuple(each.repeat_interleave(leaves[:, 2].square(), dim=0) for each in (patches, leaves))
        for patches, leaves in to_pairs(batch["pixel_values"])
    ]
    got, converted.qlip.weighting = logits(converted(**batch)), "once"
    away = deviation(got, logits(converted(**with_pixels(batch, repeated))))
    assert away < 1e-5 if weighting is None else away > 0.01


@torch.no_grad()
def test_a_tree_over_plain_patches_is_the_whole_grid_by_area(case):
    """Where no leaf holds more than one colour and nobody is told a place, merging loses nothing but the count."""
    colours = torch.randint(0, 256, (4, 4, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    colours[:2, :2] = colours[0, 0]  # blocks of two sizes: were all alike, counting would make no difference
    plain = [fromarray(colours.numpy()).resize((SIDE, SIDE), Resampling.NEAREST)]
    case.row = replace(case.row, position="zero")
    converted, new = case.convert(alpha=1e-3, cover="full")
    assert sum(new.count_tokens(plain)) < 100
    tree = case.inputs(new, plain)
    whole = logits(converted(**case.inputs(new, plain, alpha=0)))
    assert deviation(logits(converted(**tree)), whole) < 1e-5
    converted.qlip.weighting = "once"
    assert deviation(logits(converted(**tree)), whole) > 1e-3


@torch.no_grad()
def test_leaves_told_to_stand_elsewhere_are_seen_otherwise(case):
    converted, _, batch = case.ragged()
    moved = [(x, torch.cat([leaves[:, :2].flip(0), leaves[:, 2:]], dim=1)) for x, leaves in batch["pixel_values"]]
    assert deviation(logits(converted(**with_pixels(batch, moved))), logits(converted(**batch))) > 0.01


@torch.no_grad()
def test_it_is_saved_loaded_pickled_and_restored(case, tmp_path):
    stock = case.inputs(case.processor, case.natives)
    expected, attributes = logits(case.model(**stock)), set(vars(case.model))
    converted, new, batch = case.ragged()
    answer = logits(converted(**batch))
    for each in (converted, new):
        each.save_pretrained(tmp_path)
    for model, processor in (qlip.from_pretrained(tmp_path), pickle.loads(pickle.dumps((converted, new)))):
        assert (type(model), type(processor)) == (type(converted), type(new))
        assert model.qlip.weighting == "area"
        assert torch.equal(logits(model(**case.inputs(processor, case.pictures))), answer)
    plain = type(case.model).original.from_pretrained(tmp_path)
    again = (AutoProcessor if case.reads else AutoImageProcessor).from_pretrained(tmp_path)
    assert type(again) is type(case.processor)
    for model in (plain, qlip.restore(converted)):
        assert type(model).__module__.startswith("transformers.")
        assert torch.equal(logits(model(**case.inputs(again, case.natives))), expected)
    assert set(vars(case.model)) == attributes
    assert not hasattr(qlip.towers.base.find_tower(converted).module, "qlip")


def test_a_stock_folder_is_refused(case, tmp_path):
    for each in (case.model, case.processor):
        each.save_pretrained(tmp_path)
    with pytest.raises(OSError, match="so it is stock"):
        qlip.from_pretrained(tmp_path)


def test_loss_and_gradients_are_the_stock_models(case):
    told = {"return_loss": True} if case.reads else {"labels": torch.tensor([0, 3, LABELS - 1])}
    found = []
    for convert in (False, True):
        model = copy.deepcopy(case.model)
        processor = case.processor
        if convert:
            model, processor = qlip.convert(
                model, processor, position=case.row.position, criterion="uniform", max_tokens=None
            )
        loss = model(**case.inputs(processor, case.natives), **told).loss
        loss.backward()
        found.append((loss, {name: x.grad for name, x in model.named_parameters() if "position" not in name}))
    (loss, gradients), (ours, others) = found
    assert deviation(ours, loss) < 1e-5
    seen = [name for name, gradient in gradients.items() if gradient is not None and gradient.norm() > 1e-3]
    assert len(seen) > 20
    assert max(deviation(others[name], gradients[name]) for name in seen) < 1e-3


@torch.no_grad()
def test_weights_may_lie_elsewhere(case):
    if "offload" in case.row.lacks:
        stock = case.inputs(case.processor, case.natives)
        cpu_offload(case.model, torch.device("cpu"))
        with pytest.raises(RuntimeError, match="device meta"):
            case.model(**stock)
        return
    converted, _, batch = case.ragged()
    expected = logits(converted(**batch))
    cpu_offload(converted, torch.device("cpu"))
    assert next(converted.parameters()).device.type == "meta"
    assert torch.equal(logits(converted(**batch)), expected)


def test_pipelines_take_it(case):
    converted, new = case.convert(max_tokens=50, cover="full", size=None)
    task = "zero-shot-image-classification" if case.reads else "image-classification"
    images = new.image_processor if case.reads else new
    words = {"tokenizer": new.tokenizer} if case.reads else {}
    ask = pipeline(task, model=converted, image_processor=images, **words)
    options = {"candidate_labels": ["left", "right"]} if case.reads else {"top_k": LABELS}
    answers = ask(case.pictures, **options)
    assert [len(answer) for answer in answers] == [2 if case.reads else LABELS] * 3
    if not case.reads:
        expected = logits(converted(**new(case.pictures))).softmax(-1)
        for answer, row in zip(answers, expected, strict=True):
            assert [each["score"] for each in answer] == pytest.approx(
                row.sort(descending=True).values.tolist(), rel=1e-4
            )


def test_a_processor_of_another_kind_is_refused():
    vit, clip = EMBEDDINGS["vit"], EMBEDDINGS["clip"]
    model = vit.make()
    with pytest.raises(TypeError, match="got CLIPProcessor; this model takes an image processor"):
        qlip.convert(model, clip.processor(), position="zero")
    with pytest.raises(TypeError, match="got ViTImageProcessor; this model takes a CLIPProcessor"):
        qlip.convert(clip.make(), vit.processor(), position="zero")
    _, new = qlip.convert(model, vit.processor(), position="zero")
    with pytest.raises(ValueError, match="got a ConvertedImageProcessor, which is converted already"):
        qlip.convert(qlip.restore(model), new)


def test_every_family_that_embeds_has_a_row():
    embedding = {kind for kind, family in FAMILIES.items() if not issubclass(family, ConvertedGenerative)}
    assert {type(row.make()) for row in EMBEDDINGS.values()} == embedding
