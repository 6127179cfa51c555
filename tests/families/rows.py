"""The families that the contract is about, one row each: a tiny model, its stock processor, and what it was made for."""

import transformers
from transformers import (
    CLIPImageProcessor,
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

from tests.families.gemmas import GEMMAS
from tests.families.qwens import QWENS
from tests.families.row import (
    PATCH,
    PLACEHOLDER,
    SMALL_TOWER,
    TOWER,
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
    **GEMMAS,
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
