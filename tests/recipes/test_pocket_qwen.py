"""The recipe of pocket-qwen: what it trains on is what the stock model and processor make of the same scenes."""

from pathlib import Path
from random import Random

import pytest
import torch
from torch import Generator, Tensor
from transformers import AutoProcessor, CLIPModel, CLIPVisionModel, Qwen2VLForConditionalGeneration

import qlip
from qlip.data import backgrounds
from qlip.data.language import things
from qlip.data.scenes import draw_scenes
from qlip.images.read import to_rgb
from qlip.shipped import shipped
from recipes.pocket import check
from recipes.pocket.cli import fit, main
from recipes.pocket.models import UNIT_SIZE, make_qwen, normalise, qwen_processor, to_qwen_patches
from recipes.pocket.qwen import PocketQwen
from recipes.pocket.run import Schedule

TINY = Schedule(cycles=(3, 1), batch_size=4, lr=1e-3, texture=0)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backgrounds, "TEXTURES", 3)
    monkeypatch.setattr("recipes.pocket.qwen.TOKENS", 96)


def clip() -> CLIPVisionModel:
    return CLIPModel.from_pretrained(shipped("pocket-clip"), dtype=torch.float32).vision_model


def scenes(count: int = 2):
    drawn = draw_scenes(count, 4 * UNIT_SIZE, 6 * UNIT_SIZE, Generator().manual_seed(0))
    drawn.images.copy_((drawn.images * 255).round() / 255)  # as in a file
    return drawn


def test_patches_are_those_of_the_processor() -> None:
    images = scenes().images
    made = qwen_processor().image_processor(images=[to_rgb(image) for image in images], return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [[1, 8, 12]] * 2
    torch.testing.assert_close(to_qwen_patches(normalise(images)), made["pixel_values"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_training_reads_a_chat_as_the_stock_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame of a question, the order of patches and M-RoPE: whatever of them is off, the logits differ."""
    torch.manual_seed(0)
    run, drawn, processor = PocketQwen(clip(), TINY).eval(), scenes(), qwen_processor()
    for part in (run.qwen.model.visual.merger, run.qwen.model.language_model.layers):
        for parameter in part.parameters():
            parameter.mul_(3)  # so that an image counts
    states: list[Tensor] = []
    read = run.qwen.model.language_model.register_forward_hook(
        lambda module, args, output: states.append(output.last_hidden_state)
    )
    grid = torch.tensor([4.0, 6.0])
    places = torch.cartesian_prod(torch.arange(4.0), torch.arange(6.0)).expand(2, -1, -1)
    asked: list[str] = []
    monkeypatch.setattr(
        "recipes.pocket.conversation.questions",
        lambda scene, random, count: (
            asked.append(f"What is the color of the {scene[0].shape}?") or iter([(scene[0].shape, asked[-1], "red")])
        ),
    )
    colours = torch.ones(2, 24, dtype=torch.long)
    run.read(drawn, run.see(drawn.images), colours, places, grid, Random(0))
    read.remove()
    for i, question in enumerate(asked):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=[to_rgb(drawn.images[i])], text=[text], return_tensors="pt")
        inputs.pop("token_type_ids", None)
        stock = run.qwen(**inputs, output_hidden_states=True).hidden_states[-1]
        length = stock.shape[1]
        torch.testing.assert_close(states[0][i, :length], stock[0], atol=1e-3, rtol=0)
        assert (stock[0, -1] - states[0][1 - i, length - 1]).abs().max() > 0.1, "another image, another answer"


def test_sizes_are_mixed_and_a_step_costs_about_the_same() -> None:
    run, random = PocketQwen(clip(), Schedule(cycles=(3,), batch_size=32, lr=1e-3)), Random(0)
    sizes = [run.choose_size(random) for _ in range(200)]
    assert {edge % UNIT_SIZE for _, size in sizes for edge in size} == {0}
    assert len({size for _, size in sizes}) > 30
    assert {min(size) for _, size in sizes} >= {4 * UNIT_SIZE, 10 * UNIT_SIZE}
    assert max(count * height * width for count, (height, width) in sizes) <= 2 * 144 * UNIT_SIZE**2


def test_the_tower_learns_to_name_first_and_is_read_then(monkeypatch: pytest.MonkeyPatch) -> None:
    run = PocketQwen(clip(), TINY)
    monkeypatch.setattr(run, "log_all", lambda values: None)
    parts = {
        "tower": run.qwen.model.visual.blocks,
        "merger": run.qwen.model.visual.merger,
        "words": run.qwen.model.language_model,
    }
    for step, learning in ((2, {"tower", "merger", "words"}), (3, {"merger", "words"})):
        monkeypatch.setattr(PocketQwen, "global_step", step)
        run.zero_grad()
        run.training_step(0, 0).backward()
        learns = {name for name, part in parts.items() if any(p.grad is not None for p in part.parameters())}
        assert learns == learning
        read = run.qwen.model.language_model.layers[0].mlp.up_proj.weight.grad is not None
        assert read == (step == 3)


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path) -> None:
    class Stopping(PocketQwen):
        stop_at: int | None = None

        def training_step(self, batch: int, batch_idx: int) -> Tensor:
            if self.global_step == self.stop_at:
                raise RuntimeError("stopped")
            return super().training_step(batch, batch_idx)

    whole, stopped, resumed = Stopping(clip(), TINY), Stopping(clip(), TINY), Stopping(clip(), TINY)
    start = {name: value.clone() for name, value in whole.state_dict().items()}
    stopped.stop_at = 2
    fit(whole, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(stopped, tmp_path / "parts")
    fit(resumed, tmp_path / "parts")
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    still = {name for name, value in whole.state_dict().items() if torch.equal(value, start[name])}
    assert not still, "every weight learns"


def test_the_command_trains_it_and_writes_what_transformers_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "BATCH", 10)
    monkeypatch.setattr(check, "QWEN_SIZES", (112,))
    sizes = [f"--schedule.{key}={value}" for key, value in (("cycles", [1, 1]), ("batch_size", 4), ("lr", 1e-3))]
    main(["train-qwen", f"--out={tmp_path}", "--scenes=10", *sizes])
    folder = tmp_path / "pocket-qwen"
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.chat_template == qwen_processor().chat_template
    model, processor = qlip.convert(model, processor, max_tokens=12)
    picture, thing = to_rgb(scenes().images[0]), things(scenes(), 0)[0]
    content = [{"type": "image"}, {"type": "text", "text": f"What is the color of the {thing.shape}?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(images=[picture], text=[text], return_tensors="pt")
    assert 6 <= (inputs["input_ids"] == model.config.image_token_id).sum() <= 12
    said = model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert said.shape[1] == inputs["input_ids"].shape[1] + 2
    card = (folder / "README.md").read_text()
    assert "| presence, over photographs, 112 px |" in card
    assert "train-qwen --seed 0 --schedule.texture=0.5" in card


def test_it_is_small() -> None:
    assert sum(parameter.numel() for parameter in make_qwen().parameters()) < 2.2e6
