"""Parsers on tables of answers."""

import pytest

from qlip.evaluation.benchmarks.parsing import parse_letter, parse_words, parse_yes_no, split_options

OPTIONS = {"A": "red", "B": "dark green", "C": "blue"}

LETTERS = [  # reply, llava, vlmevalkit, lmms
    ("B", "B", "B", "B"),
    ("B.", "B", "B", "B"),
    ("(B)", "B", "B", "B"),
    ("B. dark green", "B", "B", "B"),
    ("B) dark green", "B", "B", "B"),
    (" B\n", "B", "B", "B"),
    ("The answer is B.", "B", "B", None),
    ("the answer is (B)", None, "B", None),
    ("It is B", None, "B", None),
    ("dark green", None, "B", None),
    ("The colour is Dark Green", None, "B", None),
    ("b", None, None, None),
    ("D", None, None, None),
    ("D. yellow", None, None, None),
    ("", None, None, None),
    ("A or B", None, None, None),
    ("red or blue", None, None, None),
    ("A glove lies on the table to the left of all", None, None, None),
    ("the glove is", None, None, None),
    ("Blue glove", None, "C", None),
    ("I cannot answer this, sorry", None, None, None),
    ("B is what I first thought but then I am not sure at all", None, None, None),
]


@pytest.mark.parametrize(("raw", "llava", "vlmevalkit", "lmms"), LETTERS)
def test_letters(raw, llava, vlmevalkit, lmms):
    got = [parse_letter(raw, OPTIONS, style) for style in ("llava", "vlmevalkit", "lmms")]
    assert got == [llava, vlmevalkit, lmms]


YES_NO = [  # reply, llava, vlmevalkit, lmms
    ("yes", "yes", "yes", "yes"),
    ("Yes", "yes", "yes", "yes"),
    ("yes.", "yes", "yes", None),
    ("Yes, there is a dog", "yes", "yes", None),
    ("no", "no", "no", "no"),
    ("No.", "no", "no", None),
    ("No, there is none", "no", "no", None),
    ("There is not a dog", "no", None, None),
    ("There is none", "yes", None, None),
    ("NO", "yes", "no", "no"),
    ("yes and no", "no", None, None),
    ("Yes. No dog is missing", "yes", None, None),
    ("I know it", "yes", None, None),
    ("", "yes", None, None),
    ("I cannot tell", "yes", None, None),
]


@pytest.mark.parametrize(("raw", "llava", "vlmevalkit", "lmms"), YES_NO)
def test_yes_and_no(raw, llava, vlmevalkit, lmms):
    assert [parse_yes_no(raw, style) for style in ("llava", "vlmevalkit", "lmms")] == [llava, vlmevalkit, lmms]


@pytest.mark.parametrize(
    ("raw", "words"), [("Red.", "red"), (" 2 ", "2"), ("", ""), ("Turn Left", "turn left"), ("3.5", "3.5")]
)
def test_words(raw, words):
    assert parse_words(raw) == words


@pytest.mark.parametrize(
    ("text", "rest", "options"),
    [
        ("what?\n(A) one\n(B) two\nask", "what?\nask", {"A": "one", "B": "two"}),
        ("what?\n\nA. one\nB. two", "what?\n", {"A": "one", "B": "two"}),
        ("A dog?\nAnswer", "A dog?\nAnswer", {}),
    ],
)
def test_options_are_split_from_the_question(text, rest, options):
    assert split_options(text) == (rest, options)
