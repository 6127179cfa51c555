"""The families that the contract is about, one row each: a tiny model, its stock processor, and what it was made for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPImageProcessor,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
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
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
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

PLACEHOLDER, VOCABULARY, PATCH = 90, 128, 14
TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
WORDS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA = {**WORDS, "head_dim": 16}


@dataclass(frozen=True)
class Row:
    """A family to try.

    Attributes:
        make: Builds a model with few weights, whose placeholder is token 90.
        processor: Builds its stock processor.
        grid: Patches along the side of the pictures it was made for.
        unit: Patches along the side of what its language model sees as one token.
        mark: Stands for an image in a prompt.
        plain: Options with which the stock processor makes one picture of an image.
        embeddings: Scale of the embeddings of words, so that images count beside them: Gemma multiplies them by the root of
            their width, and what a Qwen's merger puts out is small.
        position: What is asked of `qlip.convert`; None for a tower that rotates, which takes pictures of any shape.
        leaves: Inputs that hold leaves once the model is converted, so that they are not what the stock processor makes.
        rounding: How many times more than the others its language model magnifies the last bit of what it is shown.
        lacks: What the stock model or processor itself does not do, and why; the contract checks that it does not.
        compared: From and to which of the prompts (one picture, two, none) there is something to compare: where
            transformers makes no tiles.
        left_out: What the stock processor returns and the converted one need not.
        slack: How far a count may be under its budget: a split makes 3 leaves more, and perhaps a newline.
    """

    make: Callable[[], PreTrainedModel]
    processor: Callable[[], ProcessorMixin]
    grid: int
    unit: int = 1
    mark: str = "<image>"
    plain: tuple[tuple[str, object], ...] = ()
    embeddings: float = 1.0
    position: str | None = "bicubic"
    leaves: tuple[str, ...] = ("pixel_values",)
    rounding: float = 1.0
    lacks: Mapping[str, str] = field(default_factory=dict)
    compared: tuple[int, int] = (0, 3)
    left_out: frozenset[str] = frozenset()
    slack: int = 2

    @property
    def pixels(self) -> int:
        """Side of a unit."""
        return self.unit * PATCH

    @property
    def side(self) -> int:
        """Side of the pictures it was made for."""
        return self.grid * PATCH

    @property
    def native(self) -> tuple[tuple[int, int], ...]:
        """Width and height of three pictures that the stock processor leaves as they are."""
        if self.position is not None:
            return ((self.side, self.side),) * 3
        return tuple((width * self.pixels, height * self.pixels) for width, height in ((9, 9), (11, 6), (5, 8)))


def siglip(grid: int, **options: object) -> dict[str, object]:
    size = {"image_size": grid * PATCH, "patch_size": PATCH, "vision_use_head": False}
    return {**TOWER, **size, "model_type": "siglip_vision_model", **options}


def tokenizer(*special: str, **names: str) -> PreTrainedTokenizerFast:
    """A word a token; the first of the special ones is the placeholder."""
    words = ["<pad>", "<s>", "</s>", "<unk>", "what", "is", "there", "left", "or", "right", "\n"]
    words += [f"word{i}" for i in range(len(words), PLACEHOLDER)]
    model = WordLevel({word: i for i, word in enumerate([*words, *special])}, unk_token="<unk>")
    fast = Tokenizer(model)
    fast.pre_tokenizer = WhitespaceSplit()
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    made = PreTrainedTokenizerFast(tokenizer_object=fast, **ends, extra_special_tokens=names)
    made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


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
GEMMA3_LACKS = {"chunked prefill": "the tokens of an image attend to later ones, which a later chunk brings"}


def gemma3() -> Gemma3ForConditionalGeneration:
    words = {**GEMMA, "model_type": "gemma3_text", "sliding_window": 64}
    config = Gemma3Config(
        vision_config=siglip(24), text_config=words, image_token_index=PLACEHOLDER, mm_tokens_per_image=36
    )
    return Gemma3ForConditionalGeneration(config)


def gemma3_processor() -> Gemma3Processor:
    names = {"image_token": "<image_soft_token>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    images = Gemma3ImageProcessor(size=square(24 * PATCH), do_pan_and_scan=False)
    return Gemma3Processor(images, tokenizer(*names.values(), **names), image_seq_length=36)


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
        vision_config={**TOWER, "image_size": 24 * PATCH, "patch_size": PATCH},
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
    "gemma3": Row(gemma3, gemma3_processor, 24, unit=4, mark="<boi>", embeddings=0.2, lacks=GEMMA3_LACKS),
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
