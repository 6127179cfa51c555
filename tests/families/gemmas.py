"""PaliGemma and Gemma as rows of the contract."""

from collections.abc import Mapping
from functools import partial

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
)

from tests.families.row import GEMMA, PATCH, PLACEHOLDER, SMALL_TOWER, VOCABULARY, Row, siglip, square, tokenizer


def paligemma(words: dict[str, object]) -> PaliGemmaForConditionalGeneration:
    tower = siglip(12, projection_dim=64)
    config = PaliGemmaConfig(
        vision_config=tower, text_config={**GEMMA, **words}, image_token_index=PLACEHOLDER, projection_dim=64
    )
    return PaliGemmaForConditionalGeneration(config)


def paligemma_processor() -> PaliGemmaProcessor:
    images = SiglipImageProcessor(size=square(12 * PATCH), image_seq_length=144)
    return PaliGemmaProcessor(images, tokenizer("<image>", image_token="<image>"))


PALIGEMMA_LACKS = {
    "words alone": "the processor wants images",
    "chunked prefill": "the tokens of a prompt attend to later ones, which a later chunk brings",
    "second turn": "the tokens of a prompt attend to later ones, which the second turn brings",
}
PALIGEMMA2_LACKS = {**PALIGEMMA_LACKS, "static cache": "it makes a mask for each kind of layer, and reads them as one"}
GEMMA_LACKS = {"chunked prefill": "the tokens of an image attend to later ones, which a later chunk brings"}


def gemma3() -> Gemma3ForConditionalGeneration:
    words = {**GEMMA, "model_type": "gemma3_text", "sliding_window": 64}
    config = Gemma3Config(
        vision_config=siglip(24, **SMALL_TOWER),
        text_config=words,
        image_token_index=PLACEHOLDER,
        mm_tokens_per_image=36,
    )
    return Gemma3ForConditionalGeneration(config)


def gemma3_processor() -> Gemma3Processor:
    names = {"image_token": "<image_soft_token>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    images = Gemma3ImageProcessor(size=square(24 * PATCH), do_pan_and_scan=False)
    return Gemma3Processor(images, tokenizer(*names.values(), **names), image_seq_length=36)


# Small ones give each layer embeddings of its own and share keys; in large ones the tokens of an image see one another.
GEMMA4_SMALL = {
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "num_kv_shared_layers": 1,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": VOCABULARY,
}
GEMMA4_LARGE = {"hidden_size_per_layer_input": 0, "use_bidirectional_attention": "vision"}
GEMMA4_TOWER = {
    **SMALL_TOWER,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "patch_size": PATCH,
    "position_embedding_size": 64,
}


def gemma4(
    tower: dict[str, object], words: dict[str, object], ears: dict[str, object] | None = None
) -> Gemma4ForConditionalGeneration:
    layers = {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 64,
        "head_dim": 8,
        "global_head_dim": 8,
    }
    config = Gemma4Config(
        vision_config={**GEMMA4_TOWER, **tower},
        text_config={**GEMMA, **layers, **words},
        audio_config=ears,
        image_token_id=PLACEHOLDER,
        video_token_id=PLACEHOLDER + 6,
        audio_token_id=PLACEHOLDER + 3,
    )
    model = Gemma4ForConditionalGeneration(config)
    if tower.get("standardize"):
        model.model.vision_tower.std_bias.normal_()
        model.model.vision_tower.std_scale.uniform_(0.5, 2)
    return model


def gemma4_processor() -> Gemma4Processor:
    names = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    names |= {"audio_token": "<audio>", "boa_token": "<boa>", "eoa_token": "<eoa>"}
    images = Gemma4ImageProcessor(patch_size=PATCH, max_soft_tokens=140)
    words = tokenizer(*names.values(), **names)
    return Gemma4Processor(Gemma4AudioFeatureExtractor(), images, words, Gemma4VideoProcessor(patch_size=PATCH))


def gemma4_row(tower: dict[str, object], words: dict[str, object], lacks: Mapping[str, str] | None = None) -> Row:
    return Row(
        partial(gemma4, tower, words),
        gemma4_processor,
        grid=12,
        unit=3,
        plain=(("do_resize", False),),
        embeddings=0.2,
        position=None,
        rounding=2,  # keys and queries are normed and not scaled down, so that attention is sharp
        lacks=lacks or {},
        left_out=frozenset({"image_position_ids"}),
    )


GEMMAS = {
    "paligemma": Row(
        lambda: paligemma({"model_type": "gemma"}), paligemma_processor, 12, embeddings=0.2, lacks=PALIGEMMA_LACKS
    ),
    "paligemma2": Row(
        lambda: paligemma({"model_type": "gemma2", "sliding_window": 64}),
        paligemma_processor,
        12,
        embeddings=0.2,
        lacks=PALIGEMMA2_LACKS,
    ),
    "gemma3": Row(gemma3, gemma3_processor, 24, unit=4, mark="<boi>", embeddings=0.2, lacks=GEMMA_LACKS),
    "gemma4": gemma4_row(
        {}, GEMMA4_SMALL, {"to_cpu": "it reads the embedding of padding beside the forward of embeddings"}
    ),
    "gemma4, large": gemma4_row({"standardize": True}, GEMMA4_LARGE, GEMMA_LACKS),
}
