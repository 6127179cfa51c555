"""PaliGemma and PaliGemma 2 with images of any size."""

from torch import Tensor
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor
from transformers.models.paligemma.modeling_paligemma import PaliGemmaModel

from qlip.families.base import ConvertedGenerative
from qlip.families.inner import ConvertedInner, Features
from qlip.families.processor import PromptProcessor


class QlipPaliGemmaProcessor(PromptProcessor, PaliGemmaProcessor, original=PaliGemmaProcessor):
    """PaliGemma's processor for images of any size.

    See `PromptProcessor` for what differs from `transformers.PaliGemmaProcessor`.
    """


class QlipPaliGemmaModel(ConvertedInner, PaliGemmaModel, original=PaliGemmaModel):
    """PaliGemma without its head, taking patches and leaves.

    See `ConvertedInner` for what differs from `transformers.PaliGemmaModel`.
    """

    features_class = Features

    def project(self, states: Tensor) -> Tensor:
        """PaliGemma's own projector on single patches."""
        return self.multi_modal_projector(states[:, 0])


class QlipPaliGemmaForConditionalGeneration(
    ConvertedGenerative, PaliGemmaForConditionalGeneration, original=PaliGemmaForConditionalGeneration
):
    """PaliGemma with images of any size.

    See `ConvertedGenerative` for what differs from `transformers.PaliGemmaForConditionalGeneration`.
    """

    processor_class = QlipPaliGemmaProcessor
    inner_class = QlipPaliGemmaModel
