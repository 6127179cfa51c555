"""The models in which one vector stands for a picture, one row each: a tiny model, its stock processor, and what it was made for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any

from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    PreTrainedModel,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Processor,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from tests.families.row import TOWER, VOCABULARY, square, tokenizer

GRID, PATCH, LABELS = 16, 16, 7  # what SigLIP 2's processor asks for, whatever it is made with
SIDE = GRID * PATCH
PICTURES = {**TOWER, "image_size": SIDE, "patch_size": PATCH}
WORDS = {**TOWER, "vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIGLIP_LACKS = {"offload": "the attention of its head reads weights of a layer that it does not call"}
OTHER_GRIDS = ((20, 27), (9, 17))  # no multiples of the table's


@dataclass(frozen=True)
class EmbeddingRow:
    """A family to try.

    Attributes:
        make: Builds a model with few weights.
        processor: Builds its stock processor, of images and words or of images alone.
        position: With it the two are equal; None for what the tower itself does.
        grids: Other grids at which it equals its own interpolation.
        told: What the stock model must be told there.
        left_out: What the stock processor returns and the converted one need not.
        lacks: What the stock model itself does not do, and why; the contract checks that it does not.
    """

    make: Callable[[], PreTrainedModel]
    processor: Callable[[], Any]
    position: str | None = "bicubic"
    grids: tuple[tuple[int, int], ...] = OTHER_GRIDS
    told: Mapping[str, object] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    lacks: Mapping[str, str] = field(default_factory=dict)


def clip() -> CLIPModel:
    return CLIPModel(CLIPConfig(text_config={**WORDS, "projection_dim": 32}, vision_config=PICTURES, projection_dim=32))


def clip_processor() -> CLIPProcessor:
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=square(SIDE))
    return CLIPProcessor(images, tokenizer())


def siglip2() -> Siglip2Model:
    tower = {**TOWER, "num_patches": GRID**2, "patch_size": PATCH}
    return Siglip2Model(Siglip2Config(text_config={**WORDS, "projection_size": 64}, vision_config=tower))


def siglip2_processor() -> Siglip2Processor:
    """With a tokenizer of its own kind, for beside its config transformers reads any other as one; a letter a token."""
    letters = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *ascii_lowercase]
    words = Siglip2Tokenizer({letter: i for i, letter in enumerate(letters)})
    return Siglip2Processor(Siglip2ImageProcessor(), words)


def dino_processor() -> BitImageProcessor:
    return BitImageProcessor(size={"shortest_edge": SIDE}, crop_size=square(SIDE))


EMBEDDINGS = {
    "clip": EmbeddingRow(clip, clip_processor, grids=()),  # off its size it aligns other ends of its table
    "siglip": EmbeddingRow(
        lambda: SiglipModel(SiglipConfig(text_config={**WORDS, "projection_size": 64}, vision_config=PICTURES)),
        lambda: SiglipProcessor(SiglipImageProcessor(size=square(SIDE)), tokenizer()),
        told={"interpolate_pos_encoding": True},
        lacks=SIGLIP_LACKS,
    ),
    "siglip2": EmbeddingRow(
        siglip2,
        siglip2_processor,
        position=None,
        left_out=frozenset({"pixel_attention_mask", "spatial_shapes"}),
        lacks=SIGLIP_LACKS,
    ),
    "vit": EmbeddingRow(
        lambda: ViTForImageClassification(ViTConfig(**PICTURES, num_labels=LABELS)),
        lambda: ViTImageProcessor(size=square(SIDE)),
        told={"interpolate_pos_encoding": True},
    ),
    "dinov2": EmbeddingRow(
        lambda: Dinov2ForImageClassification(Dinov2Config(**PICTURES, num_labels=LABELS)), dino_processor
    ),
    "dinov2 with registers": EmbeddingRow(
        lambda: Dinov2WithRegistersForImageClassification(
            Dinov2WithRegistersConfig(**PICTURES, num_labels=LABELS, num_register_tokens=3)
        ),
        dino_processor,
        position=None,
    ),
}
