"""LLaVA-1.5 with images of any size, over CLIP or SigLIP."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import LlavaModel

from qlip.families.base import ConvertedGenerative
from qlip.families.inner import ConvertedInner
from qlip.families.processor import PromptProcessor
from qlip.images.pixels import PixelValues, token_counts
from qlip.images.processor import QlipImageProcessor


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


class QlipLlavaModel(ConvertedInner, LlavaModel, original=LlavaModel):
    """LLaVA without its head, taking patches and leaves; see `ConvertedInner` for what differs from `transformers.LlavaModel`."""

    def feature_counts(self, pixel_values: PixelValues, options: Mapping[str, Any]) -> list[int]:
        """Features of each image: its patches, and the class token where LLaVA's configuration keeps it."""
        strategy = options.get("vision_feature_select_strategy") or self.config.vision_feature_select_strategy
        kept = self.tower.prefix_length if strategy == "full" else 0
        return [count + kept for count in token_counts(pixel_values)]

    def project(self, states: Tensor) -> Tensor:
        """LLaVA's own projector on single patches."""
        return self.multi_modal_projector(states[:, 0])

    def get_image_features(  # type: ignore[override]
        self,
        pixel_values: PixelValues,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode and project images.

        Args:
            pixel_values: A list with a pair for each image, or a `PatchBatch`.
            vision_feature_layer: Hidden state or states to use; the configuration's if not given.
            vision_feature_select_strategy: ``"default"`` drops the class token, ``"full"`` keeps it; the configuration's
                if not given.
            return_dict: False returns a tuple.
            kwargs: transformers' other options; they have no meaning here, but ``generate`` passes them.

        Returns:
            The tower's output with ``pooler_output`` a list of features ``(N_i, E)``, one for each image.
        """
        layer = self.config.vision_feature_layer if vision_feature_layer is None else vision_feature_layer
        strategy = vision_feature_select_strategy or self.config.vision_feature_select_strategy
        if strategy not in ("default", "full"):
            raise ValueError(f"vision_feature_select_strategy: got {strategy!r}; takes 'default' or 'full'")
        layers = [layer] if isinstance(layer, int) else layer
        output = self.encode_images(pixel_values, layers, keep_prefix=strategy == "full")
        return output if return_dict else output.to_tuple()


class QlipLlavaForConditionalGeneration(
    ConvertedGenerative, LlavaForConditionalGeneration, original=LlavaForConditionalGeneration
):
    """LLaVA with images of any size.

    See `ConvertedGenerative` for what differs from `transformers.LlavaForConditionalGeneration`.
    """

    processor_class = QlipLlavaProcessor
    crop = "patch"
    inner_class = QlipLlavaModel

    @classmethod
    def convert_processor(cls, model: Any, processor: object, settings: QlipImageProcessor) -> QlipLlavaProcessor:
        """The converted processor, told what older processors forget: the patch size and the class token."""
        new = super().convert_processor(model, processor, settings)
        assert isinstance(new, QlipLlavaProcessor)
        new.patch_size = model.config.vision_config.patch_size
        new.vision_feature_select_strategy = model.config.vision_feature_select_strategy
        new.num_additional_image_tokens = cls.tower_of(model).prefix_length
        return new
