"""InternVL with images of any size: one tree in place of tiles, 2 x 2 patches are a token."""

from typing import Any

from torch import Tensor
from transformers import BatchFeature, InternVLForConditionalGeneration, InternVLProcessor
from transformers.image_utils import ImageInput
from transformers.models.internvl.modeling_internvl import InternVLModel

from qlip.families.base import ConvertedGenerative
from qlip.families.inner import ConvertedInner, Features
from qlip.families.processor import PromptProcessor


class QlipInternVLProcessor(PromptProcessor, InternVLProcessor, original=InternVLProcessor):
    """InternVL's processor for images of any size, without tiles; see `PromptProcessor` for what else differs."""

    plain_options = {"crop_to_patches": False}  # noqa: RUF012

    def _process_images(self, images: ImageInput, **kwargs: object) -> tuple[BatchFeature, list[str]]:
        """Pairs and what stands in the prompt, and that each image is one tile, as InternVL asks."""
        processed, replacements = super()._process_images(images, **kwargs)
        processed["num_patches"] = [1] * len(replacements)
        return processed, replacements


class QlipInternVLModel(ConvertedInner, InternVLModel, original=InternVLModel):
    """InternVL without its head, taking patches and leaves; see `ConvertedInner` for what differs from transformers' class."""

    features_class = Features

    @property
    def feature_layers(self) -> list[int] | None:
        """The configuration's hidden state; None for the last, as InternVL takes -1."""
        layer = self.config.vision_feature_layer
        return None if layer == -1 else [layer]

    def project(self, states: Tensor) -> Tensor:
        """InternVL's own shuffle and projector, each unit a picture."""
        units = states.unflatten(1, (self.qlip.unit, self.qlip.unit))  # (M, u, u, D)
        return self.multi_modal_projector(self.pixel_shuffle(units, self.config.downsample_ratio).flatten(1))


class QlipInternVLForConditionalGeneration(
    ConvertedGenerative, InternVLForConditionalGeneration, original=InternVLForConditionalGeneration
):
    """InternVL with images of any size; see `ConvertedGenerative` for what differs from transformers' class."""

    processor_class = QlipInternVLProcessor
    inner_class = QlipInternVLModel

    @classmethod
    def unit_of(cls, model: Any) -> int:
        """Side of the squares of patches that the shuffle joins."""
        return round(1 / model.config.downsample_ratio)
