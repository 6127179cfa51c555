"""CLIP's two towers with images of any size."""

from typing import Any

from transformers import CLIPModel, CLIPProcessor

from qlip.families.base import Converted
from qlip.families.processor import ConvertedProcessor
from qlip.images.pixels import PixelValues


class QlipCLIPProcessor(ConvertedProcessor, CLIPProcessor, original=CLIPProcessor):
    """CLIP's processor for images of any size; see `ConvertedProcessor` for what differs from `transformers.CLIPProcessor`."""


class QlipCLIPModel(Converted, CLIPModel, original=CLIPModel):
    """CLIP, image and text, taking patches and leaves.

    Modifications of `transformers.CLIPModel` (5.23 to 5.24), besides those of `Converted`:
    - ``pixel_values`` is a list with a pair for each image (see `qlip.images.pixels`), or a `PatchBatch`.
    """

    processor_class = QlipCLIPProcessor
    crop = "patch"

    def get_image_features(self, pixel_values: PixelValues, return_dict: bool = True, **kwargs: Any) -> Any:
        """Encode and project images.

        Args:
            pixel_values: A list with a pair for each image, or a `PatchBatch`.
            return_dict: False returns a tuple.
            kwargs: ``output_hidden_states``; transformers' other options have no meaning here.

        Returns:
            The tower's output with ``pooler_output (B, E)`` in the space shared with text.
        """
        hidden = bool(kwargs.get("output_hidden_states"))
        output, _ = self.qlip.encode(self.vision_model, pixel_values, output_hidden_states=hidden)
        output.pooler_output = self.visual_projection(output.pooler_output)
        return output if return_dict else output.to_tuple()
