"""Idefics 3 with images of any size, and what SmolVLM shares with it.

One tree in place of tiles; a shuffle joins u x u patches to a token.

Their towers read the table at the nearest entry, see `qlip.towers.idefics`: at sizes other than the model's own, positions go
smoothly between entries where transformers repeats them. Both read nothing of ``pixel_attention_mask``: no image is padded.
A family that the installed transformers lacks is not there.
"""

from typing import Any

import transformers
from torch import Tensor
from transformers import ProcessorMixin

from qlip.families.base import ConvertedGenerative
from qlip.families.inner import ConvertedInner
from qlip.families.processor import PromptProcessor


class IdeficsProcessor(PromptProcessor):
    """The processor of Idefics 3 or SmolVLM, without tiles; see `PromptProcessor` for what else differs."""

    plain_options = {"do_image_splitting": False, "return_row_col_info": True}  # noqa: RUF012


class IdeficsInner(ConvertedInner):
    """Idefics 3 or SmolVLM without its head, taking patches and leaves; see `ConvertedInner` for what differs."""

    tower_path = "vision_model"
    connector: Any

    def project(self, states: Tensor) -> Tensor:
        """The model's own shuffle and projection, each unit a picture."""
        return self.connector(states)[:, 0]


class IdeficsGenerative(ConvertedGenerative):
    """Idefics 3 or SmolVLM with images of any size; see `ConvertedGenerative` for what differs from transformers."""

    @classmethod
    def unit_of(cls, model: Any) -> int:
        """Side of the squares of patches that the shuffle joins."""
        return model.config.scale_factor


if hasattr(transformers, "Idefics3Model"):

    class _Called(ProcessorMixin):
        """Called as every processor is: Idefics 3 has a call of its own, which fails on a prompt that was cut."""

        __call__ = ProcessorMixin.__call__
        create_mm_token_type_ids: Any = ProcessorMixin.create_mm_token_type_ids

        def prepare_inputs_layout(self, *args: Any, **kwargs: Any) -> Any:
            images, text = super().prepare_inputs_layout(*args, **kwargs)[:2]
            return images, text, None, None

    class QlipIdefics3Processor(
        IdeficsProcessor, _Called, transformers.Idefics3Processor, original=transformers.Idefics3Processor
    ):
        """Idefics 3's processor for images of any size."""

    class QlipIdefics3Model(IdeficsInner, transformers.Idefics3Model, original=transformers.Idefics3Model):
        """Idefics 3 without its head, taking patches and leaves."""

    class QlipIdefics3ForConditionalGeneration(
        IdeficsGenerative,
        transformers.Idefics3ForConditionalGeneration,
        original=transformers.Idefics3ForConditionalGeneration,
    ):
        """Idefics 3 with images of any size."""

        processor_class, inner_class = QlipIdefics3Processor, QlipIdefics3Model
