"""What a row of the contract is, and what the tiny models and processors of all families share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

PLACEHOLDER, VOCABULARY, PATCH = 90, 128, 14
TOWER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL_TOWER = {**TOWER, "num_hidden_layers": 2, "num_attention_heads": 2}  # for units of many patches
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
        counted: Tokens of a prompt that a budget is about: placeholders, and what ends the lines of an image.
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
    counted: tuple[int, ...] = (PLACEHOLDER,)
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
