"""A converted LLaVA works wherever the stock one does."""

import copy
import pickle

import pytest
import torch
from transformers import LlamaForCausalLM, pipeline

from qlip.families import llava as qlip_llava
from tests.families.conftest import NEW, NONE, ONE, TWO
from tests.families.tiny_llava import WORDS, scene

CHUNKED = {"prefill_chunk_size": 64}
MODES = [{}, {"num_beams": 3}, {"cache_implementation": "static"}, {"use_cache": False}, CHUNKED]


@pytest.fixture(scope="session")
def batch(pair, pictures):
    """Prompts with one image, two, none; images of three shapes."""
    return pair[1](images=pictures, text=[ONE, TWO, NONE], return_tensors="pt", padding=True)


@pytest.fixture(scope="session")
def singles(pair, pictures):
    """The same, each alone."""
    parts = [([pictures[0]], ONE), (pictures[1:], TWO), (None, NONE)]
    return [pair[1](images=images, text=[text], return_tensors="pt") for images, text in parts]


def test_the_inputs_are_ragged_and_padded_on_the_left(batch, processor):
    counts = [len(patches) for patches, _ in batch["pixel_values"]]
    assert len(set(counts)) == 3
    assert processor.tokenizer.padding_side == "right"
    assert batch["attention_mask"][:, -1].tolist() == [1, 1, 1]
    assert batch["attention_mask"][2, 0] == 0
    assert (batch["input_ids"] == 3).sum(1).tolist() == [counts[0], counts[1] + counts[2], 0]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_batch_answers_as_each_prompt_alone(pair, batch, singles, answer, mode):
    alone = [answer(pair[0], single, **mode)[0] for single in singles]
    assert answer(pair[0], copy.deepcopy(batch), **mode) == alone
    assert len({tuple(words) for words in alone}) == 3


@pytest.mark.parametrize("mode", MODES[2:], ids=str)
def test_every_way_to_read_the_prompt_gives_the_same_answer(pair, batch, answer, mode):
    assert answer(pair[0], batch, **mode) == answer(pair[0], batch)


def test_sampling_repeats_the_images_of_each_prompt(pair, batch, singles):
    sampled = pair[0].generate(**batch, max_new_tokens=NEW, do_sample=True, top_k=1, num_return_sequences=2)
    alone = [pair[0].generate(**single, max_new_tokens=NEW)[0, -NEW:].tolist() for single in singles]
    assert sampled[:, -NEW:].tolist() == [words for words in alone for _ in range(2)]


def test_assisted(pair, singles, answer):
    assert answer(pair[0], singles[1], prompt_lookup_num_tokens=3) == answer(pair[0], singles[1])


def test_assisted_by_a_language_model(pair, singles, answer):
    torch.manual_seed(0)
    assistant = LlamaForCausalLM(pair[0].config.text_config).eval()
    assert answer(pair[0], singles[1], assistant_model=assistant) == answer(pair[0], singles[1])


def test_a_second_turn_goes_on_from_the_cache(pair, singles, pictures, answer):
    model, processor = pair
    first = processor(images=pictures[:1], text=ONE, return_tensors="pt")
    turn = model.generate(**first, max_new_tokens=NEW, return_dict_in_generate=True, do_sample=False)
    more = torch.cat([turn.sequences, torch.tensor([[5, 20, 6]])], dim=1)
    mask = torch.ones_like(more)
    continued = model.generate(
        input_ids=more, attention_mask=mask, past_key_values=turn.past_key_values, max_new_tokens=NEW, do_sample=False
    )
    whole = model.generate(
        input_ids=more, attention_mask=mask, pixel_values=first["pixel_values"], max_new_tokens=NEW, do_sample=False
    )
    assert continued.tolist() == whole.tolist()


def test_a_second_turn_may_bring_its_own_image(pair, singles, pictures):
    """The prompt then holds the images of both turns, ``pixel_values`` those of the second alone."""
    model, processor = pair
    first, second = (processor(images=pictures[i], text=ONE, return_tensors="pt") for i in (0, 1))
    turn = model.generate(**first, max_new_tokens=NEW, return_dict_in_generate=True, do_sample=False)
    more = torch.cat([turn.sequences, second["input_ids"][:, 1:]], dim=1)
    options = {"attention_mask": torch.ones_like(more), "max_new_tokens": NEW, "do_sample": False}
    pixels = [*first["pixel_values"], *second["pixel_values"]]
    whole = model.generate(input_ids=more, pixel_values=pixels, **options)
    cached = model.generate(
        input_ids=more, pixel_values=second["pixel_values"], past_key_values=turn.past_key_values, **options
    )
    assert cached.tolist() == whole.tolist()


