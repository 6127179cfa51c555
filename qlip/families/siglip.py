"""SigLIP and SigLIP 2 with images of any size: image and text in one space."""

from typing import Any

from transformers import (
    Siglip2Model,
    Siglip2Processor,
    Siglip2VisionModel,
    SiglipModel,
    SiglipProcessor,
    SiglipVisionModel,
)

from qlip.families.base import Converted
from qlip.families.processor import ConvertedProcessor
from qlip.families.tower import ConvertedTower


class QlipSiglipProcessor(ConvertedProcessor, SiglipProcessor, original=SiglipProcessor):
    """SigLIP's processor for images of any size; see `ConvertedProcessor` for what differs."""


class QlipSiglipVisionTower(ConvertedTower, SiglipVisionModel, original=SiglipVisionModel):
    """SigLIP's vision tower, taking patches and leaves."""


class QlipSiglipModel(Converted, SiglipModel, original=SiglipModel):
    """SigLIP, also SigLIP 2 of a fixed size, with images of any size."""

    processor_class, inner_class = QlipSiglipProcessor, QlipSiglipVisionTower


class QlipSiglip2Processor(ConvertedProcessor, Siglip2Processor, original=Siglip2Processor):
    """SigLIP 2's processor: ``max_tokens`` bounds the tokens of a picture in place of ``max_num_patches``."""


class QlipSiglip2VisionTower(ConvertedTower, Siglip2VisionModel, original=Siglip2VisionModel):
    """SigLIP 2's vision tower of free resolution, taking patches and leaves."""


class QlipSiglip2Model(Converted, Siglip2Model, original=Siglip2Model):
    """SigLIP 2 of free resolution, known as naflex, with a quadtree in place of its resizing to a number of patches."""

    processor_class, inner_class = QlipSiglip2Processor, QlipSiglip2VisionTower

    @classmethod
    def stock_tokens(cls, model: Any, processor: Any) -> int | None:
        """What transformers scales every picture to."""
        return getattr(getattr(processor, "image_processor", None), "max_num_patches", None)
