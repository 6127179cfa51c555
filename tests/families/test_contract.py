"""Every family against its own class of transformers, one row each: adding a family is adding a row.

This half asks what a prompt becomes; `test_contract_generate` asks for every way to read and answer it.
"""

import copy
import pickle

import pytest
import skimage.data
import torch

import qlip
from qlip.families import FAMILIES
from qlip.families.base import ConvertedGenerative
from qlip.images.pixels import to_pairs
from tests.families.case import answer, deviation, inputs_of
from tests.families.rows import ROWS
from tests.families.tiny_llava import scene


@torch.no_grad()
def test_uniform_leaves_at_the_native_size_are_the_stock_model(case):
    which = slice(*case.row.compared)
    stock = case.stock_inputs(which)
    expected, words = case.model(**stock, output_hidden_states=True), answer(case.model, stock)
    converted, new = case.convert(criterion="uniform", max_tokens=None)
    inputs = case.inputs(new, case.natives, which)
    assert inputs.keys() == stock.keys() - case.row.left_out
    for name in inputs.keys() - set(case.row.leaves):
        assert torch.equal(inputs[name], stock[name]), name
    seen, got = inputs["attention_mask"].bool(), converted(**inputs, output_hidden_states=True)
    for ours, theirs in zip((got.logits, *got.hidden_states), (expected.logits, *expected.hidden_states), strict=True):
        assert deviation(ours[seen], theirs[seen]) < 1e-5 * case.row.rounding
    assert answer(converted, inputs) == words


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_a_ragged_batch_answers_as_its_prompts_alone_within_the_budget(case, beams):
    converted, new = case.convert(max_tokens=50, cover="full", size=None)
    batch = case.inputs(new, case.pictures)
    pictures = [picture for pictures in case.pictures for picture in pictures]
    counts = new.count_tokens(pictures)
    within = new.image_processor.count_tokens(pictures)  # without the tokens that each image has besides
    assert all(0 <= 50 - count <= case.row.slack for count in within)
    assert torch.isin(batch["input_ids"], torch.tensor(case.row.counted)).sum(1).tolist() == [
        counts[0],
        counts[1] + counts[2],
        0,
    ]
    assert batch["attention_mask"][2, 0] == 0
    alone = case.alone(new, case.pictures)
    for logits, single in zip(converted(**batch).logits, alone, strict=False):
        own = converted(**single).logits[0]
        assert deviation(logits[-len(own) :], own) < 1e-5 * case.row.rounding
    expected = [answer(converted, single, num_beams=beams)[0] for single in alone]
    words = answer(converted, batch, num_beams=beams)
    assert words[: len(alone)] == expected
    assert len({tuple(each) for each in words}) == 3


@torch.no_grad()
def test_words_without_an_image_are_the_stock_models(case):
    def ask(model, processor):
        inputs = processor(text=case.prompts[2:], return_tensors="pt")
        return model(**inputs).logits, answer(model, inputs)

    if "words alone" in case.row.lacks:
        with pytest.raises(ValueError, match="image"):
            ask(case.model, case.processor)
        return
    logits, words = ask(case.model, case.processor)
    ours, new_words = ask(*case.convert())
    assert torch.equal(ours, logits)
    assert new_words == words


@torch.no_grad()
def test_leaves_told_to_stand_elsewhere_are_seen_otherwise(case):
    converted, new = case.convert(max_tokens=50, size=None)
    inputs = case.inputs(new, case.pictures, slice(1))
    before = converted(**inputs).logits
    *others, (patches, leaves) = to_pairs(inputs["pixel_values"])
    moved = torch.cat([leaves[:, :2].flip(0), leaves[:, 2:]], dim=1)
    for name in case.row.leaves:  # the tower is told by the one, some language models by the other
        changed = [*others, (patches, moved)] if name == "pixel_values" else [moved]
        assert deviation(converted(**{**inputs, name: changed}).logits, before) > 0.01


