"""CLIP's two towers with images of any size: what `qlip.convert` switches a CLIPModel to."""

from typing import Any

from transformers import CLIPModel

from qlip.families.base import Converted, answers_to


@answers_to(CLIPModel)
class QlipCLIPModel(Converted, CLIPModel):  # type: ignore[misc]
    """CLIP, image and text, taking patches and leaves.

    Modifications of `transformers.CLIPModel` (5.17 to 5.23), besides those of `Converted`:
    - ``pixel_values`` is a list with a pair for each image (see `qlip.images.pixels`), or a `PatchBatch`.
    """

    original = CLIPModel

    def get_image_features(self, pixel_values: Any, return_dict: bool = True, **kwargs: Any) -> Any:
        """Encode and project images.

        Args:
            pixel_values: A list with a pair for each image, or a `PatchBatch`.
            return_dict: False returns a tuple.
            kwargs: ``output_hidden_states``; transformers' other options have no meaning here.

        Returns:
            The tower's output with ``pooler_output (B, E)`` in the space shared with text.
        """
        hidden = bool(kwargs.get("output_hidden_states"))
        output: Any
        output, _ = self.qlip.encode(self.vision_model, pixel_values, output_hidden_states=hidden)
        output.pooler_output = self.visual_projection(output.pooler_output)
        return output if return_dict else output.to_tuple()
