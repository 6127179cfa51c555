"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5 and GLM-4V, tiny and random: one contract for all five."""

import copy
import pickle

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

import qlip
from tests.families.tiny_llava import WORDS, scene
from tests.shaken import shake

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<video>", "<start>", "<end>", "<start-video>", "<end-video>"]
IMAGE, VIDEO, START, END = 4, 5, 6, 7
ONE = "<start> <image> <end> what is there ?"
TWO = "the picture <start> <image> <end> or <start> <image> <end> a red circle ?"
TEXT = {
    "vocab_size": len(SPECIAL + WORDS),
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_heads": 4}
LINEAR = {
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 4,
}
# name: (settings of the tower, of the rotation, of the language model, class of the processor)
FAMILIES = {
    "Qwen2VL": ({"depth": 3, "embed_dim": 64, "hidden_size": 64, "num_heads": 4}, {}, {}, "Qwen2VL"),
    "Qwen2_5_VL": (
        {**TOWER, "depth": 4, "out_hidden_size": 64, "window_size": 112, "fullatt_block_indexes": [1, 3]},
        {},
        {},
        "Qwen2_5_VL",
    ),
    "Qwen3VL": (
        {
            **TOWER,
            "depth": 4,
            "out_hidden_size": 64,
            "num_position_embeddings": 144,
            "deepstack_visual_indexes": [0, 2],
        },
        {},
        {"head_dim": 16},
        "Qwen3VL",
    ),
    "Qwen3_5": (
        {**TOWER, "depth": 3, "out_hidden_size": 64, "num_position_embeddings": 144},
        {"partial_rotary_factor": 0.5},
        {"num_hidden_layers": 4, "head_dim": 32, **LINEAR},
        "Qwen3VL",
    ),
    "Glm4v": (
        {**TOWER, "depth": 3, "image_size": 168, "out_hidden_size": 64},
        {"partial_rotary_factor": 1.0},
        {},
        "Glm4v",
    ),
}
_MODELS = {}


@pytest.fixture(params=[name for name in FAMILIES if hasattr(transformers, f"{name}ForConditionalGeneration")])
def family(request):
    return request.param


@pytest.fixture
def stock(family):
    """A stock model that the test may change."""
    if family not in _MODELS:
        tower, rotation, text, _ = FAMILIES[family]
        placeholders = {"image_token_id": IMAGE, "video_token_id": VIDEO}
        if family == "Glm4v":
            placeholders |= {"image_start_token_id": START, "image_end_token_id": END}
            placeholders |= {"video_start_token_id": 8, "video_end_token_id": 9}
        else:
            placeholders |= {"vision_start_token_id": START, "vision_end_token_id": END}
        config = getattr(transformers, f"{family}Config")(
            text_config={**TEXT, "rope_parameters": {**MROPE, **rotation}, **text},
            vision_config={**tower, "patch_size": 14},
            **placeholders,
        )
        model = shake(getattr(transformers, f"{family}ForConditionalGeneration")(config))
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        model.generation_config.suppress_tokens = [IMAGE, VIDEO]
        _MODELS[family] = model
    return copy.deepcopy(_MODELS[family])


@pytest.fixture
def processor(family):
    """The family's own processor, over a tokenizer of words."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[6:]}, replace_extra_special_tokens=False)
    limits = {"shortest_edge": 56 * 56, "longest_edge": 10**9}
    kind = FAMILIES[family][3]
    glm = kind == "Glm4v"
    images = (transformers.Glm4vImageProcessor if glm else transformers.Qwen2VLImageProcessor)(size=limits)
    videos = transformers.Glm4vVideoProcessor() if glm else transformers.Qwen2VLVideoProcessor()
    return getattr(transformers, f"{kind}Processor")(images, tokenizer, videos)


def answer(model, inputs, **mode):
    output = model.generate(**inputs, **{"max_new_tokens": 6, "do_sample": False, **mode})
    return output[:, inputs["input_ids"].shape[1] :].tolist()


def pictures():
    return [scene(308, 252, 0), scene(360, 240, 1), scene(230, 400, 2)]


@torch.no_grad()
def test_whole_grids_answer_as_the_stock_model(stock, processor):
    inputs = {"images": [scene(9 * 28, 9 * 28, 0), scene(11 * 28, 6 * 28, 1)], "text": [TWO], "return_tensors": "pt"}
    theirs = processor(**inputs)
    expected, words = stock(**theirs).logits, answer(stock, theirs)
    named = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    positions, ahead = stock.model.get_rope_index(**{name: theirs[name] for name in named})
    model, converted = qlip.convert(stock, processor, criterion="uniform")
    ours = converted(**inputs)
    told = model.model.get_rope_index(**{name: ours[name] for name in named})
    assert torch.equal(told[0].long(), positions)
    assert torch.equal(told[1], ahead)  # decides where the answer stands
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    pixels = (
        theirs["pixel_values"].unflatten(1, (3, 2, 14, 14))[:, :, 0].split([len(p) for p, _ in ours["pixel_values"]])
    )
    for (patches, _), expected_patches in zip(ours["pixel_values"], pixels, strict=True):
        assert (patches - expected_patches).abs().max() < 1e-5
    ours["pixel_values"] = [(p, leaves) for p, (_, leaves) in zip(pixels, ours["pixel_values"], strict=True)]
    assert (model(**ours).logits - expected).abs().max() < 1e-4
    assert answer(model, ours) == words


@torch.no_grad()
def test_a_ragged_batch_answers_as_its_prompts_alone_and_keeps_to_the_budget(stock, processor):
    model, converted = qlip.convert(stock, processor, max_tokens=40, cover="full")
    batch = converted(images=pictures(), text=[ONE, TWO], return_tensors="pt", padding=True)
    counts = [len(leaves) for leaves in batch["image_grid_thw"]]
    assert counts == converted.count_tokens(pictures())
    assert all(38 <= count <= 40 for count in counts)
    assert batch["attention_mask"][0, 0] == 0
    alone = [
        converted(images=images, text=[text], return_tensors="pt")
        for images, text in ((pictures()[:1], ONE), (pictures()[1:], TWO))
    ]
    for mode in ({}, {"num_beams": 3}):
        assert answer(model, batch, **mode) == [answer(model, inputs, **mode)[0] for inputs in alone]


@torch.no_grad()
def test_where_leaves_stand_matters_in_the_tower_and_in_the_language_model(stock, processor):
    model, converted = qlip.convert(stock, processor, max_tokens=40, cover="full")
    inputs = converted(images=pictures()[0], text=[ONE], return_tensors="pt")
    expected = model(**inputs).logits
    (patches, leaves), *_ = inputs["pixel_values"]
    moved = torch.cat([leaves[:, :3].flip(0), leaves[:, 3:]], dim=1)
    for change in ({"pixel_values": [(patches, moved)]}, {"image_grid_thw": [moved]}):
        assert (model(**{**inputs, **change}).logits - expected).abs().max() > 1e-2


@torch.no_grad()
def test_it_is_saved_loaded_pickled_and_restored(stock, processor, tmp_path):
    theirs = processor(images=pictures()[0], text=[ONE], return_tensors="pt")
    expected = stock(**theirs).logits
    stock.generation_config = type(stock.generation_config)()
    stock.save_pretrained(tmp_path / "stock")
    processor.save_pretrained(tmp_path / "stock")
    with pytest.raises(OSError, match="so it is stock"):
        qlip.from_pretrained(tmp_path / "stock")
    model, converted = qlip.convert(stock, processor, max_tokens=40, cover="full")
    model.save_pretrained(tmp_path)
    converted.save_pretrained(tmp_path)
    loaded, other = qlip.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert type(other) is type(converted)
    inputs = converted(images=pictures()[0], text=[ONE], return_tensors="pt")
    logits = model(**inputs).logits
    assert torch.equal(loaded(**inputs).logits, logits)
    # pixels and leaves alone: beside a qwen3_5 config transformers reads any tokenizer as its own
    again = other(images=pictures()[0], text=[ONE], return_tensors="pt")
    assert torch.equal(again["image_grid_thw"][0], inputs["image_grid_thw"][0])
    assert torch.equal(again["pixel_values"][0][0], inputs["pixel_values"][0][0])
    assert torch.equal(pickle.loads(pickle.dumps(model))(**inputs).logits, logits)
    restored = qlip.restore(model)
    assert not hasattr(restored, "qlip")
    assert torch.equal(restored(**theirs).logits, expected)


def test_what_it_does_not_take_is_refused_by_name(stock, processor):
    with pytest.raises(ValueError, match="rotates"):
        qlip.convert(stock, processor, position="solve")
    model, converted = qlip.convert(stock, processor, max_tokens=40, cover="full")
    with pytest.raises(ValueError, match="got videos"):
        converted(videos=torch.zeros(4, 3, 56, 56), text=["<video> what ?"])
    with pytest.raises(ValueError, match="got videos"):
        model.get_video_features(torch.zeros(1))
    inputs = converted(images=pictures()[0], text=[ONE], return_tensors="pt")
    with pytest.raises(ValueError, match="got videos"):
        model.generate(**inputs, video_grid_thw=torch.ones(1, 3))
    for call in (model, model.generate):
        with pytest.raises(TypeError, match=r"image_grid_thw: got NoneType.*Pass on all"):
            call(**{name: value for name, value in inputs.items() if name != "image_grid_thw"})
    with pytest.raises(TypeError, match=r"image_grid_thw.*converted processor"):
        model.generate(**processor(images=pictures()[0], text=[ONE], return_tensors="pt"))
