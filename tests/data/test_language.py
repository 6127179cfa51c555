"""Captions, questions and answers are true of their scenes, and every word is known."""

from random import Random

import pytest
from torch import Generator

from qlip.data.language import (
    ASK_WORD,
    SYSTEM,
    UNK_ID,
    absent,
    ask_colour,
    ask_height,
    ask_presence,
    ask_side,
    caption,
    make_tokenizer,
    things,
)
from qlip.data.scenes import SHAPES, draw_scenes

SCENES = draw_scenes(200, 112, 112, Generator().manual_seed(0))
ALL = [things(SCENES, i) for i in range(len(SCENES))]


def test_things_are_the_scenes_objects():
    for i, scene in enumerate(ALL):
        there = SCENES.shape[i] >= 0
        assert [SHAPES.index(thing.shape) for thing in scene] == SCENES.shape[i][there].tolist()
        assert [round(thing.x * 112, 3) for thing in scene] == [
            round(x, 3) for x in SCENES.centre[i][there][:, 1].tolist()
        ]


def test_a_lettered_question_has_the_right_letter_and_the_options_of_the_scene():
    random = Random(0)
    letters = set()
    for scene in ALL:
        choice = ask_colour(scene[0], scene, random)
        text, letter = choice.lettered(random)
        assert f"({letter}) {scene[0].colour}\n" in text
        assert text.count("\n(") == 4
        assert len(set(choice.options)) == 4
        assert scene[0].colour not in choice.options[1:]
        assert all(other.colour in choice.options for other in scene[1:4])
        letters.add(letter)
    assert letters == set("ABCD")


def test_sides_and_heights_are_true():
    for scene in ALL:
        for thing in scene:
            assert ask_side(thing).options[0] == ("left" if thing.x < 0.5 else "right")
            assert ask_height(thing).options[0] == ("above" if thing.y < 0.5 else "below")


@pytest.mark.parametrize("kind", ["random", "popular", "adversarial"])
def test_what_is_absent_is_absent_in_the_way_that_was_asked(kind):
    random = Random(0)
    for scene in ALL:
        colour, shape = absent(scene, kind, random)
        assert (colour, shape) not in {(thing.colour, thing.shape) for thing in scene}
        colours, shapes = {t.colour for t in scene}, {t.shape for t in scene}
        assert (shape in shapes) == (kind != "random")
        assert (colour in colours) == (kind == "adversarial" and len(scene) > 1)


def test_every_word_is_known_and_the_right_token_ends_a_text():
    reader, clip = make_tokenizer("<s> $A"), make_tokenizer("<s> $A </s>")
    random = Random(0)
    for scene in ALL:
        choices = [ask_colour(scene[0], scene, random), ask_side(scene[0]), ask_height(scene[0])]
        texts = [caption(scene, random), f"{ask_presence(scene[0].colour, scene[0].shape)}\n{ASK_WORD} yes no"]
        texts += [text for choice in choices for text in (choice.lettered(random)[0], *choice.sentences)]
        for text in texts:
            assert UNK_ID not in reader(f"{SYSTEM}USER: <image>\n{text} ASSISTANT: A B C D")["input_ids"], text
    assert clip("a red star")["input_ids"] == [*reader("a red star")["input_ids"], clip.eos_token_id]
    assert clip.eos_token_id != 2, "transformers' CLIP takes 2 for an old broken setting and pools the wrong token"
    assert reader("a zebra")["input_ids"][-1] == UNK_ID
    answer = reader("A", add_special_tokens=False)["input_ids"]
    assert reader.decode(answer) == "A"
    assert len(answer) == 1
