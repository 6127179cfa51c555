"""Gemma 3 with images of any size: 4 x 4 patches, averaged, are a token."""

from typing import Any

from torch import Tensor
from transformers import BatchFeature, Gemma3ForConditionalGeneration, Gemma3Processor
from transformers.models.gemma3.modeling_gemma3 import Gemma3Model

from qlip.families.base import ConvertedGenerative
from qlip.families.inner import ConvertedInner, Features
from qlip.families.processor import PromptProcessor
from qlip.towers.base import onloaded


class QlipGemma3Processor(PromptProcessor, Gemma3Processor, original=Gemma3Processor):
    """Gemma 3's processor for images of any size, without pan and scan; see `PromptProcessor` for what else differs."""

    plain_options = {"do_pan_and_scan": False}  # noqa: RUF012

    @property
    def placeholder(self) -> str:
        """The token of a feature; ``image_token`` is what starts an image."""
        return self.tokenizer.image_token

    @property
    def placeholder_id(self) -> int:
        """Its number in the vocabulary."""
        return self.tokenizer.image_token_id

    def _check_special_mm_tokens(self, text: list[str], text_inputs: BatchFeature, modalities: list[str]) -> None:
        """Leave images to the check after the call; Gemma 3's own looks at images whatever ``modalities`` says."""


class QlipGemma3Model(ConvertedInner, Gemma3Model, original=Gemma3Model):
    """Gemma 3 without its head, taking patches and leaves.

    See `ConvertedInner` for what differs from `transformers.Gemma3Model`.
    """

    features_class = Features

    def project(self, states: Tensor) -> Tensor:
        """Gemma 3's own projector, unit by unit; called as a whole it takes 64 x 64 patches and nothing else."""
        projector = self.multi_modal_projector
        averages = projector.mm_soft_emb_norm(states.mean(1))
        with onloaded(projector):
            return (averages @ projector.mm_input_projection_weight).type_as(states)


class QlipGemma3ForConditionalGeneration(
    ConvertedGenerative, Gemma3ForConditionalGeneration, original=Gemma3ForConditionalGeneration
):
    """Gemma 3 with images of any size; see `ConvertedGenerative` for what differs from transformers' class."""

    processor_class = QlipGemma3Processor
    inner_class = QlipGemma3Model

    @classmethod
    def unit_of(cls, model: Any) -> int:
        """Side of the squares of patches that the projector averages."""
        return model.model.multi_modal_projector.kernel_size
