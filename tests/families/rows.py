"""The families that the contract is about, one row each: a tiny model, its stock processor, and what it was made for."""

from collections.abc import Mapping
from functools import partial

import transformers
from transformers import (
    CLIPImageProcessor,
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
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PixtralImageProcessor,
    PixtralProcessor,
    SiglipImageProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)
from transformers.models.smolvlm import processing_smolvlm

from tests.families.qwens import QWENS
from tests.families.row import (
    GEMMA,
    PATCH,
    PLACEHOLDER,
    SMALL_TOWER,
    TOWER,
    VOCABULARY,
    WORDS,
    Row,
    siglip,
    square,
    tokenizer,
)


def llava() -> LlavaForConditionalGeneration:
    """Over SigLIP, which has no class token: so "full" is the strategy."""
    config = LlavaConfig(
        vision_config=siglip(12),
        text_config={**WORDS, "model_type": "llama"},
        image_token_index=PLACEHOLDER,
        vision_feature_select_strategy="full",
    )
    return LlavaForConditionalGeneration(config)


def llava_processor() -> LlavaProcessor:
    images, words = SiglipImageProcessor(size=square(12 * PATCH)), tokenizer("<image>")
    options = {"vision_feature_select_strategy": "full", "num_additional_image_tokens": 0}
    return LlavaProcessor(images, words, patch_size=PATCH, **options)


CLIP = {**TOWER, "image_size": 12 * PATCH, "patch_size": PATCH, "model_type": "clip_vision_model"}


def llava_over_clip(words: str, strategy: str = "default") -> LlavaForConditionalGeneration:
    """With Mistral's words it is BakLLaVA."""
    config = LlavaConfig(
        vision_config=CLIP,
        text_config={**WORDS, "model_type": words},
        image_token_index=PLACEHOLDER,
        vision_feature_select_strategy=strategy,
    )
    return LlavaForConditionalGeneration(config)


def vipllava() -> VipLlavaForConditionalGeneration:
    config = VipLlavaConfig(
        vision_config=CLIP,
        text_config={**WORDS, "model_type": "llama"},
        image_token_index=PLACEHOLDER,
        vision_feature_layer=[-2, -3, 1],
    )
    return VipLlavaForConditionalGeneration(config)


def clip_processor(strategy: str = "default") -> LlavaProcessor:
    images = CLIPImageProcessor(size={"shortest_edge": 12 * PATCH}, crop_size=square(12 * PATCH))
    options = {"vision_feature_select_strategy": strategy, "num_additional_image_tokens": 1}
    return LlavaProcessor(images, tokenizer("<image>"), patch_size=PATCH, **options)


def llava_next() -> LlavaNextForConditionalGeneration:
    config = LlavaNextConfig(
        vision_config=CLIP,
        text_config={**WORDS, "model_type": "llama"},
        image_token_index=PLACEHOLDER,
        image_grid_pinpoints=[[168, 168]],  # one tile: with more, nothing could equal it
    )
    return LlavaNextForConditionalGeneration(config)


def llava_next_processor() -> LlavaNextProcessor:
    images = LlavaNextImageProcessor(
        size={"shortest_edge": 168}, crop_size=square(168), image_grid_pinpoints=[[168, 168]]
    )
    options = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return LlavaNextProcessor(images, tokenizer("<image>"), patch_size=PATCH, **options)


def onevision() -> LlavaOnevisionForConditionalGeneration:
    config = LlavaOnevisionConfig(
        vision_config=siglip(12),
        text_config={**WORDS, "model_type": "qwen2"},
        image_token_index=PLACEHOLDER,
        video_token_index=91,
        image_grid_pinpoints=[[168, 168], [168, 336]],
    )
    return LlavaOnevisionForConditionalGeneration(config)


def onevision_processor() -> LlavaOnevisionProcessor:
    pinpoints = [[168, 168], [168, 336]]
    images = LlavaOnevisionImageProcessor(size=square(12 * PATCH), image_grid_pinpoints=pinpoints)
    return LlavaOnevisionProcessor(
        images,
        tokenizer("<image>", "<video>"),
        LlavaOnevisionVideoProcessor(),
        num_image_tokens=144,
        vision_feature_select_strategy="full",
    )


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


def mistral3() -> Mistral3ForConditionalGeneration:
    config = Mistral3Config(
        vision_config={**TOWER, "model_type": "pixtral", "image_size": 24 * PATCH, "patch_size": PATCH},
        text_config={**WORDS, "model_type": "mistral"},
        image_token_index=PLACEHOLDER,
        spatial_merge_size=2,
    )
    return Mistral3ForConditionalGeneration(config)


