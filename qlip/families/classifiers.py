"""Classifiers of images of any size: heads on the class token, on the mean of the patches, or on both."""

from transformers import (
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
    ViTForImageClassification,
    ViTModel,
)

from qlip.families.base import Converted
from qlip.families.image_processor import ConvertedImageProcessor
from qlip.families.tower import AveragedTower, ConvertedTower


class Classifier(Converted):
    """A classifier with images of any size; it takes no words, so its processor is one of images alone."""

    processor_class = ConvertedImageProcessor


class QlipViTTower(ConvertedTower, ViTModel, original=ViTModel):
    """ViT, taking patches and leaves."""


class QlipViTForImageClassification(Classifier, ViTForImageClassification, original=ViTForImageClassification):
    """ViT with a head on the class token."""

    inner_class = QlipViTTower


class QlipDinov2Tower(AveragedTower, Dinov2Model, original=Dinov2Model):
    """DINOv2, taking patches and leaves."""


class QlipDinov2ForImageClassification(Classifier, Dinov2ForImageClassification, original=Dinov2ForImageClassification):
    """DINOv2 with a head on the class token and the mean of the patches."""

    inner_class = QlipDinov2Tower


class QlipDinov2WithRegistersTower(AveragedTower, Dinov2WithRegistersModel, original=Dinov2WithRegistersModel):
    """DINOv2 with registers, taking patches and leaves."""


class QlipDinov2WithRegistersForImageClassification(
    Classifier, Dinov2WithRegistersForImageClassification, original=Dinov2WithRegistersForImageClassification
):
    """DINOv2 with registers and a head on the class token and the mean of the patches."""

    inner_class = QlipDinov2WithRegistersTower
