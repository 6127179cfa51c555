"""What Gemma 4 takes besides pictures goes on as in transformers, and its pictures are not bound to five budgets."""

import numpy as np
import pytest
import torch

import qlip
from tests.families.case import deviation
from tests.families.gemmas import GEMMA4_SMALL, gemma4, gemma4_processor
from tests.families.tiny_llava import scene
from tests.shaken import shake

EARS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "output_proj_dims": 64,
    "subsampling_conv_channels": [128, 4],
}
SOUND = np.sin(np.arange(16000) / 20).astype(np.float32)
FILM = np.stack([np.asarray(scene(126, 84, seed)) for seed in range(2)])


@torch.no_grad()
def test_films_and_sounds_beside_a_picture_are_the_stock_models():
    model, processor = shake(gemma4({}, GEMMA4_SMALL, EARS)), gemma4_processor()
    text = ["what <image> is <|video|> there <audio> left"]
    given = {"images": [[scene(378, 378, 1)]], "videos": [FILM], "audio": [SOUND], "return_tensors": "pt"}
    given["videos_kwargs"] = {"num_frames": 2}
    stock = processor(text=text, **given, images_kwargs={"do_resize": False})
    expected = model(**stock).logits
    converted, new = qlip.convert(model, processor, criterion="uniform", max_tokens=None)
    inputs = new(text=text, **given)
    assert inputs.keys() == stock.keys() - {"image_position_ids"}
    for name in inputs.keys() - {"pixel_values"}:
        assert torch.equal(inputs[name], stock[name]), name
    assert deviation(converted(**inputs).logits, expected) < 1e-5
    for name in ("pixel_values_videos", "input_features"):  # each of them is seen
        other = {**inputs, name: inputs[name].flip(-1)}
        assert deviation(converted(**other).logits, expected) > 1e-3
    words = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert torch.equal(words, qlip.restore(converted).generate(**stock, max_new_tokens=2, do_sample=False))


@pytest.mark.parametrize("budget", [33, 100])
def test_any_budget_holds_where_transformers_knows_five(budget):
    processor = gemma4_processor()
    with pytest.raises(ValueError, match="max_soft_tokens"):
        processor(images=[scene(504, 504, 1)], text=["<image>"], max_soft_tokens=budget)
    _, new = qlip.convert(gemma4({}, GEMMA4_SMALL), processor, max_tokens=budget, cover="full")
    assert 0 <= budget - new.count_tokens(scene(504, 504, 1))[0] <= 2
