"""Training pocket-qwen: a tower and a merger learn to name what they see, then a language model learns to read it, on scenes of mixed sizes."""

from collections.abc import Iterable
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from transformers import CLIPVisionModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb

from qlip.data.language import PAD_ID, things
from qlip.data.scenes import COLOURS, SHAPES, Scenes, draw_scenes
from recipes.pocket.clip import balanced_cross_entropy, labels, patch_objects
from recipes.pocket.conversation import Chat, language_losses, make_hints, pad
from recipes.pocket.models import (
    FRAMES,
    IMAGE_SIZE,
    PATCH_SIZE,
    UNIT_SIZE,
    WIDTH,
    make_qwen,
    normalise,
    qwen_tokenizer,
    to_qwen_patches,
)
from recipes.pocket.reader import vary_background
from recipes.pocket.run import PocketRun, Schedule

QWEN_SCHEDULE = Schedule(cycles=(500, 900, 700), batch_size=32, lr=1e-3)
HINT_LAYERS = {"colour": 2, "place": 3, "agrees": 3}
LOOKING = 1  # layer whose heads are told where to look
TOKENS = 1024  # of the images of a step, about
QUESTIONS = 60  # of a step, about; three to six for each scene
SIDES = (4, 12)  # fewest and most units along an edge of most scenes
LARGE, LARGEST = 0.15, 24  # share of steps with larger scenes, and the most units along an edge of those


