"""Training the pocket models: a CLIP on scenes and captions, then a reader on the frozen CLIP's patches.

Both are ordinary Lightning runs. A step draws its scenes from the seed and its own number, so that a run that was stopped
goes on as if it had not been.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import CLIPVisionModel

from qlip.core.position import grid_coords
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
    caption,
    make_tokenizer,
    things,
)
from qlip.data.scenes import COLOURS, SHAPES, Scenes, draw_scenes
from recipes.pocket.models import FEATURE_LAYER, GRID, IMAGE_SIZE, PATCH_SIZE, WIDTH, make_clip, make_llava, normalise

IGNORED = -100
HINTS = {"colour": (2, len(COLOURS) + 1), "place": (2, 5), "agrees": (3, 2)}  # layer that is asked, and classes


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one of the two models is trained."""

    cycles: tuple[int, ...]
    """Optimiser steps of each cycle of the learning rate; it starts anew with every cycle (SGDR, arXiv 1608.03983)."""
    batch_size: int
    """Scenes in a step."""
    lr: float
    """Highest learning rate of AdamW."""

    @property
    def steps(self) -> int:
        """Optimiser steps of all cycles."""
        return sum(self.cycles)

    def rate(self, step: int) -> float:
        """Share of the highest learning rate: in each cycle up in a twentieth of its steps, then a cosine down to a twentieth."""
        for length in self.cycles:
            if step < length:
                break
            step -= length
        warmup = round(0.05 * length)
        if step < warmup:
            return step / warmup
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (length - warmup)))


CLIP_SCHEDULE = Schedule(cycles=(900,), batch_size=128, lr=1.2e-3)
# The second cycle is for what the first leaves unlearned: with it low, the rate never gets a reader to look for a new thing.
READER_SCHEDULE = Schedule(cycles=(900, 700), batch_size=32, lr=1.5e-3)


