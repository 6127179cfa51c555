"""The recipe of the pocket models: its losses see what the scenes show, and a run that was stopped goes on unchanged."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image
from torch import Generator
from transformers import AutoProcessor, CLIPModel, LlavaForConditionalGeneration

from qlip.data import backgrounds
from qlip.data.language import IMAGE_ID, make_tokenizer, things
from qlip.data.scenes import COLOURS, Scenes, draw_scenes
from qlip.evaluation.benchmarks import get_benchmark, pocket
from recipes.pocket import check
from recipes.pocket.cli import draw, fit, main
from recipes.pocket.clip import PocketClip, Readouts, labels, patch_objects
from recipes.pocket.conversation import IGNORED, questions
from recipes.pocket.models import GRID, PATCH_SIZE, make_clip
from recipes.pocket.reader import PocketReader, vary_background
from recipes.pocket.run import Schedule, draw_training_scenes

TINY = Schedule(cycles=(3, 1), batch_size=4, lr=1e-3)


@pytest.fixture(autouse=True)
def _few_textures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backgrounds, "TEXTURES", 3)  # they take a tenth of a second each, once


def scenes(count: int = 8):
    return draw_scenes(count, 112, 112, Generator().manual_seed(0))


def test_a_patch_is_labelled_with_the_object_that_covers_it() -> None:
    drawn = scenes(32)
    shown, found = patch_objects(drawn), labels(drawn.shape, patch_objects(drawn))
    for i in range(len(drawn)):
        for k in (drawn.shape[i] >= 0).nonzero().flatten().tolist():
            row, column = (drawn.centre[i, k] / PATCH_SIZE).long().tolist()
            assert shown[i, row * GRID + column] == k
            assert found[i, row * GRID + column] == drawn.shape[i, k] + 1
            mine = (shown[i] == k).nonzero().flatten()
            centres = torch.stack([mine // GRID, mine % GRID], 1) * PATCH_SIZE + PATCH_SIZE / 2
            assert ((centres - drawn.centre[i, k]).abs() <= drawn.side[i, k] / 2 + PATCH_SIZE / 2).all()
    assert 0.1 < (found > 0).float().mean() < 0.5


@pytest.mark.parametrize("count", [24, 64, 150])
def test_a_varied_background_keeps_every_object(count: int) -> None:
    shows = patch_objects(scenes(32)) >= 0
    chosen = vary_background(shows, count, Generator().manual_seed(0))
    assert chosen.shape == (32, count)
    assert (chosen.diff(dim=1) >= 0).all()
    for row, objects in zip(chosen, shows, strict=True):
        wanted = set(objects.nonzero().flatten().tolist())
        kept = row[objects[row]].tolist()
        assert len(kept) == len(set(kept)) == min(len(wanted), count)


def test_a_conversation_asks_for_the_answers_and_hints_at_the_right_words() -> None:
    reader = PocketReader(make_clip().vision_model, Readouts(), TINY)
    tokens, drawn = make_tokenizer("$A"), scenes(16)
    for i in range(len(drawn)):
        scene = things(drawn, i)
        conversation, asked = reader.converse(scene, 64, Random(i)), list(questions(scene, Random(i), 3))
        assert conversation.ids.count(IMAGE_ID) == 64
        rows = vars(conversation).values()
        assert len({len(row) for row in rows}) == 1
        said = tokens.decode([token for token in conversation.answer if token != IGNORED])
        assert said.count("</s>") == 3
        for at, colour in enumerate(conversation.colour):
            if colour != IGNORED:
                shape = tokens.decode([conversation.ids[at]])
                thing = next((thing for thing in scene if thing.shape == shape), None)
                assert colour == (1 + list(COLOURS).index(thing.colour) if thing else 0)
        assert len(asked) == 3
        for at, (colour, agrees) in enumerate(zip(conversation.asked, conversation.agrees, strict=True)):
            if colour != IGNORED:
                named, shape = tokens.convert_ids_to_tokens(conversation.ids[at - 1 : at + 1])
                assert named == list(COLOURS)[colour]
                assert agrees == any((thing.colour, thing.shape) == (named, shape) for thing in scene)


@pytest.mark.parametrize("kind", ["clip", "reader"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(kind: str, tmp_path: Path) -> None:
    def make(stop_at: int | None = None):
        base = PocketClip if kind == "clip" else PocketReader

        class Stopping(base):
            def training_step(self, batch, batch_idx):
                if self.global_step == stop_at:
                    raise RuntimeError("stopped")
                return super().training_step(batch, batch_idx)

        torch.manual_seed(1)
        return Stopping(TINY) if kind == "clip" else Stopping(make_clip().vision_model, Readouts(), TINY)

    whole = make()
    fit(whole, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="stopped"):
        fit(make(stop_at=2), tmp_path / "parts")
    resumed = make()
    fit(resumed, tmp_path / "parts")
    assert resumed.global_step == whole.global_step == TINY.steps
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_the_command_trains_both_and_writes_what_transformers_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "BATCH", 10)
    sizes = [
        f"--{model}.{key}={value}"
        for model in ("clip", "reader")
        for key, value in (("cycles", [1, 1]), ("batch_size", 4), ("lr", 1e-3))
    ]
    sizes.append("--width=64")
    main(["train", f"--out={tmp_path}", "--scenes=10", *sizes])
    assert "pocket-llava │ sha256" in capsys.readouterr().out
    clip = CLIPModel.from_pretrained(tmp_path / "pocket-clip", dtype=torch.float32)
    llava = LlavaForConditionalGeneration.from_pretrained(tmp_path / "pocket-llava", dtype=torch.float32)
    assert llava.config.text_config.hidden_size == 64
    tower = llava.model.vision_tower.state_dict()
    for name, weight in clip.vision_model.state_dict().items():
        assert torch.equal(weight, tower[name]), name
    processor = AutoProcessor.from_pretrained(tmp_path / "pocket-llava")
    inputs = processor(images=scenes(1).images[0], text="USER: <image>\nIs there a red star in the image? ASSISTANT:")
    assert inputs["input_ids"][0].count(IMAGE_ID) == GRID * GRID
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in (tmp_path / "pocket-llava").iterdir())
    card = (tmp_path / "pocket-llava/README.md").read_text()
    assert card.startswith("---\n")
    assert "| colour |" in card
    assert "| colour, over photographs |" in card
    assert "| colour in a window, over photographs |" in card
    assert "texture 0.5" in card
    before = (tmp_path / "pocket-llava/model.safetensors").stat().st_mtime_ns
    main(["train", f"--out={tmp_path}", "--scenes=10", *sizes])  # what is there stays
    assert (tmp_path / "pocket-llava/model.safetensors").stat().st_mtime_ns == before
    assert "trained before" in capsys.readouterr().out


def test_a_share_of_the_scenes_lies_over_photographs_and_textures_and_the_others_are_what_they_were() -> None:
    def draw_them(texture: float) -> Scenes:
        return draw_training_scenes(8, texture, Generator().manual_seed(0), Random(0), seed=0)

    plain, half, none = scenes(), draw_them(0.5), draw_them(0)
    assert torch.equal(none.images, plain.images)
    assert torch.equal(half.images[4:], plain.images[4:])
    assert torch.equal(half.centre, plain.centre)
    assert all(
        (one != other).any(0).float().mean() > 0.4 for one, other in zip(half.images[:4], plain.images, strict=False)
    )
    with pytest.raises(ValueError, match="texture: got"):
        replace(TINY, texture=1.5)


def test_each_step_has_its_own_backgrounds(monkeypatch: pytest.MonkeyPatch) -> None:
    run = PocketClip(TINY)
    first = run.draw()[0].images
    assert torch.equal(run.draw()[0].images, first)
    monkeypatch.setattr(PocketClip, "global_step", 1)
    assert (run.draw()[0].images[:2] != first[:2]).any(1).float().mean() > 0.9


def test_the_window_shows_the_object_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(
        check, "_right", lambda llava, images, asked: shown.append((images, asked)) or torch.ones(len(asked))
    )
    check._colour_in_window(None, [draw_scenes(16, 224, 224, Generator().manual_seed(0))])
    ((images, asked),) = shown
    assert images.shape == (16, 3, 112, 112)
    for image, (_, colour) in zip(images, asked, strict=True):
        near = (image - torch.tensor(COLOURS[colour])[:, None, None]).abs().amax(0) < 0.2
        assert near.sum() > 100


def test_other_photographs_behind_the_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pocket, "QUESTIONS", 5)
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (700, 500), (10, 200, 10)).save(tmp_path / "mine/green.png")
    command = [
        "questions",
        "--benchmark=vstar-photo",
        f"--backgrounds={tmp_path / 'mine'}",
        f"--out={tmp_path / 'out'}",
    ]
    main(command)
    source = get_benchmark("vstar-photo").load(tmp_path / "out")
    assert len(source.rows) == 5
    colours = [Image.open(source.image(row)).getcolors(2**20) for row in range(5)]
    assert all(max(found)[1][1] > 190 and max(found)[1][0] < 30 for found in colours), "mostly green"
    with pytest.raises(FileExistsError, match="out: got"):
        main(command)


def test_scenes_can_be_looked_at(tmp_path: Path) -> None:
    draw(tmp_path / "scenes.png", count=3)
    assert (tmp_path / "scenes.png").stat().st_size > 10_000