def mistral3_processor() -> PixtralProcessor:
    images = PixtralImageProcessor(patch_size=PATCH)
    words = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    return PixtralProcessor(images, words, patch_size=PATCH, spatial_merge_size=2)


def internvl(layer: int = -1) -> InternVLForConditionalGeneration:
    tower = {**TOWER, "image_size": [12 * PATCH] * 2, "patch_size": [PATCH] * 2}
    config = InternVLConfig(
        vision_config=tower,
        text_config={**WORDS, "model_type": "qwen2"},
        image_token_id=PLACEHOLDER,
        downsample_ratio=0.5,
        vision_feature_layer=layer,
    )
    return InternVLForConditionalGeneration(config)


def internvl_processor() -> InternVLProcessor:
    names = {"context_image_token": "<IMG_CONTEXT>", "start_image_token": "<img>", "end_image_token": "</img>"}
    words = tokenizer(*names.values(), "<video>", **names, video_token="<video>")
    images = GotOcr2ImageProcessor(size=square(12 * PATCH))
    return InternVLProcessor(images, words, InternVLVideoProcessor(), image_seq_length=36)


WHOLE, MASK = (("do_image_splitting", False),), frozenset({"pixel_attention_mask"})
IDEFICS = ("<image>", "<fake_token_around_image>", "<global-img>")


def idefics3() -> Idefics3ForConditionalGeneration:
    config = Idefics3Config(
        vision_config={**TOWER, "image_size": 12 * PATCH, "patch_size": PATCH},
        text_config={**WORDS, "model_type": "llama"},
        image_token_id=PLACEHOLDER,
        scale_factor=2,
    )
    return Idefics3ForConditionalGeneration(config)


def idefics3_processor() -> Idefics3Processor:
    longest = {"longest_edge": 12 * PATCH}
    images = Idefics3ImageProcessor(size=longest, max_image_size=longest)
    return Idefics3Processor(images, tokenizer(*IDEFICS), image_seq_len=36)


def smolvlm() -> SmolVLMForConditionalGeneration:
    config = SmolVLMConfig(
        vision_config={**SMALL_TOWER, "image_size": 24 * PATCH, "patch_size": PATCH},
        text_config={**WORDS, "model_type": "llama"},
        image_token_id=PLACEHOLDER,
        scale_factor=4,
    )
    return SmolVLMForConditionalGeneration(config)


def smolvlm_processor() -> SmolVLMProcessor:
    processing_smolvlm.num2words = processing_smolvlm.num2words or str  # a package that only videos need
    longest = {"longest_edge": 24 * PATCH}
    images = SmolVLMImageProcessor(size=longest, max_image_size=longest)
    return SmolVLMProcessor(images, tokenizer(*IDEFICS), SmolVLMVideoProcessor(), image_seq_len=36)


ROWS = {
    "llava over siglip": Row(llava, llava_processor, 12),
    "llava over clip": Row(lambda: llava_over_clip("llama"), clip_processor, 12),
    "llava over clip, class token": Row(lambda: llava_over_clip("llama", "full"), lambda: clip_processor("full"), 12),
    "bakllava": Row(lambda: llava_over_clip("mistral"), clip_processor, 12),
    "vipllava": Row(vipllava, clip_processor, 12),
    "llava next": Row(llava_next, llava_next_processor, 12, left_out=frozenset({"image_sizes"}), slack=3),
    "llava onevision": Row(
        onevision,
        onevision_processor,
        12,
        compared=(1, 2),
        left_out=frozenset({"image_sizes", "batch_num_images"}),
    ),
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
    "mistral3": Row(
        mistral3,
        mistral3_processor,
        24,
        2,
        "[IMG]",
        position=None,
        left_out=frozenset({"image_sizes"}),
        counted=(PLACEHOLDER, PLACEHOLDER + 1, PLACEHOLDER + 2),
        slack=3,
    ),
    "internvl": Row(internvl, internvl_processor, 12, 2, "<IMG_CONTEXT>", (("crop_to_patches", False),)),
    "internvl layer -2": Row(
        lambda: internvl(-2), internvl_processor, 12, 2, "<IMG_CONTEXT>", (("crop_to_patches", False),)
    ),
    "idefics3": Row(
        idefics3,
        idefics3_processor,
        12,
        2,
        plain=WHOLE,
        left_out=MASK,
        lacks={"offload": "it asks a tensor of the outer model for its value"},
    ),
    "smolvlm": Row(smolvlm, smolvlm_processor, 24, 4, plain=WHOLE, left_out=MASK),
    # a family that the installed transformers lacks is not there
    **{name: row for name, row in QWENS.items() if hasattr(transformers, f"{name}ForConditionalGeneration")},
}
