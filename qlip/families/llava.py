"""LLaVA with images of any size: what `qlip.convert` switches a loaded model to."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LlavaForConditionalGeneration, __version__
from transformers.models.llava.modeling_llava import LlavaModel

from qlip.core.position import Position
from qlip.families.base import Converted, Encoding, answers_to
from qlip.families.placeholders import check_placeholders, placeholder_runs
from qlip.images.pixels import Pair, to_pairs, token_counts


@answers_to(LlavaModel)
class QlipLlavaModel(LlavaModel):
    """LLaVA without its head, taking patches and leaves.

    Modifications of `transformers.LlavaModel` (5.17 to 5.23):
    - ``pixel_values`` is a list with a pair for each image (see `qlip.images.pixels`), or a `PatchBatch`; each image has
      as many features as leaves;
    - placeholders are checked image by image before anything is encoded.
    """

    qlip: Encoding

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check the placeholders, then run; not in ``forward``, which accelerate replaces on instances."""
        input_ids = args[0] if args else kwargs.get("input_ids")
        pixel_values = args[1] if len(args) > 1 else kwargs.get("pixel_values")
        if input_ids is not None and pixel_values is not None:
            strategy = kwargs.get("vision_feature_select_strategy")
            self.check_prompts(input_ids, self.feature_counts(pixel_values, strategy))
        return super().__call__(*args, **kwargs)

    def check_prompts(self, input_ids: Tensor, counts: list[int]) -> None:
        """Raise unless ``input_ids (B, L)`` has a placeholder for each of the features; see `check_placeholders`."""
        check_placeholders(input_ids, counts, self.config.image_token_id)

    def feature_counts(self, pixel_values: Any, strategy: str | None = None) -> list[int]:
        """Features of each image: its patches, and the class token where LLaVA's configuration keeps it."""
        full = (strategy or self.config.vision_feature_select_strategy) == "full"
        return [count + full for count in token_counts(pixel_values)]

    def get_image_features(
        self,
        pixel_values: Any,
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
        states = torch.cat([output.hidden_states[index] for index in layers], dim=-1)  # (B, 1 + N, L * D)
        first = 1 if strategy == "default" else 0
        chosen = [state[first : 1 + count] for state, count in zip(states, counts, strict=True)]
        features = self.multi_modal_projector(torch.cat(chosen))  # (sum of N_i, E), nothing spent on padding
        output.pooler_output = list(features.split([len(state) for state in chosen]))
        return output if return_dict else output.to_tuple()


@answers_to(LlavaForConditionalGeneration)
class QlipLlavaForConditionalGeneration(Converted, LlavaForConditionalGeneration):  # type: ignore[misc]
    """LLaVA with images of any size; see `QlipLlavaModel`.

    Modifications of `transformers.LlavaForConditionalGeneration` (5.17 to 5.23), besides those of `Converted`:
    - ``generate`` checks the placeholders image by image before it expands prompts for beams;
    - beams repeat images prompt by prompt (5.17 repeats tensors alone);
    - a prompt is not read in chunks where transformers would leave its images out (5.17 does, without a word).
    """

    original = LlavaForConditionalGeneration

    @classmethod
    def attach(cls, model: Any, position: Position) -> Any:
        """Switch a LLaVA and its inner model, in place, and return it."""
        super().attach(model, position)
        model.model.qlip, model.model.__class__ = model.qlip, QlipLlavaModel
        return model

    def detach(self) -> Any:
        """Undo `attach`, in place, and return the model."""
        inner: Any = self.model
        del inner.qlip
        inner.__class__ = LlavaModel
        return super().detach()

    def _expand_inputs_for_generation(  # type: ignore[misc]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> Any:
        """Check the images against the prompts, then expand as the parent does."""
        cache, pixel_values = model_kwargs.get("past_key_values"), model_kwargs.get("pixel_values")
        strategy = model_kwargs.get("vision_feature_select_strategy")
        encoded = (model_kwargs.get("mm_encoder_outputs") or {}).get("image")
        counts = None
        if encoded is not None:  # 5.23 encodes before it expands
            counts = [len(features) for features in encoded.pooler_output]
        elif pixel_values is not None:
            counts = self.model.feature_counts(pixel_values, strategy)
        fresh = cache is None or cache.get_seq_length() == 0  # else the prompt may hold images of earlier turns
        if counts is not None and fresh and input_ids is not None and input_ids.numel():
            self.model.check_prompts(input_ids, counts)
            if encoded is None and expand_size > 1:
                pairs = to_pairs(pixel_values)
                token_id = self.config.image_token_id
                model_kwargs["pixel_values"] = repeat_by_prompt(pairs, counts, input_ids, token_id, expand_size)
        return super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size,
            is_encoder_decoder=is_encoder_decoder,
            input_ids=input_ids,  # type: ignore[arg-type]
            **model_kwargs,
        )

    def _prefill(  # type: ignore[override]
        self, input_ids: Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any], **kwargs: Any
    ) -> Any:
        """Refuse chunks where images are not encoded beforehand, else read the prompt as the parent does."""
        if generation_config.prefill_chunk_size is not None and model_kwargs.get("pixel_values") is not None:
            raise ValueError(
                f"prefill_chunk_size: got {generation_config.prefill_chunk_size}; transformers {__version__} leaves images "
                f"out of a prompt read in chunks. Takes None, or a newer transformers (5.23 does)"
            )
        return super()._prefill(input_ids, generation_config, model_kwargs, **kwargs)  # type: ignore[misc, arg-type]


def repeat_by_prompt(pairs: list[Pair], counts: list[int], input_ids: Tensor, token_id: int, times: int) -> list[Pair]:
    """Repeat the images of each prompt together, as its rows will be: [A, B | C] twice is [A, B, A, B | C, C].

    Args:
        pairs: One for each image.
        counts: Placeholders of each image.
        input_ids: ``(B, L)``, not yet expanded.
        token_id: The placeholder.
        times: Number of copies of each prompt.
    """
    room = dict.fromkeys(range(len(input_ids)), 0)
    for prompt, length in placeholder_runs(input_ids, token_id):
        room[prompt] += length
    images, repeated = iter(zip(pairs, counts, strict=True)), []
    for left in room.values():
        group = []
        while left:
            pair, count = next(images)
            group.append(pair)
            left -= count
        repeated += group * times
    return repeated