@torch.no_grad()
def test_it_is_saved_loaded_and_restored(case, tmp_path):
    stock = case.stock_inputs(slice(1))
    expected = case.model(**stock).logits
    converted, new = case.convert(max_tokens=50, size=None)
    case.model.generation_config = type(case.model.generation_config)()  # transformers saves no None
    for each in (converted, new):
        each.save_pretrained(tmp_path)
    loaded, other = qlip.from_pretrained(tmp_path)
    assert (type(loaded), type(other)) == (type(converted), type(new))
    ours, theirs = (case.inputs(each, case.pictures, slice(1, 2)) for each in (new, other))
    again = case.inputs(type(case.processor).from_pretrained(tmp_path), case.natives, slice(1), **dict(case.row.plain))
    if "reading its tokenizer" in case.row.lacks:  # the stock processor was saved as it is
        assert again["input_ids"].tolist() != stock["input_ids"].tolist()
        again, theirs = (
            {**got, **{k: v for k, v in ids.items() if torch.is_tensor(v) and k != "pixel_values"}}
            for got, ids in ((again, stock), (theirs, ours))
        )
    # with torchvision < 0.27 transformers reads Idefics' processor as its twin on PIL, a last bit apart
    torch.testing.assert_close(again["pixel_values"], stock["pixel_values"], rtol=0, atol=1e-6)
    again = {**again, "pixel_values": stock["pixel_values"]}
    assert torch.equal(loaded(**theirs).logits, converted(**ours).logits)
    stock_class = type(qlip.restore(copy.deepcopy(converted)))
    assert torch.equal(stock_class.from_pretrained(tmp_path)(**again).logits, expected)
    assert torch.equal(qlip.restore(converted)(**again).logits, expected)
    assert not hasattr(converted, "qlip")


@torch.no_grad()
def test_it_is_pickled(case):
    converted, new = case.convert(max_tokens=50, size=None)
    other, again = pickle.loads(pickle.dumps((converted, new)))
    assert (type(other), type(again)) == (type(converted), type(new))
    ours, theirs = (case.inputs(each, case.pictures) for each in (new, again))
    assert torch.equal(other(**theirs).logits, converted(**ours).logits)


def test_a_stock_folder_is_refused(case, tmp_path):
    case.model.generation_config = type(case.model.generation_config)()
    for each in (case.model, case.processor):
        each.save_pretrained(tmp_path)
    with pytest.raises(OSError, match="so it is stock"):
        qlip.from_pretrained(tmp_path)


def test_a_budget_leaves_room_for_what_stands_around_an_image(case):
    _, new = case.convert(size=None, criterion="uniform", max_tokens=None)
    within = new.image_processor.count_tokens(case.pictures[1])
    length = case.inputs(new, case.pictures, slice(1, 2))["input_ids"].shape[1]
    assert new.budget(case.prompts[1], context=length + 10, max_new_tokens=10) == sum(within) // 2


def test_a_prompt_that_was_cut_inside_an_image_is_refused(case):
    _, new = case.convert(size=None)
    with pytest.raises(ValueError, match=r"cut at max_length=12"):
        new(images=case.pictures[:1], text=case.prompts[:1], max_length=12, truncation=True)


@torch.no_grad()
def test_paligemmas_suffix_becomes_labels():
    row = ROWS["paligemma"]
    model, processor = row.make(), row.processor()
    converted, new = qlip.convert(model, processor, position="zero", criterion="uniform", max_tokens=None)
    stock, ours = (
        inputs_of(each, [[scene(row.side, row.side, 1)]], ["<image> what is there"], suffix=["left right"])
        for each in (processor, new)
    )
    assert torch.equal(ours["labels"], stock["labels"])
    assert converted(**ours).loss > 0


def test_videos_are_refused():
    row = ROWS["internvl"]
    _, new = qlip.convert(row.make(), row.processor(), position="zero")
    with pytest.raises(ValueError, match=r"videos: got some; a converted InternVL takes images alone"):
        new(videos=[torch.zeros(4, 3, 28, 28, dtype=torch.uint8)], text=["<video> what is there"])


def test_every_family_that_answers_has_a_row():
    answering = {kind for kind, family in FAMILIES.items() if issubclass(family, ConvertedGenerative)}
    assert {type(row.make()) for row in ROWS.values()} == answering


@pytest.mark.parametrize("name", ["astronaut", "chelsea"])
def test_defaults_never_cost_more_than_the_stock_model(case, name):
    if case.row is ROWS["llava next"]:
        pytest.skip("its row has one tile alone, see test_tiles.py")
    photograph, counted = getattr(skimage.data, name)(), torch.tensor(case.row.counted)
    _, new = case.convert()
    ours, stock = (
        torch.isin(inputs_of(processor, [[photograph]], case.prompts[:1])["input_ids"], counted).sum()
        for processor in (new, case.processor)
    )
    assert ours <= stock
