"""A prompt that does not fit its images is refused before the language model runs, naming the image."""

import copy

import pytest
import torch

from qlip.families.placeholders import check_placeholders, placeholder_runs
from tests.families.conftest import NONE, ONE, TWO

X = 3


def row(*runs: int) -> list[int]:
    """Token ids with runs of placeholders between words."""
    return [7] + [token for run in runs for token in [X] * run + [8]]


def test_runs():
    ids = torch.tensor([row(2, 3), row(4, 1)])
    assert list(placeholder_runs(ids, X)) == [(0, 2), (0, 3), (1, 4), (1, 1)]
    assert list(placeholder_runs([row(2, 3), row(4), [7]], X)) == [(0, 2), (0, 3), (1, 4)]


def test_runs_with_breaks():
    lines = row(2, 3)  # one image, a break after two tokens, words around
    for ids in (torch.tensor([lines + lines]), [lines + lines]):
        assert list(placeholder_runs(ids, X, breaks=1)) == [(0, 5), (0, 5)]
    assert list(placeholder_runs([row(2, 3), [X], [7, 9]], X, breaks=1)) == [(0, 5), (1, 1)]
    check_placeholders([lines + lines], [5, 5], X, breaks=1)
    with pytest.raises(ValueError, match="image 1 in prompt 0 has 4 tokens, but 5 placeholders"):
        check_placeholders([lines + lines], [5, 4], X, breaks=1)


@pytest.mark.parametrize(
    ("ids", "counts"), [([row(2, 3), row(4)], [2, 3, 4]), ([row(5), row(4)], [2, 3, 4]), ([[7]], [])]
)
def test_prompts_that_fit(ids, counts):
    check_placeholders(ids, counts, X)


@pytest.mark.parametrize(
    ("ids", "counts", "says"),
    [
        ([row(2), row(2)], [2, 3], "image 1 in prompt 1 has 3 tokens, but 2 placeholders"),
        ([row(2), row(4)], [2, 3], "image 1 in prompt 1 has 3 tokens, but 4 placeholders"),
        ([row(3), row(2)], [2, 3], "image 0 in prompt 0 has 2 tokens, but 3 placeholders"),
        ([row(2)], [2, 3], "image 1 has 3 tokens, but 0 placeholders; likely cause: no prompt has a place for it"),
        ([row(2), row(1)], [2], "image 1 in prompt 1 has 0 tokens, but 1 placeholders; .* more places for images"),
        ([row(1)], [576], "image 0 in prompt 0 has 576 tokens, but 1 placeholders; .* written by hand"),
        ([row(4)], [2, 3], "image 1 in prompt 0 has 3 tokens, but 2 placeholders"),
    ],
)
def test_prompts_that_do_not_fit(ids, counts, says):
    with pytest.raises(ValueError, match=says):
        check_placeholders(ids, counts, X)


@pytest.fixture
def deaf(own_pair, monkeypatch):
    """A pair whose language model must not be reached."""

    def reached(*args, **kwargs):
        raise AssertionError("the language model ran")

    monkeypatch.setattr(own_pair[0].model.language_model, "forward", reached)
    return own_pair


@pytest.mark.parametrize(
    "run", [lambda m, x: m(**x), lambda m, x: m.generate(**x), lambda m, x: m.generate(**x, num_beams=3)]
)
@pytest.mark.parametrize("ids", ["cut", "by hand", "swapped"])
def test_the_model_refuses(deaf, pictures, run, ids):
    model, processor = deaf
    inputs = processor(images=pictures, text=[ONE, TWO], return_tensors="pt", padding=True)
    counts = [len(patches) for patches, _ in inputs["pixel_values"]]
    if ids == "cut":
        inputs["input_ids"], inputs["attention_mask"] = inputs["input_ids"][:, :200], inputs["attention_mask"][:, :200]
        left = int((inputs["input_ids"][0] == X).sum())  # it was padded on the left
        says = f"image 0 in prompt 0 has {counts[0]} tokens, but {left} placeholders"
    elif ids == "by hand":
        inputs["input_ids"] = torch.tensor([[1, X, 7, 8], [1, X, X, 8]])
        inputs["attention_mask"] = torch.ones(2, 4)
        says = f"image 0 in prompt 0 has {counts[0]} tokens, but 1 placeholders"
    else:  # the sum over the batch is right, which is all that transformers looks at
        inputs["pixel_values"] = inputs["pixel_values"][::-1]
        says = f"image 0 in prompt 0 has {counts[2]} tokens, but {counts[0]} placeholders"
    with pytest.raises(ValueError, match=says):
        run(model, inputs)


def test_embeddings_handed_over_are_checked_too(deaf, pictures):
    model, processor = deaf
    inputs = processor(images=pictures[:1], text=ONE, return_tensors="pt")
    features = model.get_image_features(inputs.pop("pixel_values"))
    features.pooler_output = [features.pooler_output[0][1:]]
    with pytest.raises(ValueError, match="image 0 in prompt 0 has"):
        model._expand_inputs_for_generation(input_ids=inputs["input_ids"], mm_encoder_outputs={"image": features})


@pytest.mark.parametrize("tensors", [None, "pt"])
def test_the_processor_refuses_a_prompt_cut_inside_an_image(pair, pictures, tensors):
    _, processor = pair
    expected = processor.count_tokens(pictures[:1])[0]
    with pytest.raises(
        ValueError, match=f"image 0 in prompt 0 has {expected} tokens, but 48 .* cut at max_length=50"
    ) as error:
        processor(images=pictures[:1], text=ONE, max_length=50, truncation=True, return_tensors=tensors)
    assert "lower max_tokens" in str(error.value)


def test_the_processor_leaves_prompts_without_images_alone(pair):
    assert pair[1](text=[NONE, NONE], max_length=3, truncation=True)["input_ids"] == [[1, 5, 15]] * 2


def test_the_number_of_places_and_images_must_agree(pair, pictures):
    with pytest.raises(ValueError, match=r"number of <image> tokens|image 1 has 150 tokens"):
        pair[1](images=pictures, text=ONE)


def test_what_is_refused_is_left_as_it_was(pair, pictures):
    model, processor = pair
    inputs = processor(images=pictures, text=[ONE, TWO], return_tensors="pt", padding=True)
    before = copy.deepcopy(inputs)
    with pytest.raises(ValueError, match="image 0"):
        model.generate(**{**inputs, "pixel_values": inputs["pixel_values"][::-1]})
    assert torch.equal(before["input_ids"], inputs["input_ids"])
