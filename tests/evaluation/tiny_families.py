"""Tiny models of several families in folders, as the Hub holds them: random weights, real processors, chat templates."""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from tests.families.row import PLACEHOLDER, WORDS, tokenizer
from tests.families.rows import ROWS
from tests.shaken import shake

# Each marks where an image is, in words of its own; Gemma's writes the token that its tokenizer writes too.
TEMPLATES = {
    "gemma3": "{{ bos_token }} word20 ",
    "internvl": "word30 ",
    "qwen2.5": "word40 word41 ",
    "gemma4": "word50 ",
    "mistral3": "word60 ",
}
MARKS = {
    "internvl": "<IMG_CONTEXT>",
    "qwen2.5": "<start> <image> <end>",
    "gemma3": "<boi>",
    "gemma4": "<image>",
    "mistral3": "[IMG]",
}
CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}MARK "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}right{% endif %}"
)


def qwen() -> Qwen2_5_VLForConditionalGeneration:
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "depth": 2, "out_hidden_size": 64}
    config = Qwen2_5_VLConfig(
        text_config={
            **WORDS,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        vision_config={**tower, "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1]},
        image_token_id=PLACEHOLDER,
        video_token_id=PLACEHOLDER + 1,
        vision_start_token_id=PLACEHOLDER + 2,
        vision_end_token_id=PLACEHOLDER + 3,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen_processor() -> Qwen2_5_VLProcessor:
    names = {"image_token": "<image>", "video_token": "<video>"}
    words = tokenizer("<image>", "<video>", "<start>", "<end>", **names)
    images = Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 400 * 28 * 28})
    return Qwen2_5_VLProcessor(images, words, Qwen2VLVideoProcessor())


MAKERS: dict[str, tuple[Callable[[], PreTrainedModel], Callable[[], ProcessorMixin]]] = {
    "qwen2.5": (qwen, qwen_processor),
    **{
        name: (ROWS[name].make, ROWS[name].processor)
        for name in ("paligemma", "gemma3", "gemma4", "mistral3", "internvl")
    },
}


def save_tiny(name: str, folder: Path) -> Path:
    """Save a tiny model of a family and its processor."""
    make, make_processor = MAKERS[name]
    model, processor = shake(make()), make_processor()
    if name in ROWS:
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(ROWS[name].embeddings)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    model.generation_config.suppress_tokens = [PLACEHOLDER, PLACEHOLDER + 1]
    model.save_pretrained(folder)
    if name in TEMPLATES:
        processor.chat_template = TEMPLATES[name] + CHAT.replace("MARK", MARKS[name])
    if name == "gemma3":
        begin = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        processor.tokenizer.backend_tokenizer.post_processor = begin
    processor.save_pretrained(folder)
    return folder
