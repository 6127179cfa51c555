"""What a reader learns from: conversations about scenes, token by token, and the losses of its language model on them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from qlip.data.language import (
    ASK_WORD,
    NEGATIVES,
    Thing,
    absent,
    ask_colour,
    ask_height,
    ask_presence,
    ask_side,
)
from qlip.data.scenes import COLOURS

IGNORED = -100
HINTS = {"colour": len(COLOURS) + 1, "place": 5, "asked": len(COLOURS), "agrees": 2}  # classes of each


@dataclass(frozen=True)
class Conversation:
    """A conversation about one scene, token by token, with the targets of every loss; `IGNORED` where there is none.

    Attributes:
        ids: Tokens of the conversation, one placeholder for each image token.
        answer: Tokens of the answers.
        colour: At the word for a shape in a question, the colour of that shape in the image; 0 if the shape is not there.
        place: At the same words, the quarter of the image in which the shape lies; 0 if it is not there.
        asked: At those of questions about presence, the colour that is asked for.
        agrees: There too, 1 if the shape has the colour that is asked for, else 0.
    """

    ids: list[int]
    answer: list[int]
    colour: list[int]
    place: list[int]
    asked: list[int]
    agrees: list[int]

    def say(self, ids: list[int], *, by_model: bool = False) -> None:
        """Add tokens; those that the model says are to be learned."""
        self.ids.extend(ids)
        self.answer.extend(ids if by_model else [IGNORED] * len(ids))
        for hints in (self.colour, self.place, self.asked, self.agrees):
            hints.extend([IGNORED] * len(ids))


@dataclass(frozen=True)
class Chat:
    """How a model's chat template frames questions and answers.

    Attributes:
        tokenizer: Adds no special tokens.
        user: What stands before a question, but for the first, before which the image stands.
        assistant: What stands between a question and its answer.
        end: Token after an answer.
    """

    tokenizer: PreTrainedTokenizerFast
    user: str
    assistant: str
    end: int

    def begin(self, before: str, placeholders: Sequence[int], after: str = "") -> Conversation:
        """Begin a conversation with an image between two texts."""
        conversation = Conversation(*([] for _ in fields(Conversation)))
        for ids in (self.tokens(before), list(placeholders), self.tokens(after)):
            conversation.say(ids)
        return conversation

    def ask(self, conversation: Conversation, scene: list[Thing], random: Random, count: int = 3) -> None:
        """Go on with some questions about a scene and their answers."""
        for turn, (shape, question, answer) in enumerate(questions(scene, random, count)):
            start = len(conversation.ids)
            conversation.say(self.tokens(f"{self.user if turn else ''}{question}{self.assistant}"))
            at = conversation.ids.index(self.tokens(shape)[0], start)
            thing = next((thing for thing in scene if thing.shape == shape), None)
            conversation.colour[at] = 1 + list(COLOURS).index(thing.colour) if thing else 0
            conversation.place[at] = 1 + 2 * (thing.y >= 0.5) + (thing.x >= 0.5) if thing else 0
            if answer in ("yes", "no"):
                (colour,) = self.tokenizer.convert_ids_to_tokens(conversation.ids[at - 1 : at])
                conversation.asked[at] = list(COLOURS).index(colour)
                conversation.agrees[at] = int(answer == "yes")
            conversation.say([*self.tokens(answer), self.end], by_model=True)

    def tokens(self, text: str) -> list[int]:
        """Tokens of a text."""
        return self.tokenizer(text)["input_ids"]


def questions(scene: list[Thing], random: Random, count: int) -> Iterator[tuple[str, str, str]]:
    """Ask about a scene in all the wordings of the benchmarks; yields the shape asked about, the question, the answer."""
    for _ in range(count):
        thing = random.choice(scene)
        kind = random.choice(("colour", "colour", "side", "height", "presence", "presence"))
        if kind == "presence":
            there = random.random() < 0.5
            colour, shape = (thing.colour, thing.shape) if there else absent(scene, random.choice(NEGATIVES), random)
            yield shape, f"{ask_presence(colour, shape)}\n{ASK_WORD}", "yes" if there else "no"
            continue
        choice = {"colour": lambda t: ask_colour(t, scene, random), "side": ask_side, "height": ask_height}[kind](thing)
        match random.choice(("options", "options", "options", "open", "sentence")):
            case "options":
                yield thing.shape, choice.worded(random), choice.options[0]
            case "open":
                yield thing.shape, f"{choice.text}\n{ASK_WORD}", choice.options[0]
            case _:
                yield thing.shape, choice.text, choice.sentences[0]


def pad(rows: Sequence[list[int]], fill: int) -> Tensor:
    """Bring rows of tokens to one length, filled on the right: ``(B, L)``."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)


def make_hints(width: int, names: Iterable[str]) -> nn.ModuleDict:
    """Make linear classifiers that tell, where a shape is named, some of `HINTS`: see `Conversation`."""
    return nn.ModuleDict({name: nn.Linear(width, HINTS[name]) for name in names})


def language_losses(
    conversations: Sequence[Conversation], states: Any, head: nn.Module, hints: nn.ModuleDict, layers: Mapping[str, int]
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the losses of a language model on conversations, and the share of answers whose first token is right.

    Args:
        conversations: What it read.
        states: What it put out, hidden states of all layers included.
        head: Its head.
        hints: What `make_hints` makes.
        layers: Layer that each hint is read from.
    """
    answer = pad([conversation.answer for conversation in conversations], IGNORED)[:, 1:]
    asked = answer != IGNORED
    logits = head(states.last_hidden_state[:, :-1][asked])
    first = asked & F.pad(~asked, (1, 0), value=True)[:, :-1]
    # by answer, not by token: most tokens of a sentence are easy, and would drown the one that says something
    losses = {"answer": F.cross_entropy(logits, answer[asked], reduction="sum") / first.sum()}
    for name, layer in layers.items():
        wanted = pad([getattr(conversation, name) for conversation in conversations], IGNORED)
        told = hints[name](states.hidden_states[layer][wanted != IGNORED])
        losses[name] = F.cross_entropy(told, wanted[wanted != IGNORED])
    return losses, (logits.argmax(-1) == answer[asked]).float()[first[asked]].mean()
