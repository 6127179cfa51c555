"""Mistral 3 with images of any size: 2 x 2 patches of Pixtral's tower are a token, and a break stands between lines.

A line ends where the reading order goes down, so that uniform leaves are read as the rows of transformers.
"""

from typing import Any

from torch import Tensor
from transformers import Mistral3ForConditionalGeneration, PixtralProcessor, ProcessorMixin
from transformers.models.mistral3.modeling_mistral3 import Mistral3Model

from qlip.families.base import ConvertedGenerative
from qlip.families.lines import LinedImages, line_lengths
from qlip.families.llava_base import TiledLlavaInner
from qlip.families.processor import PromptProcessor


class QlipPixtralProcessor(PromptProcessor, PixtralProcessor, original=PixtralProcessor):
    """Pixtral's processor for images of any size; ``max_tokens`` bounds the breaks and the end of an image with its leaves."""

    images_class, breaks = LinedImages, 1
    _process_images = ProcessorMixin._process_images  # Pixtral's own tells the image processor the side of a unit

    @classmethod
    def template_of(cls, processor: Any) -> str:
        """A placeholder and nothing around it: breaks and end are among the tokens of an image."""
        return processor.image_token

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: object) -> str:
        """Lines of placeholders with breaks between them, and the end of the image."""
        _, leaves = image_inputs["pixel_values"][image_idx]
        lines = [self.image_token * length for length in line_lengths(leaves[:, 0])]
        return self.image_break_token.join(lines) + self.image_end_token


class QlipMistral3Model(TiledLlavaInner, Mistral3Model, original=Mistral3Model):
    """Mistral 3 without its head, taking patches and leaves; see `ConvertedInner` for what differs from transformers' class."""

    breaks = 1

    def project(self, states: Tensor) -> Tensor:
        """Mistral 3's own merger and projector, on all units side by side: one picture, as high as a unit."""
        unit, side = self.qlip.unit, self.qlip.unit * self.config.vision_config.patch_size
        strip = states.unflatten(1, (unit, unit)).transpose(0, 1).flatten(0, 2)  # (u * M * u, D)
        return self.multi_modal_projector(strip, [(side, side * len(states))])


class QlipMistral3ForConditionalGeneration(
    ConvertedGenerative, Mistral3ForConditionalGeneration, original=Mistral3ForConditionalGeneration
):
    """Mistral 3 with images of any size; see `ConvertedGenerative` for what differs from transformers' class."""

    processor_class, inner_class = QlipPixtralProcessor, QlipMistral3Model

    @classmethod
    def unit_of(cls, model: Any) -> int:
        """Side of the squares of patches that the merger joins."""
        return model.config.spatial_merge_size

    @classmethod
    def stock_tokens(cls, model: Any, processor: Any) -> int:
        """Those of the largest square that transformers does not scale down, without its breaks."""
        return (model.config.vision_config.image_size // (cls.unit_of(model) * cls.patch_size_of(model))) ** 2
