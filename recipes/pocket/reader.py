"""Training pocket-llava: questions and answers about scenes, read from the frozen pocket-clip's patches."""

from random import Random
from typing import Any

import torch
from torch import Generator, Tensor
from transformers import CLIPVisionModel

from qlip.data.language import EOS_ID, IMAGE_ID, PAD_ID, SYSTEM, Thing, make_tokenizer, things
from recipes.pocket.clip import Readouts, patch_objects
from recipes.pocket.conversation import Chat, Conversation, language_losses, make_hints, pad
from recipes.pocket.models import FEATURE_LAYER, WIDTH, make_llava, normalise
from recipes.pocket.run import PocketRun, Schedule

# The second cycle is for what the first leaves unlearned: with it low, the rate never gets a reader to look for a new thing.
READER_SCHEDULE = Schedule(cycles=(700, 500), batch_size=32, lr=1.5e-3)
# Without "asked" the colours that are asked for and found may never meet, and presence is left to chance.
HINT_LAYERS = {"colour": 2, "place": 2, "asked": 2, "agrees": 3}


class PocketReader(PocketRun):
    """The training of pocket-llava: projector and language model learn to answer questions; the tower is frozen.

    Answers alone teach too little: for hundreds of steps nothing is found in the image. So while training, early layers
    have linear classifiers that tell, where a shape is named, its colour, its place, what is asked and whether it is so; see
    `Conversation`.

    Half of the batches read the tower's 64 tokens as they are. In the others the background has been thinned out or
    multiplied, and positions stretched: a stand-in for the long and varied sequences that make a real language model indifferent
    to how many image tokens there are. No quadtree is involved, and no image of another size.
    """

    def __init__(
        self,
        tower: CLIPVisionModel,
        readouts: Readouts,
        schedule: Schedule = READER_SCHEDULE,
        seed: int = 0,
        width: int = WIDTH,
    ) -> None:
        super().__init__(schedule, seed)
        torch.manual_seed(seed)
        self.llava = make_llava(tower, width)
        self.llava.model.vision_tower.requires_grad_(False)
        align_projector(self.llava.model.multi_modal_projector, readouts)
        self.hints = make_hints(width, HINT_LAYERS)
        self.chat = Chat(make_tokenizer("$A"), user="USER: ", assistant=" ASSISTANT:", end=EOS_ID)

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
        ids = pad([conversation.ids for conversation in conversations], PAD_ID)
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
        losses, right = language_losses(conversations, states, self.llava.lm_head, self.hints, HINT_LAYERS)
        self.log_all({**losses, "right": right})
        return torch.stack(list(losses.values())).sum()

    def converse(self, scene: list[Thing], image_tokens: int, random: Random) -> Conversation:
        """Write a conversation of three questions about one scene, with or without LLaVA's system sentence."""
        before = f"<s>{SYSTEM if random.random() < 0.3 else ''}USER:"
        conversation = self.chat.begin(before, [IMAGE_ID] * image_tokens)
        self.chat.ask(conversation, scene, random)
        return conversation


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