def test_answers_hang_on_image_position_and_order(own_pair, singles, answer):
    model, _ = own_pair
    before = model(**singles[1]).logits[0, -1]
    position = model.model.qlip.position
    pixels = singles[1]["pixel_values"]

    def change(**inputs):
        return (model(**{**singles[1], **inputs}).logits[0, -1] - before).abs().max()

    assert change(pixel_values=[(patches + 1, leaves) for patches, leaves in pixels]) > 0.1
    assert change(pixel_values=[(patches.flip(0), leaves.flip(0)) for patches, leaves in pixels]) > 0.1
    assert change(pixel_values=[(patches, leaves.flip(0)) for patches, leaves in pixels]) > 0.1
    model.model.qlip.position = lambda coords: torch.zeros(*coords.shape[:-1], 64)
    assert change() > 0.1
    model.model.qlip.position = position
    assert change() == 0


def conversation(picture, question):
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def test_pipeline(pair, pictures, answer, caplog):
    model, processor = pair
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    assert "not supported" not in caplog.text
    chats = [conversation(picture, "what is there ?") for picture in pictures[:2]]
    got = ask(chats, max_new_tokens=NEW, return_full_text=False)
    for chat, reply in zip(chats, got, strict=True):
        inputs = processor.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        words = processor.batch_decode(answer(model, inputs), skip_special_tokens=True)
        assert reply[0]["generated_text"].split() == words[0].split()
        assert set(words[0].split()) <= {*WORDS, "<unk>"}


def test_pipeline_in_batches(pair, pictures):
    ask = pipeline("image-text-to-text", model=pair[0], processor=pair[1])
    ask.tokenizer = pair[1].tokenizer  # transformers wants it to pad, for any model
    chats = [conversation(picture, "what is there ?") for picture in pictures]
    options = {"max_new_tokens": NEW, "return_full_text": False}
    together, alone = ask(chats, batch_size=3, **options), ask(chats, **options)
    assert [x[0]["generated_text"] for x in together] == [x[0]["generated_text"] for x in alone]


def test_pipeline_passes_options_on(pair, pictures):
    model, processor = pair
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    chat = conversation(pictures[1], "what is there ?")
    replies = {
        ask(chat, max_new_tokens=NEW, processor_kwargs={"alpha": alpha}, return_full_text=False)[0]["generated_text"]
        for alpha in (0.5, 2.0)
    }
    assert len(replies) == 2


def test_labels_and_gradients(own_pair, batch):
    model, _ = own_pair
    labels = (
        batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100).masked_fill(batch["input_ids"] == 3, -100)
    )
    loss = model(**batch, labels=labels).loss
    loss.backward()
    reached = [
        model.model.multi_modal_projector.linear_1.weight,
        model.model.vision_tower.embeddings.patch_embedding.weight,
        model.lm_head.weight,
    ]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in reached)
    assert all(parameter.grad is None for parameter in model.position.parameters())  # frozen, see test_adapters.py
    labels_of_others = torch.where(labels == -100, labels, 7)
    assert model(**batch, labels=labels_of_others).loss != loss


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtypes(own_pair, batch, dtype):
    model, _ = own_pair
    exact = model(**batch).logits[:, -1]
    leaves = [leaves.clone() for _, leaves in batch["pixel_values"]]
    inputs = copy.deepcopy(batch).to(dtype=dtype)
    model.to(dtype)
    assert inputs["pixel_values"][0][0].dtype == dtype
    assert all(torch.equal(a, b) for a, (_, b) in zip(leaves, inputs["pixel_values"], strict=True))
    assert {parameter.dtype for parameter in model.position.parameters()} == {torch.float32}
    rough = model(**inputs).logits[:, -1]
    assert rough.dtype == dtype
    assert (rough.float() - exact).abs().max() < 0.2 * exact.abs().max()
    assert model.generate(**inputs, max_new_tokens=2).shape[1] == inputs["input_ids"].shape[1] + 2


def test_compiled_language_model(own_pair, singles, answer):
    model, _ = own_pair
    plain = answer(model, singles[1], max_new_tokens=2)
    model.model.language_model = torch.compile(model.model.language_model, backend="eager", dynamic=True)
    assert answer(model, singles[1], max_new_tokens=2) == plain


def test_copies_and_pickles(pair, singles):
    expected = pair[0](**singles[1]).logits
    for other in (copy.deepcopy(pair[0]), pickle.loads(pickle.dumps(pair[0]))):
        assert type(other) is qlip_llava.QlipLlavaForConditionalGeneration
        assert torch.equal(other(**singles[1]).logits, expected)
    assert pickle.loads(pickle.dumps(pair[1])).count_tokens(scene(224, 224, 0)) == pair[1].count_tokens(
        scene(224, 224, 0)
    )


def test_image_features(pair, singles):
    features = pair[0].get_image_features(pixel_values=singles[1]["pixel_values"])
    assert [tuple(x.shape) for x in features.pooler_output] == [(len(x), 64) for x, _ in singles[1]["pixel_values"]]
    as_tuple = pair[0].get_image_features(pixel_values=singles[1]["pixel_values"], return_dict=False)
    assert isinstance(as_tuple, tuple)
    with pytest.raises(ValueError, match="vision_feature_select_strategy: got 'first'"):
        pair[0].get_image_features(singles[1]["pixel_values"], vision_feature_select_strategy="first")
