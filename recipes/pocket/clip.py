"""Training pocket-clip: dense losses on the patches of scenes, then CLIP's loss on scenes and captions too."""

from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qlip.core.position import grid_coords
from qlip.data.language import caption, make_tokenizer, things
from qlip.data.scenes import COLOURS, SHAPES, Scenes
from recipes.pocket.models import FEATURE_LAYER, GRID, PATCH_SIZE, WIDTH, make_clip, normalise
from recipes.pocket.run import PocketRun, Schedule

CLIP_SCHEDULE = Schedule(cycles=(3000, 500), batch_size=128, lr=1.2e-3)
NAMED = 4  # so many times fewer scenes has a step of the first cycle


class Readouts(nn.Module):
    """Linear maps from a patch's hidden state to what it shows: shape, colour (each or none), and where it is (y, x)."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = nn.Linear(WIDTH, len(SHAPES) + 1)
        self.colour = nn.Linear(WIDTH, len(COLOURS) + 1)
        self.place = nn.Linear(WIDTH, 2)


class PocketClip(PocketRun):
    """The training of pocket-clip: dense losses on the patches that LLaVA will read, and CLIP's contrastive loss.

    A tower that learns from captions alone needs far longer until its patches say what they show. So in the first cycle of the learning
    rate it learns that alone, in many small steps; then from captions too.
    """

    def __init__(self, schedule: Schedule = CLIP_SCHEDULE, seed: int = 0) -> None:
        super().__init__(schedule, seed)
        torch.manual_seed(seed)
        self.clip, self.readouts = make_clip(), Readouts()
        self.tokenizer = make_tokenizer("<s> $A </s>")

    @property
    def objects(self) -> tuple[int, int]:
        """Fewest and most objects of a scene; more of them teach more names in a step."""
        return (3, 6) if self.naming else (2, 4)

    def choose_size(self, random: Random) -> tuple[int, tuple[int, int]]:
        """Have fewer scenes in a step that only names: it needs no others to tell apart, and more steps teach more."""
        count, size = super().choose_size(random)
        return (max(1, count // NAMED) if self.naming else count), size

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        """Compute the loss on one batch of fresh scenes."""
        scenes, _, random = self.draw()
        vision = self.clip.vision_model(normalise(scenes.images), output_hidden_states=True)
        losses = self.name(scenes, vision.hidden_states[FEATURE_LAYER][:, 1:])
        if not self.naming:
            losses |= self.contrast(scenes, self.clip.visual_projection(vision.pooler_output), random)
        self.log_all(losses)
        return torch.stack(list(losses.values())).sum()

    def name(self, scenes: Scenes, patches: Tensor) -> dict[str, Tensor]:
        """Compute the dense losses: what each of the patches ``(B, N, D)`` shows, and where it is."""
        shown, places = patch_objects(scenes), grid_coords(GRID).flatten(0, 1).expand(len(patches), -1, -1)
        return {
            "shape": balanced_cross_entropy(self.readouts.shape(patches), labels(scenes.shape, shown)),
            "colour": balanced_cross_entropy(self.readouts.colour(patches), labels(scenes.colour, shown)),
            "place": F.mse_loss(self.readouts.place(patches), places),
        }

    def contrast(self, scenes: Scenes, embeddings: Tensor, random: Random) -> dict[str, Tensor]:
        """Compute CLIP's loss on the images' embeddings ``(B, D)`` and captions of the scenes."""
        texts = [caption(things(scenes, i), random) for i in range(len(scenes))]
        inputs = self.tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        text = self.clip.text_projection(self.clip.text_model(**inputs).pooler_output)
        logits = self.clip.logit_scale.exp() * F.normalize(embeddings, dim=-1) @ F.normalize(text, dim=-1).T
        pairs = torch.arange(len(logits))
        self.log_all({"hits": (logits.argmax(1) == pairs).float().mean()})
        return {"contrastive": (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2}


def patch_objects(scenes: Scenes, patch_size: int = PATCH_SIZE) -> Tensor:
    """Tell which object each patch shows: ``(B, h*w)``, an index into the scene's objects, or -1 for the background.

    It is the object whose inner box covers most of the patch and at least a quarter, or whose centre lies in it.

    Args:
        scenes: The scenes.
        patch_size: Side of a patch in pixels.
    """
    height, width = scenes.images.shape[-2:]
    rows, columns = torch.arange(height // patch_size), torch.arange(width // patch_size)
    origin = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1) * patch_size  # (N, 2)
    half = 0.42 * scenes.side[..., None, None]
    centre = scenes.centre[:, :, None]
    overlap = torch.minimum(centre + half, origin + patch_size) - torch.maximum(centre - half, origin)
    area = overlap.clamp(min=0).prod(-1)  # (B, K, N)
    holds = ((centre >= origin) & (centre < origin + patch_size)).all(-1)
    area = (area + patch_size**2 * holds).masked_fill((scenes.shape < 0)[..., None], 0)
    most, index = area.max(1)
    return index.masked_fill(most < patch_size**2 / 4, -1)


def labels(kinds: Tensor, shown: Tensor) -> Tensor:
    """Label each patch with the kind of the object that it shows, counted from 1; 0 is the background: ``(B, h*w)``.

    Args:
        kinds: Shape or colour of each object: ``(B, K)``.
        shown: What `patch_objects` returns: ``(B, h*w)``.
    """
    return torch.where(shown >= 0, kinds.gather(1, shown.clamp(min=0)) + 1, 0)


def balanced_cross_entropy(logits: Tensor, target: Tensor, background: float = 0.15) -> Tensor:
    """Compute the cross-entropy over patches, with a smaller weight for class 0, the background, which most of them show."""
    weight = torch.ones(logits.shape[-1])
    weight[0] = background
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight)
