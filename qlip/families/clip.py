"""CLIP's two towers with images of any size."""

from transformers import CLIPModel, CLIPProcessor, CLIPVisionModel

from qlip.families.base import Converted
from qlip.families.processor import ConvertedProcessor
from qlip.families.tower import ConvertedTower


class QlipCLIPProcessor(ConvertedProcessor, CLIPProcessor, original=CLIPProcessor):
    """CLIP's processor for images of any size; see `ConvertedProcessor` for what differs from `transformers.CLIPProcessor`."""


class QlipCLIPVisionTower(ConvertedTower, CLIPVisionModel, original=CLIPVisionModel):
    """CLIP's vision tower, taking patches and leaves."""


class QlipCLIPModel(Converted, CLIPModel, original=CLIPModel):
    """CLIP, image and text, with images of any size; see `Converted` for what differs from `transformers.CLIPModel`."""

    processor_class, inner_class = QlipCLIPProcessor, QlipCLIPVisionTower
