"""What tokens cost, against published numbers and against a count by torch."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qlip.cli import main
from qlip.conversion import convert
from qlip.tools.geometry import Geometry, read_geometry
from qlip.towers.load import load_clip


def test_the_default_is_the_tower_of_llava():
    clip = read_geometry(None)
    assert (clip.patch_size, clip.size, clip.tokens, clip.side) == (14, 336, 576, 14)
    assert clip.flops(576) / 2e9 == pytest.approx(191, rel=0.01)  # 191 G multiply-adds, as open_clip's table says


@pytest.mark.parametrize("side", [16, 28])
def test_another_patch_size_is_another_grid(side):
    assert read_geometry(None, side).tokens == (336 // side) ** 2


@pytest.mark.filterwarnings("ignore")
def test_a_configuration_says_what_the_encoder_computes():
    geometry = read_geometry("pocket-clip")
    assert (geometry.size, geometry.tokens, geometry.depth, geometry.width) == (112, 64, 5, 128)
    clip = load_clip("pocket-clip")
    clip.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        clip(pixel_values=torch.zeros(1, 3, 112, 112))
    assert geometry.flops(64) == pytest.approx(counted.get_total_flops(), rel=0.01)


def test_the_language_model_has_no_part_in_it():
    llava, clip = read_geometry("pocket-llava"), read_geometry("pocket-clip")
    assert (llava.flops(64), llava.tokens, llava.side) == (clip.flops(64), clip.tokens, clip.side)


def test_its_processor_counts_as_the_converted_one():
    from PIL import Image

    geometry = read_geometry("pocket-clip")
    clip = load_clip("pocket-clip")
    from transformers import AutoImageProcessor

    from qlip.shipped import shipped

    _, converted = convert(clip, AutoImageProcessor.from_pretrained(shipped("pocket-clip")))
    image = Image.effect_noise((300, 200), 90)
    for options in ({"max_tokens": 50}, {"alpha": 0.5, "size": 224}):
        assert geometry.processor(**options).count_tokens(image) == converted.count_tokens(image, **options)


def test_a_price_is_the_stock_models_or_the_pictures_own_grid():
    assert Geometry().price((10, 20)) == 576
    assert Geometry(tokens=None).price((10, 20)) == 200


@pytest.mark.parametrize("verb", ["show x.png", "tune ."])
def test_a_model_that_is_not_there_is_one_line(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [] if verb.startswith("show") else ["--share=0.5"]
    with pytest.raises(SystemExit, match=r"qlip: model: './nowhere' is no folder of a model here") as stopped:
        main([*verb.split(), "--model=./nowhere", *options])
    assert "\n" not in str(stopped.value)
