"""What can be said about a drawn scene: captions, questions with their answers, and the tokenizer of the pocket models.

The recipe trains on them, and the benchmarks ``vstar-pocket`` and ``pope-pocket`` ask them. Questions have the wording of the
benchmarks they stand for: V* asks for attributes and places with lettered options, POPE asks what is there.
"""

import re
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from qlip.data.scenes import ABSENT, COLOURS, SHAPES, Scenes

Negative = Literal["random", "popular", "adversarial"]
NEGATIVES: tuple[Negative, ...] = get_args(Negative)

IMAGE = "<image>"
SPECIAL = (
    "<pad>",
    "<s>",
    "<unk>",
    "</s>",
    IMAGE,
)  # "</s>" is not 2: transformers takes that for CLIP's old, broken setting
PAD_ID, BOS_ID, UNK_ID, EOS_ID, IMAGE_ID = range(len(SPECIAL))
LETTERS = "ABCD"
ASK_LETTER = "Answer with the option's letter from the given choices directly."
ASK_WORD = "Answer the question using a single word or phrase."
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the user's questions. "
)
SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Thing:
    """One object of a scene in words and numbers.

    Attributes:
        shape: Name of its shape, one of `SHAPES`.
        colour: Name of its colour, one of `COLOURS`.
        size: ``small``, ``medium`` or ``large``.
        y: Place of its centre as a share of the image's height, from 0 at the top to 1.
        x: Place of its centre as a share of the image's width, from 0 at the left to 1.
        side: Side of its box in pixels.
    """

    shape: str
    colour: str
    size: str
    y: float
    x: float
    side: float


@dataclass(frozen=True)
class Choice:
    """A question with options to choose from.

    Attributes:
        text: The question.
        options: Possible answers of a word each, the right one first.
        sentences: The options as whole sentences, for scoring by likelihood as V* does.
    """

    text: str
    options: tuple[str, ...]
    sentences: tuple[str, ...]

    def lettered(self, random: Random) -> tuple[str, str]:
        """Write the question with its options in random order, as V* does, and give the letter of the right one."""
        order = random.sample(self.options, len(self.options))
        lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, order, strict=False)]
        return "\n".join([self.text, *lines, ASK_LETTER]), LETTERS[order.index(self.options[0])]

    def worded(self, random: Random) -> str:
        """Write the question with its options in random order, and ask for the answer's word, the first of `options`."""
        return in_words(self.lettered(random)[0])


def in_words(question: str) -> str:
    """Change a lettered question to ask for the option's word instead of its letter."""
    return question.removesuffix(ASK_LETTER) + ASK_WORD


def things(scenes: Scenes, index: int) -> list[Thing]:
    """List the objects of one scene, largest first."""
    height, width = scenes.images.shape[-2:]
    shapes, colours, names = scenes.shape[index].tolist(), scenes.colour[index].tolist(), list(COLOURS)
    found = []
    for k, (shape, colour) in enumerate(zip(shapes, colours, strict=True)):
        if shape != ABSENT:
            y, x = scenes.centre[index, k].tolist()
            side = scenes.side[index, k].item()
            size = SIZES[(side > 28) + (side > 40)]
            found.append(Thing(SHAPES[shape], names[colour], size, y / height, x / width, side))
    return found


def caption(scene: list[Thing], random: Random) -> str:
    """Name every object in one sentence: "a large red star on the upper left and a small blue ring on the lower right"."""
    parts = [f"a {thing.size} {thing.colour} {thing.shape} {place(thing)}" for thing in scene]
    return " and ".join(random.sample(parts, len(parts)))


def place(thing: Thing) -> str:
    """Say in which quarter of the image an object is: "on the upper left"."""
    return f"on the {'upper' if thing.y < 0.5 else 'lower'} {'left' if thing.x < 0.5 else 'right'}"


def ask_colour(thing: Thing, scene: list[Thing], random: Random) -> Choice:
    """Ask for an object's colour with four options; the colours of the scene's other objects come first among the wrong ones."""
    others = [other.colour for other in scene if other is not thing]
    rest = [colour for colour in COLOURS if colour != thing.colour and colour not in others]
    wrong = (random.sample(others, len(others)) + random.sample(rest, len(rest)))[:3]
    options = (thing.colour, *wrong)
    return Choice(
        f"What is the color of the {thing.shape}?",
        options,
        tuple(f"The color of the {thing.shape} is {option}." for option in options),
    )


def ask_side(thing: Thing) -> Choice:
    """Ask in which half of the image an object is, left or right."""
    options = ("left", "right") if thing.x < 0.5 else ("right", "left")
    return Choice(
        f"Is the {thing.shape} on the left or right side of the image?",
        options,
        tuple(f"The {thing.shape} is on the {option} side of the image." for option in options),
    )


def ask_height(thing: Thing) -> Choice:
    """Ask whether an object is above or below the middle of the image."""
    options = ("above", "below") if thing.y < 0.5 else ("below", "above")
    return Choice(
        f"Is the {thing.shape} above or below the middle of the image?",
        options,
        tuple(f"The {thing.shape} is {option} the middle of the image." for option in options),
    )


def ask_presence(colour: str, shape: str) -> str:
    """Ask POPE's question: whether a shape of this colour is in the image."""
    article = "an" if colour[0] in "aeiou" else "a"
    return f"Is there {article} {colour} {shape} in the image?"


def absent(scene: list[Thing], kind: Negative, random: Random) -> tuple[str, str]:
    """Choose a colour and a shape that the scene does not show together.

    Args:
        scene: The objects of the scene.
        kind: ``random`` chooses a colour and a shape that are not there, ``popular`` a shape that is there in another colour,
            ``adversarial`` a colour and a shape of different objects (for a scene with one object it is ``popular``).
        random: Source of chance.
    """
    shapes, colours = {t.shape for t in scene}, {t.colour for t in scene}
    if kind == "adversarial" and len(scene) > 1:
        one, other = random.sample(scene, 2)
        return one.colour, other.shape
    free = [colour for colour in COLOURS if colour not in colours]
    shown = sorted(shapes) if kind != "random" else [shape for shape in SHAPES if shape not in shapes]
    return random.choice(free), random.choice(shown)


def make_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Make a tokenizer of whole words that knows every word of every caption and question, and those of LLaVA's chat.

    Args:
        template: The special tokens that it puts around a text ``$A``: ``"<s> $A"`` for a language model, ``"<s> $A </s>"``
            for CLIP.
    """
    words = {word: i for i, word in enumerate((*SPECIAL, *_words()))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", BOS_ID), ("</s>", EOS_ID)])  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=8192,
    )
    fast.add_special_tokens({"additional_special_tokens": [IMAGE]})
    return fast


def _words() -> list[str]:
    """List every word and punctuation mark that can occur, sorted."""
    scene = [Thing(SHAPES[0], "red", "small", 0.2, 0.2, 24.0), Thing(SHAPES[1], "orange", "large", 0.8, 0.8, 48.0)]
    random = Random(0)
    choices = [ask_colour(scene[0], scene, random), *(ask(thing) for thing in scene for ask in (ask_side, ask_height))]
    texts = [
        caption(scene, random), SYSTEM, "USER: ASSISTANT:", ASK_WORD, "yes no", "Please answer yes or no.",
        ask_presence("red", "star"), ask_presence("orange", "star"), " ".join([*SHAPES, *COLOURS, *SIZES]),
        *(text for choice in choices for text in (*choice.lettered(random), *choice.sentences)), "(A) (B) (C) (D)",
    ]  # fmt: skip
    return sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)})
