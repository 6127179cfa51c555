"""LLaVA-1.5 with images of any size, over CLIP or SigLIP."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.llava.modeling_llava import LlavaModel

from qlip.families.base import ConvertedGenerative, ConvertedInner
from qlip.families.processor import PromptProcessor
from qlip.images.pixels import PixelValues, token_counts
from qlip.images.processor import QlipImageProcessor
from qlip.towers.base import find_tower


class QlipLlavaProcessor(PromptProcessor, LlavaProcessor, original=LlavaProcessor):  # type: ignore[misc]
    """LLaVA's processor for images of any size.

    Modifications of `transformers.LlavaProcessor` (5.23 to 5.24), besides those of `PromptProcessor`:
    - an image has one placeholder more than leaves where LLaVA keeps the class token.
    """

    @property
    def extra_tokens(self) -> int:
        """Features besides the patches: 1 with CLIP's class token, else 0."""
        return self.num_additional_image_tokens if self.vision_feature_select_strategy == "full" else 0


class QlipLlavaModel(ConvertedInner, LlavaModel, original=LlavaModel):  # type: ignore[misc]
    """LLaVA without its head, taking patches and leaves; see `ConvertedInner` for what differs from `transformers.LlavaModel`."""

    def feature_counts(self, pixel_values: PixelValues, options: Mapping[str, Any]) -> list[int]:
        """Features of each image: its patches, and the class token where LLaVA's configuration keeps it."""
        strategy = options.get("vision_feature_select_strategy") or self.config.vision_feature_select_strategy
        kept = self.prefix_length if strategy == "full" else 0
        return [count + kept for count in token_counts(pixel_values)]

    @property
    def prefix_length(self) -> int:
        """Tokens of the tower before the patches: 1 for CLIP, none for SigLIP."""
        prefix = find_tower(self.vision_tower).prefix()
        return 0 if prefix is None else len(prefix)

    def get_image_features(
        self,
        pixel_values: PixelValues,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> Any:
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
        output: Any
        output, counts = self.qlip.encode(self.vision_tower, pixel_values, output_hidden_states=True)
        layers = [layer] if isinstance(layer, int) else layer
        states = torch.cat([output.hidden_states[index] for index in layers], dim=-1)  # (B, F + N, L * D)
        prefix = self.prefix_length
        first = prefix if strategy == "default" else 0
        chosen = [state[first : prefix + count] for state, count in zip(states, counts, strict=True)]
        features = self.multi_modal_projector(torch.cat(chosen))  # (sum of N_i, E), nothing spent on padding
        output.pooler_output = list(features.split([len(state) for state in chosen]))
        return output if return_dict else output.to_tuple()


class QlipLlavaForConditionalGeneration(  # type: ignore[misc]
    ConvertedGenerative, LlavaForConditionalGeneration, original=LlavaForConditionalGeneration
):
    """LLaVA with images of any size.

    See `ConvertedGenerative` for what differs from `transformers.LlavaForConditionalGeneration`.
    """

    processor_class = QlipLlavaProcessor
    inner_class = QlipLlavaModel

    @classmethod
    def convert_processor(cls, model: Any, processor: object, settings: QlipImageProcessor) -> QlipLlavaProcessor:
        """The converted processor, told what older processors forget: the patch size and the class token."""
        new = super().convert_processor(model, processor, settings)
        assert isinstance(new, QlipLlavaProcessor)
        prefix = cls.tower_of(model).prefix()
        new.patch_size = model.config.vision_config.patch_size
        new.vision_feature_select_strategy = model.config.vision_feature_select_strategy
        new.num_additional_image_tokens = 0 if prefix is None else len(prefix)
        return new