class _Pocket(L.LightningModule):
    """What both runs share: scenes from the step's number, AdamW with a warm-up and a cosine."""

    def __init__(self, schedule: Schedule, seed: int) -> None:
        super().__init__()
        self.schedule, self.seed = schedule, seed

    def draw(self) -> tuple[Scenes, Generator, Random]:
        """The scenes of this step, and sources of chance for the rest of it."""
        generator = Generator().manual_seed(self.seed * 1_000_003 + self.global_step)
        scenes = draw_scenes(self.schedule.batch_size, IMAGE_SIZE, IMAGE_SIZE, generator)
        return scenes, generator, Random(self.seed * 1_000_003 + self.global_step)

    def train_dataloader(self) -> DataLoader[Any]:
        """The numbers of the steps; `training_step` draws what it needs."""
        return DataLoader(range(self.schedule.steps), batch_size=None)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        """AdamW; nothing decays that is no matrix, nor any embedding."""
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        decayed = [p for name, p in trained if p.ndim >= 2 and "embedding" not in name and "embed_tokens" not in name]
        kept = [p for name, p in trained if not any(p is other for other in decayed)]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": kept, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.schedule.lr, betas=(0.9, 0.98))
        scheduler = LambdaLR(optimizer, self.schedule.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def log_all(self, values: dict[str, Tensor]) -> None:
        """To the progress bar and the logger."""
        self.log_dict({name: value.detach() for name, value in values.items()}, prog_bar=True)


class Readouts(nn.Module):
    """Linear maps from a patch's hidden state to what it shows: shape, colour (each or none), and where it is (y, x)."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = nn.Linear(WIDTH, len(SHAPES) + 1)
        self.colour = nn.Linear(WIDTH, len(COLOURS) + 1)
        self.place = nn.Linear(WIDTH, 2)


class PocketClip(_Pocket):
    """CLIP's contrastive loss on scene and caption, and dense losses on the patches that LLaVA will read.

    The dense ones are what makes it quick: a tower that learns from captions alone needs far longer until its patches say
    what they show.
    """

    def __init__(self, schedule: Schedule = CLIP_SCHEDULE, seed: int = 0) -> None:
        super().__init__(schedule, seed)
        torch.manual_seed(seed)
        self.clip, self.readouts = make_clip(), Readouts()
        self.tokenizer = make_tokenizer("<s> $A </s>")

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """One batch of fresh scenes."""
        scenes, _, random = self.draw()
        texts = [caption(things(scenes, i), random) for i in range(len(scenes))]
        inputs = self.tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        vision = self.clip.vision_model(normalise(scenes.images), output_hidden_states=True)
        image = F.normalize(self.clip.visual_projection(vision.pooler_output), dim=-1)
        text = self.clip.text_projection(self.clip.text_model(**inputs).pooler_output)
        logits = self.clip.logit_scale.exp() * image @ F.normalize(text, dim=-1).T
        pairs = torch.arange(len(logits))
        contrastive = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
        patches = vision.hidden_states[FEATURE_LAYER][:, 1:]
        shown = patch_objects(scenes)
        shape = balanced_cross_entropy(self.readouts.shape(patches), labels(scenes.shape, shown))
        colour = balanced_cross_entropy(self.readouts.colour(patches), labels(scenes.colour, shown))
        place = F.mse_loss(self.readouts.place(patches), grid_coords(GRID).flatten(0, 1).expand(len(patches), -1, -1))
        hits = (logits.argmax(1) == pairs).float().mean()
        self.log_all({"contrastive": contrastive, "hits": hits, "shape": shape, "colour": colour, "place": place})
        return contrastive + shape + colour + place


def patch_objects(scenes: Scenes) -> Tensor:
    """Which object each patch shows, ``(B, h*w)`` index into the scene's objects or -1: the one whose inner box covers
    a quarter of the patch, or whose centre lies in it.
    """
    height, width = scenes.images.shape[-2:]
    rows, columns = torch.arange(height // PATCH_SIZE), torch.arange(width // PATCH_SIZE)
    origin = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1) * PATCH_SIZE  # (N, 2)
    half = 0.42 * scenes.side[..., None, None]
    centre = scenes.centre[:, :, None]
    overlap = torch.minimum(centre + half, origin + PATCH_SIZE) - torch.maximum(centre - half, origin)
    area = overlap.clamp(min=0).prod(-1)  # (B, K, N)
    holds = ((centre >= origin) & (centre < origin + PATCH_SIZE)).all(-1)
    area = (area + PATCH_SIZE**2 * holds).masked_fill((scenes.shape < 0)[..., None], 0)
    most, index = area.max(1)
    return index.masked_fill(most < PATCH_SIZE**2 / 4, -1)


def labels(kinds: Tensor, shown: Tensor) -> Tensor:
    """The kind of the object that each patch shows, counted from 1; 0 for the background."""
    return torch.where(shown >= 0, kinds.gather(1, shown.clamp(min=0)) + 1, 0)


def balanced_cross_entropy(logits: Tensor, target: Tensor, background: float = 0.15) -> Tensor:
    """Cross-entropy over patches, the many of the background (class 0) weighing less."""
    weight = torch.ones(logits.shape[-1])
    weight[0] = background
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight)


@dataclass(frozen=True)
class Talk:
    """A conversation about one scene, token by token; `IGNORED` where nothing is asked of the model.

    Attributes:
        ids: Tokens, one `IMAGE_ID` for each image token.
        answer: The tokens of the answers.
        colour: At the word for a shape in a question, the colour of that shape in the image, 0 if there is none.
        place: In the same places, the quarter of the image in which it lies, 0 if there is none.
        agrees: There too, where presence is asked: whether it has the colour that is asked for.
    """

    ids: list[int]
    answer: list[int]
    colour: list[int]
    place: list[int]
    agrees: list[int]

    def say(self, ids: list[int], *, by_model: bool = False) -> None:
        """Add tokens, of which those of the model are to be learned."""
        self.ids.extend(ids)
        self.answer.extend(ids if by_model else [IGNORED] * len(ids))
        for hints in (self.colour, self.place, self.agrees):
            hints.extend([IGNORED] * len(ids))


class PocketReader(_Pocket):
    """LLaVA's projector and language model, trained to answer questions about what the frozen tower shows.

    Answers alone teach too little: for hundreds of steps nothing is found in the image. So while training, early layers
    have readouts of their own that tell, where a shape is named, its colour, its place and whether it is as asked; see `Talk`.

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
        """One batch of fresh scenes, three questions about each."""
        scenes, generator, random = self.draw()
        with torch.no_grad():
            tower = self.llava.model.vision_tower(normalise(scenes.images), output_hidden_states=True)
            patches = tower.hidden_states[FEATURE_LAYER][:, 1:]
        varied = 0.5 * min(1.0, 4 * self.global_step / self.schedule.cycles[0])  # first things first
        if random.random() < varied:
            chosen = vary_background(patch_objects(scenes) >= 0, random.randint(24, 128), generator)
            patches = patches.gather(1, chosen[..., None].expand(-1, -1, patches.shape[-1]))
        stretch = random.uniform(1.0, 2400 / patches.shape[1]) if random.random() < varied else 1.0
        talks = [self.talk(things(scenes, i), patches.shape[1], random) for i in range(len(scenes))]
        ids = _pad([talk.ids for talk in talks], PAD_ID)
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
        answer = _pad([talk.answer for talk in talks], IGNORED)[:, 1:]
        asked = answer != IGNORED
        logits = self.llava.lm_head(states.last_hidden_state[:, :-1][asked])
        first = asked & F.pad(~asked, (1, 0), value=True)[:, :-1]
        # by answer, not by token: most tokens of a sentence are easy, and would drown the one that says something
        losses = {"answer": F.cross_entropy(logits, answer[asked], reduction="sum") / first.sum()}
        for name, (layer, _) in HINTS.items():
            wanted = _pad([getattr(talk, name) for talk in talks], IGNORED)
            told = self.hints[name](states.hidden_states[layer][wanted != IGNORED])
            losses[name] = F.cross_entropy(told, wanted[wanted != IGNORED])
        right = (logits.argmax(-1) == answer[asked]).float()[first[asked]].mean()
        self.log_all({**losses, "right": right})
        return torch.stack(list(losses.values())).sum()

    def talk(self, scene: list[Thing], image_tokens: int, random: Random) -> Talk:
        """A conversation of three questions about one scene, with or without LLaVA's system sentence."""
        talk = Talk([BOS_ID], *([IGNORED] for _ in range(4)))
        talk.say(self._tokens(f"{SYSTEM if random.random() < 0.3 else ''}USER:"))
        talk.say([IMAGE_ID] * image_tokens)
        for turn, (shape, question, answer) in enumerate(questions(scene, random)):
            start = len(talk.ids)
            talk.say(self._tokens(("USER: " if turn else "") + f"{question} ASSISTANT:"))
            at = talk.ids.index(self._id(shape), start)
            thing = next((thing for thing in scene if thing.shape == shape), None)
            talk.colour[at] = 1 + list(COLOURS).index(thing.colour) if thing else 0
            talk.place[at] = 1 + 2 * (thing.y >= 0.5) + (thing.x >= 0.5) if thing else 0
            if answer in ("yes", "no"):
                talk.agrees[at] = int(answer == "yes")
            talk.say([*self._tokens(answer), EOS_ID], by_model=True)
        return talk

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def _id(self, word: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(word)  # type: ignore[return-value]


def _pad(rows: list[list[int]], fill: int) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)


def questions(scene: list[Thing], random: Random, count: int = 3) -> Iterator[tuple[str, str, str]]:
    """Questions about a scene in all the wordings of the benchmarks: the shape asked about, the text, the answer."""
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
    """Indices ``(B, count)``, in reading order, of all patches that show an object and of others drawn with replacement.

    Args:
        shows_object: ``(B, N)`` bool.
        count: How many to choose; objects too are drawn where there are more of them.
        generator: Of the draws.
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
    """Start LLaVA's projector from the tower's readouts, so that the reader finds at once what each patch shows and where.

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
