"""Training pocket-llava: questions and answers about scenes, read from the frozen pocket-clip's patches."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from transformers import CLIPVisionModel

from qlip.data.language import (
    ASK_WORD,
    BOS_ID,
    EOS_ID,
    IMAGE_ID,
    NEGATIVES,
    PAD_ID,
    SYSTEM,
    Thing,
    absent,
    ask_colour,
    ask_height,
    ask_presence,
    ask_side,
    make_tokenizer,
    things,
)
from qlip.data.scenes import COLOURS
from recipes.pocket.clip import Readouts, patch_objects
from recipes.pocket.models import FEATURE_LAYER, WIDTH, make_llava, normalise
from recipes.pocket.run import PocketRun, Schedule

# The second cycle is for what the first leaves unlearned: with it low, the rate never gets a reader to look for a new thing.
READER_SCHEDULE = Schedule(cycles=(900, 700), batch_size=32, lr=1.5e-3)
IGNORED = -100
HINTS = {"colour": (2, len(COLOURS) + 1), "place": (2, 5), "agrees": (3, 2)}  # layer that is asked, and classes


@dataclass(frozen=True)
class Conversation:
    """A conversation about one scene, token by token, with the targets of every loss; `IGNORED` where there is none.

    Attributes:
        ids: Tokens of the conversation, one `IMAGE_ID` for each image token.
        answer: Tokens of the answers.
        colour: At the word for a shape in a question, the colour of that shape in the image; 0 if the shape is not there.
        place: At the same words, the quarter of the image in which the shape lies; 0 if it is not there.
        agrees: At those of questions about presence, 1 if the shape has the colour that is asked for, else 0.
    """

    ids: list[int]
    answer: list[int]
    colour: list[int]
    place: list[int]
    agrees: list[int]

    def say(self, ids: list[int], *, by_model: bool = False) -> None:
        """Add tokens; those that the model says are to be learned."""
        self.ids.extend(ids)
        self.answer.extend(ids if by_model else [IGNORED] * len(ids))
        for hints in (self.colour, self.place, self.agrees):
            hints.extend([IGNORED] * len(ids))


class PocketReader(PocketRun):
    """The training of pocket-llava: projector and language model learn to answer questions; the tower is frozen.

    Answers alone teach too little: for hundreds of steps nothing is found in the image. So while training, early layers
    have linear classifiers that tell, where a shape is named, its colour, its place and whether it is as asked; see
    `Conversation`.

    Half of the batches read the tower's 64 tokens as they are. In the others the background has been thinned out or
    multiplied, and positions stretched: a stand-in for the long and varied sequences that make a real language model indifferent
    to how many image tokens there are. No quadtree is involved, and no image of another size.
    """

    def __init__(
        self, tower: CLIPVisionModel, readouts: Readouts, schedule: Schedule = READER_SCHEDULE, seed: int = 0
    ) -> None:
        super().__init__(schedule, seed)
        torch.manual_seed(seed)
        self.llava = make_llava(tower)
        self.llava.model.vision_tower.requires_grad_(False)
        align_projector(self.llava.model.multi_modal_projector, readouts)
        self.hints = nn.ModuleDict({name: nn.Linear(WIDTH, classes) for name, (_, classes) in HINTS.items()})
        self.tokenizer = make_tokenizer("$A")

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Compute the loss on one batch of fresh scenes with three questions about each."""
        scenes, generator, random = self.draw()
        with torch.no_grad():
            tower = self.llava.model.vision_tower(normalise(scenes.images), output_hidden_states=True)
            patches = tower.hidden_states[FEATURE_LAYER][:, 1:]
        varied = 0.5 * min(1.0, 4 * self.global_step / self.schedule.cycles[0])  # first things first
        if random.random() < varied:
            chosen = vary_background(patch_objects(scenes) >= 0, random.randint(24, 128), generator)
            patches = patches.gather(1, chosen[..., None].expand(-1, -1, patches.shape[-1]))
        stretch = random.uniform(1.0, 2400 / patches.shape[1]) if random.random() < varied else 1.0
        conversations = [self.converse(things(scenes, i), patches.shape[1], random) for i in range(len(scenes))]
        ids = _pad([conversation.ids for conversation in conversations], PAD_ID)
        seen = ids == IMAGE_ID
        embeds = self.llava.get_input_embeddings()(ids.masked_fill(seen, PAD_ID))
        embeds[seen] = self.llava.model.multi_modal_projector(patches).flatten(0, 1)
        positions = (torch.where(seen, stretch, 1.0).cumsum(1) - 1).long()
        states = self.llava.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=(ids != PAD_ID).long(),
            output_hidden_states=True,
        )
        answer = _pad([conversation.answer for conversation in conversations], IGNORED)[:, 1:]
        asked = answer != IGNORED
        logits = self.llava.lm_head(states.last_hidden_state[:, :-1][asked])
        first = asked & F.pad(~asked, (1, 0), value=True)[:, :-1]
        # by answer, not by token: most tokens of a sentence are easy, and would drown the one that says something
        losses = {"answer": F.cross_entropy(logits, answer[asked], reduction="sum") / first.sum()}
        for name, (layer, _) in HINTS.items():
            wanted = _pad([getattr(conversation, name) for conversation in conversations], IGNORED)
            told = self.hints[name](states.hidden_states[layer][wanted != IGNORED])
            losses[name] = F.cross_entropy(told, wanted[wanted != IGNORED])
        right = (logits.argmax(-1) == answer[asked]).float()[first[asked]].mean()
        self.log_all({**losses, "right": right})
        return torch.stack(list(losses.values())).sum()

    def converse(self, scene: list[Thing], image_tokens: int, random: Random) -> Conversation:
        """Write a conversation of three questions about one scene, with or without LLaVA's system sentence."""
        conversation = Conversation([BOS_ID], *([IGNORED] for _ in range(4)))
        conversation.say(self._tokens(f"{SYSTEM if random.random() < 0.3 else ''}USER:"))
        conversation.say([IMAGE_ID] * image_tokens)
        for turn, (shape, question, answer) in enumerate(questions(scene, random)):
            start = len(conversation.ids)
            conversation.say(self._tokens(("USER: " if turn else "") + f"{question} ASSISTANT:"))
            at = conversation.ids.index(self._id(shape), start)
            thing = next((thing for thing in scene if thing.shape == shape), None)
            conversation.colour[at] = 1 + list(COLOURS).index(thing.colour) if thing else 0
            conversation.place[at] = 1 + 2 * (thing.y >= 0.5) + (thing.x >= 0.5) if thing else 0
            if answer in ("yes", "no"):
                conversation.agrees[at] = int(answer == "yes")
            conversation.say([*self._tokens(answer), EOS_ID], by_model=True)
        return conversation

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def _id(self, word: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(word)  # type: ignore[return-value]


def _pad(rows: list[list[int]], fill: int) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)


