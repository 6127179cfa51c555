"""The two arms of every comparison, loaded the same way: a stock model with its own processor, or the same one converted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from qlip.conversion import convert, restore
from qlip.core.quadtree import Quadtree
from qlip.core.rules import shown
from qlip.evaluation.cell import Vision
from qlip.evaluation.names import Dtype, Style
from qlip.evaluation.run.prompts import prompt
from qlip.evaluation.run.stock import StockProcessor
from qlip.families import FAMILIES, Converted
from qlip.images.pixels import PerImage
from qlip.images.read import ImageLike, as_list, check_size, to_pixels, to_rgb
from qlip.images.resize import pad_to_square
from qlip.shipped import shipped
from qlip.towers.hub import NO_CODE, read_config
from qlip.towers.load import load_whole
from qlip.zoo.position_file import saved_position

Value = Tensor | PerImage  # the latter of a converted processor: a pair or the leaves of each image
Inputs = Mapping[str, Value]  # what a processor returns and a model takes, by the names of the family

# What a processor returns a value for each token of; everything else is about images.
TOKEN_WISE = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
FILL = {"image_position_ids": -1}  # what stands for no patch; for all other values it is 0


@dataclass(frozen=True)
class PreparedQuestion:
    """One question, ready for the model.

    Attributes:
        inputs: What the model takes, a batch of one.
        tokens: Number of image tokens in the prompt.
        baseline_tokens: Image tokens that the stock model spends on this picture, at its own settings.
    """

    inputs: Inputs
    tokens: int
    baseline_tokens: int

    @property
    def input_ids(self) -> Tensor:
        """Tokens of the prompt, ``(L,)``."""
        ids = self.inputs["input_ids"]
        assert isinstance(ids, Tensor)
        return ids[0]


class Arm:
    """A model and all that turns a question into its input.

    Args:
        model: A model of images and words, converted or not.
        processor: The processor that goes with it.
        vision: How it sees.
        stock: The processor that goes with the stock model, if that is another.
    """

    def __init__(self, model: Any, processor: Any, vision: Vision, stock: Any = None) -> None:
        self.model, self.processor, self.vision = model, processor, vision
        self.stock = StockProcessor(stock or processor, model.config.image_token_id)
        self.pad_id = processor.tokenizer.pad_token_id

    def prompt(self, question: str, style: Style, images: int = 1) -> str:
        """The question in the model's own frame, see `qlip.evaluation.run.prompts.prompt`."""
        return prompt(self.model, self.processor, question, style, images)

    def prepare(self, images: ImageLike | Sequence[ImageLike], text: str, seed: int) -> PreparedQuestion:
        """A picture, or several or none, and the prompt with their marks; ``seed`` decides what a random criterion draws."""
        pictures = [to_rgb(image) for image in as_list(images)]
        sizes = [picture.size for picture in pictures]
        baseline_tokens = sum(self.stock.tokens(*size) for size in sizes)
        options = self._scaling(sizes)
        if self.vision.baseline == "pad":
            colour = tuple(self.processor.image_processor.image_mean)
            pictures = [to_rgb(pad_to_square(to_pixels(picture), colour)) for picture in pictures]
        begin = self.processor.tokenizer.bos_token
        once = {"add_special_tokens": False} if begin and text.startswith(begin) else {}  # templates may write it
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            output = self.processor(
                images=[pictures] if pictures else None, text=[text], return_tensors="pt", **once, **options
            )
        inputs = {name: value for name, value in output.items() if name != "labels"}  # PaliGemma's, for training
        return PreparedQuestion(inputs, self.stock.count(inputs["input_ids"][0]), baseline_tokens)

    def _scaling(self, sizes: Sequence[tuple[int, int]]) -> dict[str, object]:
        """Options of the call with which the stock model keeps each picture to a budget."""
        if self.vision.baseline != "own" or self.vision.max_tokens is None or not sizes:
            return {}
        return {"images_kwargs": dict(self.stock.within(self.vision.max_tokens, *sizes))}

    def cost(self, width: int, height: int) -> int:
        """The most image tokens that a picture can take, from its size alone; what batches are sorted by.

        Zero for a picture that cannot be shown; preparing it will say why.
        """
        if self.vision.baseline:
            most = self.stock.tokens(width, height)
        else:
            try:
                check_size(width, height)
                h, w = self.processor.image_processor.settings.grid(height, width)
            except ValueError:
                return 0
            most = self.processor.image_processor.most(h, w)
        return most if self.vision.baseline in ("crop", "pad") else min(most, self.vision.max_tokens or most)

    def collate(self, items: Sequence[PreparedQuestion]) -> dict[str, Value]:
        """Prompts padded on the left, images side by side: what ``generate`` takes."""
        longest = max(len(item.input_ids) for item in items)
        batch: dict[str, Value] = {}
        for name in dict.fromkeys(name for item in items for name in item.inputs):
            if name in TOKEN_WISE:
                values = [item.inputs.get(name, torch.zeros_like(item.input_ids)[None]) for item in items]
            else:
                values = [item.inputs[name] for item in items if name in item.inputs]  # words alone have no images
            tensors = [value for value in values if isinstance(value, Tensor)]
            if name in TOKEN_WISE:
                fill = self.pad_id if name == "input_ids" else 0
                batch[name] = torch.cat([F.pad(t, (longest - t.shape[1], 0), value=fill) for t in tensors])
            elif tensors:
                batch[name] = _side_by_side(tensors, FILL.get(name, 0))
            else:
                batch[name] = PerImage(each for value in values for each in value)
        return batch

    def to(self, inputs: Inputs, device: torch.device | str) -> dict[str, Value]:
        """Inputs on a device, dense pixels in the model's dtype: stock models leave that to the caller."""
        dtype = self.model.dtype  # for what stands alone: a converted model casts pairs for itself
        return {
            name: value.to(device, dtype)
            if isinstance(value, Tensor) and value.is_floating_point()
            else value.to(device)
            for name, value in inputs.items()
        }

    def generate(self, inputs: Inputs, max_new_tokens: int) -> list[str]:
        """Greedy answers to a batch, see `collate`."""
        cast = self.to(inputs, self.model.device)
        tokens = self.model.generate(**cast, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
        return self.decode(tokens[:, len(cast["input_ids"][0]) :])

    def encode(self, text: str) -> Tensor:
        """Tokens of a continuation, ``(L,)``, without special ones."""
        return torch.tensor(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)

    def decode(self, tokens: Tensor) -> list[str]:
        """Texts of generated tokens ``(B, L)``."""
        return [text.strip() for text in self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def _side_by_side(tensors: Sequence[Tensor], fill: int) -> Tensor:
    """Images of several questions in one tensor; ``fill`` makes up for fewer tiles or smaller pictures, as processors do."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [most - have for most, have in zip(shape, tensor.shape[1:], strict=True)]
        padded.append(F.pad(tensor, [edge for extra in reversed(missing) for edge in (0, extra)], value=fill))
    return torch.cat(padded)


@lru_cache(maxsize=1)  # the cells of a sweep share the model, which takes minutes to read
def _load(source: str, revision: str | None, dtype: Dtype) -> tuple[Any, Any]:
    revision = revision or "main"
    read_config(source, "model", revision=revision)
    try:
        options = {"revision": revision, "dtype": getattr(torch, dtype), **NO_CODE}
        model, _ = load_whole(AutoModelForImageTextToText, source, "model", **options)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise ValueError(
            f"model: got {shown(source)}, which does not answer in words about images; takes a {_known()}"
        ) from error
    except OSError as error:
        raise OSError(f"model: {source!r} cannot be loaded: {' '.join(str(error).split())}") from error
    return model.eval(), AutoProcessor.from_pretrained(source, revision=revision, **NO_CODE)


def load_arm(source: str, vision: Vision, revision: str | None = None, dtype: Dtype = "float32") -> Arm:
    """Load a model once, and convert it or put it back as the arm demands.

    Args:
        source: Hub id or folder of a model of images and words, converted before or not, or a shipped one such as
            ``pocket-llava``.
        vision: How the arm sees.
        revision: Commit, branch or tag of a Hub id; the newest commit if not given.
        dtype: Number format that the weights are loaded in.

    Raises:
        OSError: if there is no such model.
        ValueError: if an option is not taken, or the model is of a kind that cannot be converted.
    """
    source = shipped(source)
    model, stock = _load(source, revision, dtype)
    if isinstance(model, Converted):
        restore(model)
    if vision.baseline:
        if vision.baseline != "own" and not isinstance(model, LlavaForConditionalGeneration):
            raise ValueError(
                f"baseline: got {shown(vision.baseline)}, which is for LLaVA-1.5; for a {type(model).__name__} takes 'own'"
            )
        return Arm(model, stock, vision)
    if type(model) not in FAMILIES:
        raise ValueError(
            f"model: got {shown(source)}, a {type(model).__name__}, which only --baseline own measures; to be converted, takes "
            f"a {_known()}"
        )
    model, processor = convert(
        model,
        stock,
        position=vision.position or saved_position(source),
        quadtree=Quadtree(vision.alpha, vision.criterion, vision.max_tokens, cover=vision.cover),
        size=vision.size,
        crop=vision.crop,
        fit=vision.fit,
        weighting=vision.weighting,
    )
    return Arm(model, processor, vision, stock)


def load_stock(source: str, revision: str | None = None) -> StockProcessor:
    """Load the stock processor of a model alone, for counts of tokens; arguments as of `load_arm`."""
    source, options = shipped(source), {"revision": revision or "main", **NO_CODE}
    config = AutoConfig.from_pretrained(source, **options)
    return StockProcessor(AutoProcessor.from_pretrained(source, **options), config.image_token_id)


def _known() -> str:
    """The classes of models that are converted and answer in words."""
    names = sorted(kind.__name__ for kind in FAMILIES if kind.__name__.endswith("ForConditionalGeneration"))
    return f"{', '.join(names[:-1])} or {names[-1]}"
