"""LLaVA-1.5 with images of any size, over CLIP or SigLIP; BakLLaVA is one."""

from transformers import LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.llava.modeling_llava import LlavaModel

from qlip.families.llava_base import LlavaGenerative, LlavaInner
from qlip.families.processor import PromptProcessor


class QlipLlavaProcessor(PromptProcessor, LlavaProcessor, original=LlavaProcessor):
    """LLaVA's processor for images of any size.

    Modifications of `transformers.LlavaProcessor` (5.23 to 5.24), besides those of `PromptProcessor`:
    - an image has one placeholder more than leaves where LLaVA keeps the class token.
    """

    @classmethod
    def template_of(cls, processor: LlavaProcessor) -> str:
        """A placeholder and nothing around it; older processors lack the patch size and could not say how many."""
        return processor.image_token

    @property
    def extra_tokens(self) -> int:
        """Features besides the patches: 1 with CLIP's class token, else 0."""
        return self.num_additional_image_tokens if self.vision_feature_select_strategy == "full" else 0


class QlipLlavaModel(LlavaInner, LlavaModel, original=LlavaModel):
    """LLaVA-1.5 without its head, taking patches and leaves."""


class QlipLlavaForConditionalGeneration(
    LlavaGenerative, LlavaForConditionalGeneration, original=LlavaForConditionalGeneration
):
    """LLaVA-1.5 with images of any size."""

    processor_class, inner_class = QlipLlavaProcessor, QlipLlavaModel