def questions(scene: list[Thing], random: Random, count: int = 3) -> Iterator[tuple[str, str, str]]:
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


def vary_background(shows_object: Tensor, count: int, generator: Generator) -> Tensor:
    """Choose all patches that show an object, and others with replacement: indices ``(B, count)`` in reading order.

    Args:
        shows_object: Whether each patch shows an object: ``(B, N)`` bool.
        count: Number of patches to choose; if more show an object, a random choice of those.
        generator: Source of chance.
    """
    order = torch.rand(shows_object.shape, generator=generator) + 2.0 * ~shows_object
    ranked = order.argsort(1)[:, :count]
    chosen = torch.multinomial((~shows_object).float() + 1e-6, count, replacement=True, generator=generator)
    objects = shows_object.sum(1, keepdim=True)
    width = ranked.shape[1]
    chosen[:, :width] = torch.where(torch.arange(width) < objects, ranked, chosen[:, :width])
    return chosen.sort(1).values


@torch.no_grad()
def align_projector(projector: Any, readouts: Readouts) -> None:
    """Start LLaVA's projector from the tower's readouts, so that the language model finds at once what each patch shows.

    LLaVA aligns its projector in a training stage of its own; here the maps are known already. A readout passes the GELU as the
    difference of two units, gelu(a) - gelu(-a) = a.
    """
    maps = (readouts.shape, readouts.colour, readouts.place)
    weight = torch.cat([m.weight / scale for m, scale in zip(maps, (4, 4, 0.6), strict=True)])
    bias = torch.cat([m.bias / scale for m, scale in zip(maps, (4, 4, 0.6), strict=True)])
    k = len(weight)
    projector.linear_1.weight[: 2 * k] = torch.cat([weight, -weight])
    projector.linear_1.bias[: 2 * k] = torch.cat([bias, -bias])
    projector.linear_2.weight[:k] = 0
    projector.linear_2.weight[:k, : 2 * k] = torch.cat([torch.eye(k), -torch.eye(k)], dim=1)
