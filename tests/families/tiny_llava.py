"""A LLaVA small enough to build in a second: real classes, real chat template, random weights that do look at the image."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPImageProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from qlip.towers.synthetic import random_clip

SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<unk>"]
WORDS = [
    "USER:",
    "ASSISTANT:",
    "what",
    "colour",
    "is",
    "the",
    "of",
    "left",
    "right",
    "or",
    "yes",
    "no",
    "there",
    "a",
    "?",
    "circle",
    "square",
    "red",
    "green",
    "blue",
    "in",
    "picture",
]
CHAT_TEMPLATE = (  # llava-hf/llava-1.5-7b-hf
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return tokenizer


def tiny_processor() -> LlavaProcessor:
    """As the checkpoint's: right padding would be wrong, so it is set to show that qlip does not rely on it."""
    images = CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "right"
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_llava(
    layer: int | list[int] = -2, strategy: str = "default", tower: PreTrainedModel | None = None, **text: int
) -> LlavaForConditionalGeneration:
    """Build a LLaVA with a Llama of width 64 with 2 layers; the same at every call.

    Args:
        layer: Layers of the tower that it reads.
        strategy: ``default`` leaves out the class token, ``full`` keeps every token.
        tower: The vision tower, which is copied; a CLIP of width 64 with 3 layers on a 24 x 24 grid if not given.
        text: Settings of the Llama.
    """
    tower = random_clip(64, 3).vision_model if tower is None else tower
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    words = LlamaConfig(
        **sizes,
        num_key_value_heads=2,
        vocab_size=len(SPECIAL + WORDS),
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.4,
        **{"max_position_embeddings": 4096, **text},
    )
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=words,
        image_token_index=SPECIAL.index("<image>"),
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config).eval()
        for linear in (model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2):
            torch.nn.init.normal_(linear.weight, std=0.2)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.generation_config.eos_token_id = None  # answers of a fixed length: random weights stop anywhere
    model.generation_config.pad_token_id = 0
    model.generation_config.suppress_tokens = [SPECIAL.index("<image>")]
    return model


def save_tiny_llava(folder: Path, **generation: object) -> LlavaForConditionalGeneration:
    """Save model and processor to a folder as the Hub holds them, with the given settings of generation."""
    model = tiny_llava()
    model.generation_config.update(**generation)
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return model


def scene(width: int, height: int, seed: int) -> Image.Image:
    """Smooth ground, a few discs, and a noisy corner: a quadtree leaves some of it whole and splits the rest."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(width, height)
    picture = 0.4 + 0.3 * np.stack([x, y, 1 - x], axis=-1)
    for _ in range(3):
        cy, cx, radius = random.uniform(0.1, 0.9, 3) * (height / max(width, height), width / max(width, height), 0.2)
        picture[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = random.uniform(0, 1, 3)
    picture[: height // 3, : width // 3] += random.normal(0, 0.2, (height // 3, width // 3, 3))
    return Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8))
