"""What LLaVAs have in common: hidden states to choose from, and a class token that may be shown or not."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qlip.core.rules import shown
from qlip.families.base import ConvertedGenerative
from qlip.families.inner import ConvertedInner
from qlip.families.processor import PromptProcessor
from qlip.images.pixels import PixelValues
from qlip.images.processor import QlipImageProcessor


def select_strategy(config: Any) -> str:
    """``"full"`` if a model shows the class token to its language model, else ``"default"``; VipLLaVA cannot choose."""
    return getattr(config, "vision_feature_select_strategy", "default")


class LlavaInner(ConvertedInner):
    """A LLaVA without its head, taking patches and leaves; see `ConvertedInner` for what differs from transformers' class."""

    multi_modal_projector: Any

    def feature_counts(self, pixel_values: PixelValues, options: Mapping[str, Any]) -> list[int]:
        """Features of each image: its patches, and the class token where LLaVA's configuration keeps it."""
        kept = (
            self.tower.prefix_length if self._strategy(options.get("vision_feature_select_strategy")) == "full" else 0
        )
        return [count + kept for count in super().feature_counts(pixel_values, options)]

    def project(self, states: Tensor) -> Tensor:
        """The model's own projector on single patches."""
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
            pixel_values: A pair for each image, in a `PerImage` or a list; or a `PatchBatch`.
            vision_feature_layer: Hidden state or states to use; the configuration's if not given.
            vision_feature_select_strategy: ``"default"`` drops the class token, ``"full"`` keeps it; the configuration's
                if not given.
            return_dict: False returns a tuple.
            kwargs: transformers' other options; they have no meaning here, but ``generate`` passes them.

        Returns:
            The tower's output with ``pooler_output`` a list of features ``(N_i, E)``, one for each image.
        """
        layer = self.config.vision_feature_layer if vision_feature_layer is None else vision_feature_layer
        strategy = self._strategy(vision_feature_select_strategy)
        layers = [layer] if isinstance(layer, int) else list(layer)
        output = self.encode_images(pixel_values, layers, keep_prefix=strategy == "full")
        return output if return_dict else output.to_tuple()

    def _strategy(self, asked: str | None) -> str:
        """What is done with the class token: what a call asks for, or the configuration."""
        strategy = asked or select_strategy(self.config)
        if strategy not in ("default", "full"):
            raise ValueError(f"vision_feature_select_strategy: got {shown(strategy)}; takes 'default' or 'full'")
        return strategy


class TiledLlavaInner(LlavaInner):
    """As `LlavaInner`, for models that are told the sizes of images to cut tiles: they have no meaning here."""

    def get_image_features(  # type: ignore[override]
        self,
        pixel_values: PixelValues,
        image_sizes: object = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Encode and project images; see `LlavaInner`."""
        return super().get_image_features(pixel_values, vision_feature_layer, vision_feature_select_strategy, **kwargs)


class LlavaGenerative(ConvertedGenerative):
    """A LLaVA with images of any size; see `ConvertedGenerative` for what differs from transformers' class."""

    @classmethod
    def convert_processor(cls, model: Any, processor: object, settings: QlipImageProcessor) -> PromptProcessor:
        """The converted processor, told what older processors forget: the patch size and the class token."""
        new: Any = super().convert_processor(model, processor, settings)
        new.patch_size = model.config.vision_config.patch_size
        new.vision_feature_select_strategy = select_strategy(model.config)
        new.num_additional_image_tokens = cls.tower_of(model).prefix_length
        return new
