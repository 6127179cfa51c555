"""Qwen-VL and its relatives as rows of the contract."""

from collections.abc import Mapping
from functools import partial

import transformers
from transformers import (
    PreTrainedModel,
    ProcessorMixin,
)

from tests.families.row import PATCH, PLACEHOLDER, WORDS, Row, tokenizer

MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
QWEN_TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 64, "patch_size": PATCH}
QWEN_TOKENS = ("<image>", "<video>", "<start>", "<end>", "<start-video>", "<end-video>")


def qwen(
    kind: str, tower: dict[str, object], words: dict[str, object] | None = None, **rotation: object
) -> PreTrainedModel:
    """One of the family; GLM names the tokens around an image otherwise."""
    around = (
        ("image_start", "image_end", "video_start", "video_end") if kind == "Glm4v" else ("vision_start", "vision_end")
    )
    ids = {f"{name}_token_id": PLACEHOLDER + i for i, name in enumerate(("image", "video", *around))}
    config = getattr(transformers, f"{kind}Config")(
        text_config={**WORDS, "rope_parameters": {**MROPE, **rotation}, **(words or {})},
        vision_config={**QWEN_TOWER, **tower},
        **ids,
    )
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config)


def qwen_processor(kind: str) -> ProcessorMixin:
    source = "Glm4v" if kind == "Glm4v" else "Qwen2VL"
    images = getattr(transformers, f"{source}ImageProcessor")(size={"shortest_edge": 56 * 56, "longest_edge": 10**9})
    videos = getattr(transformers, f"{source}VideoProcessor")()
    words = tokenizer(*QWEN_TOKENS, image_token="<image>", video_token="<video>")
    return getattr(transformers, f"{kind}Processor")(images, words, videos)


def qwen_row(
    kind: str,
    tower: dict[str, object],
    words: dict[str, object] | None = None,
    processor: str | None = None,
    rounding: float = 1.0,
    lacks: Mapping[str, str] | None = None,
    **rotation: object,
) -> Row:
    return Row(
        partial(qwen, kind, tower, words, **rotation),
        partial(qwen_processor, processor or kind),
        grid=12,
        unit=2,
        mark="<start> <image> <end>",
        embeddings=0.2,
        position=None,
        leaves=("pixel_values", "image_grid_thw"),
        rounding=rounding,
        lacks=lacks or {},
    )


QWEN_TABLE = {"num_position_embeddings": 144}
QWEN3_5_WORDS = {
    "num_hidden_layers": 4,
    "head_dim": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 4,
}
QWENS = {
    "Qwen2VL": qwen_row("Qwen2VL", {"depth": 3, "embed_dim": 64}),
    "Qwen2_5_VL": qwen_row("Qwen2_5_VL", {"depth": 4, "window_size": 112, "fullatt_block_indexes": [1, 3]}),
    "Qwen3VL": qwen_row("Qwen3VL", {"depth": 4, "deepstack_visual_indexes": [0, 2], **QWEN_TABLE}, {"head_dim": 16}),
    "Qwen3_5": qwen_row(
        "Qwen3_5",
        {"depth": 3, **QWEN_TABLE},
        QWEN3_5_WORDS,
        processor="Qwen3VL",
        rounding=10,  # linear attention: stock logits move by 3e-5 when pixels move by 1e-7
        lacks={"reading its tokenizer": "beside a qwen3_5 config transformers reads any tokenizer as its own"},
        partial_rotary_factor=0.5,
    ),
    "Glm4v": qwen_row(
        "Glm4v",
        {"depth": 3, "image_size": 168},
        lacks={"offload": "the tower reads its table beside the table's forward"},
        partial_rotary_factor=1.0,
    ),
}