class PocketQwen(PocketRun):
    """The training of pocket-qwen: first tower and merger, then merger and language model.

    The tower starts from pocket-clip's, see `start_tower`. In the first cycle of the learning rate it learns alone that an image token is
    like the words for the shape and the colour that its unit shows, in the language model's own embeddings; with a language model that
    learns to read beside it, that takes seven times as long. Then the tower stays as it is. Answers alone teach too little, as in
    `PocketReader`, whose hints are used here too. Besides,

    - image tokens go on being named;
    - the heads of an early layer are told to look, where a shape is named, at the image tokens that show it;
    - a tower that rotates does not know where in the image a patch is, so the language model has to tell it from M-RoPE: two linear
      readouts ask for row and column at every image token, and for height and width behind the image.

    Scenes have 4 to 12 units along each edge, some up to 24. In half of the batches background tokens are thinned out or
    multiplied, and in half of them positions are stretched, as in `PocketReader`. No quadtree is involved.
    """

    objects = (2, 5)

    def __init__(self, tower: CLIPVisionModel, schedule: Schedule = QWEN_SCHEDULE, seed: int = 0) -> None:
        super().__init__(schedule, seed)
        torch.manual_seed(seed)
        self.qwen = make_qwen()
        start_tower(self.qwen.model.visual, tower)
        self.shape, self.colour = (nn.Parameter(torch.zeros(1 + len(words))) for words in (SHAPES, COLOURS))
        self.hints = make_hints(WIDTH, HINT_LAYERS)
        self.row_column, self.height_width = nn.Linear(WIDTH, 2), nn.Linear(WIDTH, 2)
        tokenizer = qwen_tokenizer()
        self.chat = Chat(
            tokenizer,
            user="<|im_start|>user\n",
            assistant="<|im_end|>\n<|im_start|>assistant\n",
            end=tokenizer.eos_token_id,
        )

    def choose_size(self, random: Random) -> tuple[int, tuple[int, int]]:
        """Choose height and width evenly on a logarithmic scale, and as many scenes as keep the step's cost about the same."""
        low, high = SIDES[0], LARGEST if random.random() < LARGE * self.progress else SIDES[1]
        rows, columns = (round(low * (high / low) ** random.random()) for _ in range(2))
        count = max(2, min(self.schedule.batch_size, TOKENS // (rows * columns)))
        return count, (rows * UNIT_SIZE, columns * UNIT_SIZE)

    @property
    def progress(self) -> float:
        """How far the first steps of naming, and then of reading, are behind, from 0 to 1: first things first."""
        begun = 0 if self.naming else self.schedule.cycles[0]
        return min(1.0, 4 * (self.global_step - begun) / self.schedule.cycles[0])

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Compute the loss on one batch of fresh scenes; once they are read, with three to six questions about each."""
        scenes, generator, random = self.draw()
        visual = self.qwen.model.visual
        visual.blocks.requires_grad_(self.naming)
        visual.patch_embed.requires_grad_(self.naming)
        features, shown = self.see(scenes.images), patch_objects(scenes, UNIT_SIZE)
        shapes, colours = labels(scenes.shape, shown), labels(scenes.colour, shown)
        losses = {
            "unit_shape": balanced_cross_entropy(self.name(features, SHAPES, self.shape), shapes),
            "unit_colour": balanced_cross_entropy(self.name(features, COLOURS, self.colour), colours),
        }
        if self.naming:
            self.log_all(losses)
            return torch.stack(list(losses.values())).sum()
        grid = torch.tensor(scenes.images.shape[-2:]) // UNIT_SIZE
        places = torch.cartesian_prod(*(torch.arange(float(edge)) for edge in grid.tolist()))
        places = places.expand(len(scenes), -1, -1)
        if random.random() < 0.5 * self.progress:
            chosen = vary_background(shown >= 0, random.randint(16, 144), generator)[..., None]
            features, places = (each.gather(1, chosen.expand(-1, -1, each.shape[2])) for each in (features, places))
            colours = colours.gather(1, chosen[..., 0])
        longest = int(grid.max())
        stretch = random.uniform(1.0, max(1.0, 32 / longest)) if random.random() < 0.5 * self.progress else 1.0
        told, right = self.read(scenes, features, colours, stretch * places, stretch * grid, random)
        losses |= told
        self.log_all({**losses, "right": right})
        return torch.stack(list(losses.values())).sum()

    def see(self, images: Tensor) -> Tensor:
        """Give the image tokens of pictures ``(B, 3, H, W)`` of one size: ``(B, N, D)``."""
        grid = torch.tensor([[1, *(edge // PATCH_SIZE for edge in images.shape[-2:])]]).expand(len(images), -1)
        merged = self.qwen.model.visual(to_qwen_patches(normalise(images)), grid_thw=grid).pooler_output
        return merged.view(len(images), -1, WIDTH)

    def name(self, features: Tensor, words: Iterable[str], bias: Tensor) -> Tensor:
        """Compare image tokens with the embeddings of words, and with that of padding for none of them: ``(B, N, 1 + words)``."""
        ids = torch.tensor([PAD_ID, *(self.chat.tokenizer.vocab[word] for word in words)])
        return F.linear(features, self.qwen.get_input_embeddings()(ids), bias)

    def read(
        self, scenes: Scenes, features: Tensor, colours: Tensor, places: Tensor, extent: Tensor, random: Random
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Have questions read and answered.

        Args:
            scenes: The scenes.
            features: Image tokens ``(B, N, D)``.
            colours: Colour that each shows, counted from 1, or 0 ``(B, N)``.
            places: Row and column of each ``(B, N, 2)``.
            extent: Rows and columns of the image ``(2,)``.
            random: Source of chance.

        Returns:
            The losses, and the share of answers that begin right.
        """
        config, model = self.qwen.config, self.qwen.model
        image = [config.image_token_id] * features.shape[1]
        conversations, turns = [], max(3, min(6, QUESTIONS // len(scenes)))
        for i in range(len(scenes)):
            conversation = self.chat.begin("<|im_start|>user\n<|vision_start|>", image, "<|vision_end|>")
            self.chat.ask(conversation, things(scenes, i), random, turns)
            conversations.append(conversation)
        ids = pad([conversation.ids for conversation in conversations], PAD_ID)
        seen = ids == config.image_token_id
        embeds = model.get_input_embeddings()(ids).masked_scatter(seen[..., None], features)
        first, count = int(seen[0].int().argmax()), features.shape[1]
        after = first + extent.max() + torch.arange(ids.shape[1] - first - count)
        positions = torch.cat([torch.arange(first), torch.full((count,), first), after]).float()
        positions = positions.expand(3, len(ids), -1).clone()
        positions[1:, :, first : first + count] = first + places.permute(2, 0, 1)
        states = model.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=(ids != PAD_ID).long(),
            output_hidden_states=True,
        )
        losses, right = language_losses(conversations, states, self.qwen.lm_head, self.hints, HINT_LAYERS)
        wanted = pad([conversation.colour for conversation in conversations], 0)
        losses["look"] = self.look(states.hidden_states[LOOKING], positions, wanted, colours, first)
        at_image = self.row_column(states.hidden_states[1][:, first : first + count])
        behind = self.height_width(states.hidden_states[2][:, first + count])
        losses["row_column"] = 10 * F.smooth_l1_loss(at_image, places / 8)
        losses["height_width"] = 10 * F.smooth_l1_loss(behind, (extent / 8).expand_as(behind))
        return losses, right

    def look(self, states: Tensor, positions: Tensor, wanted: Tensor, colours: Tensor, first: int) -> Tensor:
        """Compute how far a layer's heads are from looking, where a shape is named, at the image tokens that show it.

        Args:
            states: What the layer reads ``(B, L, D)``.
            positions: Time, row and column of each token ``(3, B, L)``.
            wanted: Where a shape is named that is in the image, its colour, which no other object of the scene has ``(B, L)``; else 0 or less.
            colours: Colour that each image token shows, or 0 ``(B, N)``.
            first: Place of the first image token.
        """
        words = self.qwen.model.language_model
        layer, attention = words.layers[LOOKING], words.layers[LOOKING].self_attn
        states = layer.input_layernorm(states)
        query, key = (
            project(states).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *words.rotary_emb(states, positions))
        row, at = (wanted > 0).nonzero(as_tuple=True)
        keys = key[row, :, first : first + colours.shape[1]]
        scores = attention.scaling * (keys @ query[row, :, at][..., None]).squeeze(-1)  # (M, heads, N)
        shows = (colours[row] == wanted[row, at, None])[:, None]
        shows = shows | ~shows.any(-1, keepdim=True)  # a shape may hide behind no unit of its own
        return (scores.logsumexp(-1) - scores.masked_fill(~shows, -torch.inf).logsumexp(-1)).mean()


@torch.no_grad()
def start_tower(visual: Any, clip: CLIPVisionModel) -> None:
    """Start a Qwen's tower from CLIP's, as Qwen2-VL's (arXiv 2409.12191) was: layers are taken over, and the position table is dropped.

    CLIP normalises patches before its first layer, and a Qwen does not: patches are scaled by the mean of what CLIP would, and what CLIP
    adds to all patches comes in with the bias of the first attention.
    """
    embeddings, norm = clip.embeddings, clip.pre_layrnorm
    drawn = normalise(draw_scenes(16, IMAGE_SIZE, IMAGE_SIZE, Generator().manual_seed(0)).images)
    scale = norm.weight / embeddings(drawn)[:, 1:].std(-1).mean()
    place = embeddings.position_embedding.weight[1:].mean(0)
    weight = embeddings.patch_embedding.weight
    weight = scale.view(-1, 1, 1, 1) * (weight - weight.mean(0)) / FRAMES
    visual.patch_embed.proj.weight.copy_(weight.unsqueeze(2).expand(-1, -1, FRAMES, -1, -1))
    for block, layer in zip(visual.blocks, clip.encoder.layers, strict=False):
        attention = layer.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        block.attn.qkv.weight.copy_(torch.cat([part.weight for part in parts]))
        block.attn.qkv.bias.copy_(torch.cat([part.bias for part in parts]))
        for ours, theirs in (
            (block.norm1, layer.layer_norm1),
            (block.attn.proj, attention.out_proj),
            (block.norm2, layer.layer_norm2),
            (block.mlp.fc1, layer.mlp.fc1),
            (block.mlp.fc2, layer.mlp.fc2),
        ):
            ours.load_state_dict(theirs.state_dict())
    visual.blocks[0].attn.proj.bias += scale * (place - place.mean()) + norm.bias
