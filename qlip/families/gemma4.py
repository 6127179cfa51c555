"""Gemma 4 with images of any size: 3 x 3 patches, averaged, are a token. Videos and sound go on as in transformers."""

from typing import Any

import torch
from torch import Tensor
from transformers import Gemma4ForConditionalGeneration, Gemma4Processor
from transformers.models.gemma4.modeling_gemma4 import Gemma4Model

from qlip.families.base import ConvertedGenerative
from qlip.families.inner import ConvertedInner
from qlip.families.processor import PromptProcessor
from qlip.towers.base import onloaded


class QlipGemma4Processor(PromptProcessor, Gemma4Processor, original=Gemma4Processor):
    """Gemma 4's processor for images of any size and any ``max_tokens``; see `PromptProcessor` for what else differs.

    Videos are taken as in transformers: the model's tower is as it was, and reads whole frames too.
    """

    _process_videos = Gemma4Processor._process_videos  # type: ignore[assignment]


class QlipGemma4Model(ConvertedInner, Gemma4Model, original=Gemma4Model):
    """Gemma 4 without its head, taking patches and leaves; see `ConvertedInner` for what differs from transformers' class."""

    vision_tower: Any
    embed_vision: Any

    def project(self, states: Tensor) -> Tensor:
        """Gemma 4's own pooling, standardisation and embedding, each unit a picture."""
        tower, side = self.vision_tower, torch.arange(self.qlip.unit, device=states.device)
        places = torch.cartesian_prod(side, side).expand(len(states), -1, -1)  # (M, u * u, 2)
        pooled, _ = tower.pooler(states, places, torch.zeros_like(states[..., 0], dtype=torch.bool), output_length=1)
        if tower.config.standardize:
            with onloaded(tower):
                pooled = (pooled - tower.std_bias.float()) * tower.std_scale.float()
        return self.embed_vision(pooled[:, 0].to(states.dtype))


class QlipGemma4ForConditionalGeneration(
    ConvertedGenerative, Gemma4ForConditionalGeneration, original=Gemma4ForConditionalGeneration
):
    """Gemma 4 with images of any size; see `ConvertedGenerative` for what differs from transformers' class."""

    processor_class, inner_class = QlipGemma4Processor, QlipGemma4Model

    @classmethod
    def unit_of(cls, model: Any) -> int:
        """Side of the squares of patches that are averaged."""
        return model.config.vision_config.pooling_kernel_size

    @classmethod
    def stock_tokens(cls, model: Any, processor: Any) -> int | None:
        """What is left of transformers' number for every picture once rows and columns are rounded down, up to an aspect of 3."""
        most = getattr(getattr(processor, "image_processor", None), "max_soft_tokens", None)
        return None if most is None else int((most**0.5 - 3**0.5) * (most**0.5 - 3**-0.5))
