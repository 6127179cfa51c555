"""The two models before training, and their processors: stock classes of transformers, small enough for a laptop."""

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from qlip.data.language import BOS_ID, EOS_ID, IMAGE, IMAGE_ID, PAD_ID, make_tokenizer

IMAGE_SIZE, PATCH_SIZE = 112, 14
GRID = IMAGE_SIZE // PATCH_SIZE
WIDTH = 128
FEATURE_LAYER = -2  # LLaVA-1.5 reads the last layer but one
CHAT_TEMPLATE = (  # LLaVA-1.5's
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }}"
    "{% else %}{{ message['role'].upper() + ': ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' ' }}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

_VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
    "hidden_act": "gelu",
    "projection_dim": WIDTH,
}


def make_clip() -> CLIPModel:
    """Make a CLIP for images of 112 pixels, 8 x 8 patches, with random weights and a text tower of two layers."""
    text = {
        "vocab_size": len(make_tokenizer("$A")),
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "hidden_act": "gelu",
        "projection_dim": WIDTH,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=_VISION, projection_dim=WIDTH))


def make_llava(tower: CLIPVisionModel) -> LlavaForConditionalGeneration:
    """Make a LLaVA over a copy of CLIP's trained vision tower, with a Llama of four layers and random weights."""
    text = {
        "model_type": "llama",
        "vocab_size": len(make_tokenizer("$A")),
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 8192,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
    }
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **_VISION},
        text_config=text,
        image_token_index=IMAGE_ID,
        image_seq_length=GRID * GRID,
        vision_feature_layer=FEATURE_LAYER,
        tie_word_embeddings=False,
    )
    llava = LlavaForConditionalGeneration(config)
    llava.model.vision_tower.load_state_dict(tower.state_dict())
    llava.generation_config.pad_token_id, llava.generation_config.eos_token_id = PAD_ID, EOS_ID
    return llava


def image_processor() -> CLIPImageProcessor:
    """Make CLIP's preprocessing for 112 pixels."""
    size = {"shortest_edge": IMAGE_SIZE}
    return CLIPImageProcessor(size=size, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def clip_processor() -> CLIPProcessor:
    """Make the processor of `make_clip`'s model."""
    return CLIPProcessor(image_processor(), make_tokenizer("<s> $A </s>"))


def llava_processor() -> LlavaProcessor:
    """Make the processor of `make_llava`'s model, with LLaVA-1.5's chat template."""
    return LlavaProcessor(
        image_processor(),
        make_tokenizer("<s> $A"),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Normalise pixels in [0, 1] as `image_processor` does: ``(B, 3, n, n)``."""
    processor = image_processor()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    return (images - mean) / std
