"""The models before training, and their processors: stock classes of transformers, small enough for a laptop."""

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
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
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

MERGE = 2
UNIT_SIZE = MERGE * PATCH_SIZE  # pixels of what a Qwen reads as one token
FRAMES = 2  # a Qwen reads a picture as a film of two equal frames
QWEN_SPECIAL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_CHAT_TEMPLATE = (  # Qwen2-VL's, without its system sentence
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
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


def make_llava(tower: CLIPVisionModel, width: int = WIDTH) -> LlavaForConditionalGeneration:
    """Make a LLaVA over a copy of CLIP's trained vision tower, with a Llama of four layers, so wide, and random weights."""
    text = {
        "model_type": "llama",
        "vocab_size": len(make_tokenizer("$A")),
        "hidden_size": width,
        "intermediate_size": 3 * width,
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


def make_qwen() -> Qwen2VLForConditionalGeneration:
    """Make a Qwen2-VL with random weights: a tower that rotates, as deep as LLaVA reads CLIP's, a merger of 2 x 2, and M-RoPE."""
    tokenizer = qwen_tokenizer()
    start, end, vision_start, vision_end, image, video = (tokenizer.vocab[token] for token in QWEN_SPECIAL)
    tower = {
        "depth": 4,
        "embed_dim": WIDTH,
        "hidden_size": WIDTH,
        "mlp_ratio": 4,
        "hidden_act": "gelu",
        "num_heads": 4,
        "patch_size": PATCH_SIZE,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": FRAMES,
    }
    # Qwen2-VL's base of a million is for 32,768 tokens. Columns turn slowest; here they have to turn within a scene of 32 units.
    rotation = {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 7, 7]}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 8192,
        "rope_parameters": rotation,
        "pad_token_id": PAD_ID,
        "bos_token_id": start,
        "eos_token_id": end,
    }
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=tower,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=vision_start,
        vision_end_token_id=vision_end,
        tie_word_embeddings=True,  # as in Qwen2-VL-2B
    )
    qwen = Qwen2VLForConditionalGeneration(config)
    words = qwen.model.language_model
    torch.nn.init.normal_(words.embed_tokens.weight, std=WIDTH**-0.5)
    for projection in (words.layers[0].self_attn.q_proj, words.layers[0].self_attn.k_proj):
        # Rotated biases depend on where tokens are and not on what they say: that makes columns quick to learn.
        torch.nn.init.normal_(projection.bias)
    qwen.generation_config.pad_token_id, qwen.generation_config.eos_token_id = PAD_ID, end
    return qwen


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Make the pocket tokenizer with Qwen2-VL's special tokens behind its words."""
    tokenizer = make_tokenizer("$A")
    tokenizer.add_special_tokens({"additional_special_tokens": list(QWEN_SPECIAL)})
    tokenizer.bos_token, tokenizer.eos_token = None, "<|im_end|>"
    return tokenizer


def qwen_processor() -> Qwen2VLProcessor:
    """Make the processor of `make_qwen`'s model: pictures keep their size up to 1280 tokens, as Qwen2-VL's documentation has it."""
    size = {"shortest_edge": 4 * UNIT_SIZE**2, "longest_edge": 1280 * UNIT_SIZE**2}  # both are areas
    return Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=size), qwen_tokenizer(), Qwen2VLVideoProcessor(), chat_template=QWEN_CHAT_TEMPLATE
    )


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


def to_qwen_patches(images: torch.Tensor) -> torch.Tensor:
    """Cut normalised pictures ``(B, 3, H, W)`` of whole units into patches, as Qwen2VLImageProcessor does: ``(B*N, 3*2*p*p)``."""
    count, _, height, width = images.shape
    rows, columns = height // UNIT_SIZE, width // UNIT_SIZE
    cut = images.reshape(count, 3, rows, MERGE, PATCH_SIZE, columns, MERGE, PATCH_SIZE).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return cut.unsqueeze(6).expand(*(-1,) * 6, FRAMES, -1, -1).reshape(-1, 3 * FRAMES * PATCH_SIZE**2)
