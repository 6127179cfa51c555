"""LLaVA-OneVision with images of any size: one tree in place of tiles, and a newline at the end.

This is the model's own way for prompts with several images, each of which is one picture and no tiles. For a prompt with one
image transformers shows the whole picture and tiles of it; the tree takes the place of both. Videos are refused.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
import transformers
from torch import Tensor

from qlip.families.base import ConvertedGenerative
from qlip.families.llava_base import TiledLlavaInner
from qlip.families.processor import PromptProcessor
from qlip.images.pixels import PixelValues
from qlip.towers.base import onloaded

if hasattr(transformers, "LlavaOnevisionModel"):

    class QlipLlavaOnevisionProcessor(
        PromptProcessor, transformers.LlavaOnevisionProcessor, original=transformers.LlavaOnevisionProcessor
    ):
        """LLaVA-OneVision's processor for images of any size, without tiles; see `PromptProcessor` for what else differs."""

        extra_tokens = 1  # the newline

    class QlipLlavaOnevisionModel(
        TiledLlavaInner, transformers.LlavaOnevisionModel, original=transformers.LlavaOnevisionModel
    ):
        """LLaVA-OneVision without its head, taking patches and leaves."""

        @property
        def fixed_tokens(self) -> int:
            """The newline."""
            return 1

        def feature_counts(self, pixel_values: PixelValues, options: Mapping[str, Any]) -> list[int]:
            """Features of each image: its leaves and the newline."""
            return [count + 1 for count in super().feature_counts(pixel_values, options)]

        def finish(self, features: list[Tensor], pixel_values: PixelValues) -> list[Tensor]:
            """A newline after the features of each image."""
            with onloaded(self):
                newline = self.image_newline[None].to(features[0])
            return [torch.cat([each, newline.to(each)]) for each in features]

        def get_video_features(self, pixel_values_videos: object = None, **kwargs: object) -> NoReturn:
            """Refuse videos."""
            raise ValueError("pixel_values_videos: got some; a converted LLaVA-OneVision takes images alone")

    class QlipLlavaOnevisionForConditionalGeneration(
        ConvertedGenerative,
        transformers.LlavaOnevisionForConditionalGeneration,
        original=transformers.LlavaOnevisionForConditionalGeneration,
    ):
        """LLaVA-OneVision with images of any size."""

        processor_class, inner_class = QlipLlavaOnevisionProcessor, QlipLlavaOnevisionModel
