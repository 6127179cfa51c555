"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5 and GLM-4V with images of any size: a leaf is one token of the language model.

Their towers run their own forward: transformers lets them be told where patches stand. So nothing is rewritten, and a leaf's
``u x u`` patches pass the model's own merger.
"""

from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qlip.core.names import Weighting
from qlip.core.quadtree import Leaves, centres
from qlip.core.rules import shown
from qlip.families.base import ConvertedGenerative
from qlip.families.image_processor import Images
from qlip.families.inner import ConvertedInner
from qlip.families.mrope import prompt_positions, sequence_ends, table_taps, windows
from qlip.families.processor import PromptProcessor
from qlip.images.pixels import PixelValues, to_pairs
from qlip.towers.base import onloaded

NO_VIDEOS = "got videos; a converted model takes images alone. qlip.restore(model) and the original processor take both"


class QwenProcessor(PromptProcessor):
    """The processor of a Qwen-VL.

    Modifications of the families' processors (transformers 5.23 to 5.24), besides those of `PromptProcessor`:
    - ``image_grid_thw`` is a `PerImage` of the leaves, ``(N, 5)`` in units;
    - images keep their size, whatever ``min_pixels`` and ``max_pixels`` say; ``max_tokens`` bounds their cost;
    - videos are refused.
    """

    skip_tensor_conversion = [*PromptProcessor.skip_tensor_conversion, "image_grid_thw"]  # noqa: RUF012
    per_image = ("pixel_values", "image_grid_thw")

    def _process_images(self, images: Images, **kwargs: Any) -> Any:
        processed, replacements = super()._process_images(images, **kwargs)  # type: ignore[arg-type]
        processed["image_grid_thw"] = [leaves for _, leaves in processed["pixel_values"]]
        return processed, replacements

    def _process_videos(self, videos: object, **kwargs: object) -> NoReturn:
        raise ValueError(f"videos: {NO_VIDEOS}")


class QwenInner(ConvertedInner):
    """A Qwen-VL without its head, taking patches and leaves.

    Modifications of the families' inner models (transformers 5.23 to 5.24), besides those of `ConvertedInner`:
    - ``image_grid_thw`` is a `PerImage` or a list of the leaves of each image; in a later turn of a chat, whose cache holds the earlier ones,
      of every image in the prompt, while ``pixel_values`` holds the new ones;
    - the tower is told where patches stand, and the language model where leaves stand, as float32: centres may be halves;
    - videos are refused.
    """

    visual: Any

    def get_image_features(  # type: ignore[override]
        self, pixel_values: PixelValues, image_grid_thw: object = None, return_dict: bool = True, **kwargs: Any
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode and merge images.

        Args:
            pixel_values: A pair for each image.
            image_grid_thw: The leaves of each image again, as the processor gives them: without them the language model would
                not know where images are.
            return_dict: False returns a tuple.
            kwargs: transformers' other options; they have no meaning here.

        Returns:
            The tower's output with ``pooler_output`` a list of features ``(N_i, E)``, one for each image, and so each of its
            ``deepstack_features`` if it has any.

        Raises:
            TypeError: if ``pixel_values`` or ``image_grid_thw`` is not what the converted processor returns.
        """
        _check_leaves(image_grid_thw)
        pairs, tower, area = to_pairs(pixel_values), self.visual, self.qlip.unit**2
        leaves = [each.cpu() for _, each in pairs]
        counts = [len(each) for each in leaves]
        with onloaded(*tower.patch_embed.modules()):
            weight = tower.patch_embed.proj.weight
            device, dtype = (
                weight.device,
                weight.dtype,
            )  # not the tower's: with ``device_map`` that may be the meta device
        patches = torch.cat([each.to(device, dtype) for each, _ in pairs])
        frames = self.config.vision_config.temporal_patch_size  # a picture is a film that stands still
        told = {**self.places(leaves), "cu_seqlens": sequence_ends(area * count for count in counts)}
        told["grid_thw"] = torch.tensor([[1, *(self.qlip.unit * each[0, 3:]).tolist()] for each in leaves])
        output = tower(
            patches[:, :, None].expand(-1, -1, frames, -1, -1).flatten(1),
            return_dict=True,
            **{name: value.to(device) for name, value in told.items()},
        )
        output.pooler_output = list(output.pooler_output.split(counts))
        if getattr(output, "deepstack_features", None) is not None:
            output.deepstack_features = [list(each.split(counts)) for each in output.deepstack_features]
        return output if return_dict else output.to_tuple()

    def places(self, leaves: list[Tensor]) -> dict[str, Tensor]:
        """What the tower would derive from whole grids, for leaves: rotation, and windows or the table where it has them."""
        tower, unit = self.visual, self.qlip.unit
        parts = torch.cat([Leaves.from_geometry(each).parts(unit).geometry() for each in leaves])
        told = {"position_ids": centres(parts, "patches")}
        if hasattr(tower, "window_size"):
            told |= windows(leaves, tower.window_size // unit // tower.patch_size, unit**2)
        if hasattr(tower, "num_grid_per_side"):
            told |= table_taps(parts, tower.num_grid_per_side)
        return told

    def get_video_features(
        self, pixel_values_videos: object = None, video_grid_thw: object = None, **kwargs: object
    ) -> NoReturn:
        """Refuse videos."""
        raise ValueError(f"pixel_values_videos: {NO_VIDEOS}")

    def get_rope_index(
        self,
        input_ids: Tensor,
        mm_token_type_ids: object = None,
        image_grid_thw: Any = None,
        video_grid_thw: object = None,
        attention_mask: Tensor | None = None,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Time, row and column of each token, see `prompt_positions`.

        Args:
            input_ids: ``(B, L)``.
            mm_token_type_ids: Has no meaning here: placeholders tell where images are.
            image_grid_thw: The leaves of each image of the prompts, ``(N, 5)``.
            video_grid_thw: Refused.
            attention_mask: ``(B, L)``, zero at padding.
            kwargs: transformers' other options; they have no meaning here.

        Returns:
            Positions ``(3, B, L)`` float32, and how far each prompt's next position is ahead of its length, ``(B, 1)``.

        Raises:
            ValueError: if there are videos, or placeholders and leaves do not fit.
            TypeError: if ``image_grid_thw`` holds no leaves.
        """
        if video_grid_thw is not None:
            raise ValueError(f"video_grid_thw: {NO_VIDEOS}")
        leaves = _check_leaves(image_grid_thw)
        self.check_prompts(input_ids, [len(each) for each in leaves])
        images = iter(leaves)
        positions, ahead = torch.zeros(3, *input_ids.shape, device=input_ids.device), []
        for row, ids in enumerate(input_ids):
            kept = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask[row].bool()
            places, following = prompt_positions((ids[kept] == self.config.image_token_id).tolist(), images)
            positions[:, row, kept] = places.to(positions.device)
            ahead.append([following - places.shape[1]])
        return positions, torch.tensor(ahead, device=input_ids.device)


def _check_leaves(image_grid_thw: Any) -> list[Tensor]:
    """The leaves of each image; raise if there is anything else."""
    leaves = [] if image_grid_thw is None else list(image_grid_thw)
    if not leaves or any(each.ndim != 2 or each.shape[1] != 5 for each in leaves):
        raise TypeError(
            f"image_grid_thw: got {type(image_grid_thw).__name__} of shapes {[tuple(each.shape) for each in leaves]}; a "
            f"converted model takes the leaves (N, 5) of each image that a converted processor returns beside pixel_values. Pass "
            f"on all of its output, or use qlip.restore(model) to go on with the original one"
        )
    return leaves


class QwenGenerative(ConvertedGenerative):
    """A Qwen-VL with images of any size; see `ConvertedGenerative` and `QwenInner` for what differs from transformers."""

    @classmethod
    def unit_of(cls, model: Any) -> int:
        """Side of what the model merges into one token, in patches."""
        return model.config.vision_config.spatial_merge_size

    @classmethod
    def patch_size_of(cls, model: Any) -> int:
        """Side of a patch in pixels."""
        return model.config.vision_config.patch_size

    @classmethod
    def table_of(cls, model: nn.Module) -> None:
        """None: the tower rotates; where it has a table besides, that is read at the centres, as transformers reads it."""

    @classmethod
    def default_position(cls, model: nn.Module) -> None:
        """None: the tower places patches itself."""

    @classmethod
    def check_weighting(cls, model: nn.Module, weighting: Weighting) -> Weighting:
        """Once alone: the tower runs its own forward, which takes no weights.

        Raises:
            ValueError: for anything else.
        """
        if weighting != "once":
            raise ValueError(f"weighting: got {shown(weighting)}; the tower of a Qwen-VL takes 'once' alone")
        return weighting

    @classmethod
    def size_of(cls, model: nn.Module) -> None:
        """None: pictures keep their size."""
