"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5 and GLM-4V: which classes of transformers stand for which; see `qlip.families.qwen_base`.

A family that the installed transformers lacks is not there.
"""

import transformers

from qlip.families.qwen_base import QwenGenerative, QwenInner, QwenProcessor


class QlipQwen2VLProcessor(QwenProcessor, transformers.Qwen2VLProcessor, original=transformers.Qwen2VLProcessor):
    """Qwen2-VL's processor for images of any size."""


class QlipQwen2VLModel(QwenInner, transformers.Qwen2VLModel, original=transformers.Qwen2VLModel):
    """Qwen2-VL without its head, taking patches and leaves."""


class QlipQwen2VLForConditionalGeneration(
    QwenGenerative, transformers.Qwen2VLForConditionalGeneration, original=transformers.Qwen2VLForConditionalGeneration
):
    """Qwen2-VL with images of any size."""

    processor_class, inner_class = QlipQwen2VLProcessor, QlipQwen2VLModel


if hasattr(transformers, "Qwen2_5_VLModel"):

    class QlipQwen2_5_VLProcessor(
        QwenProcessor, transformers.Qwen2_5_VLProcessor, original=transformers.Qwen2_5_VLProcessor
    ):
        """Qwen2.5-VL's processor for images of any size."""

    class QlipQwen2_5_VLModel(QwenInner, transformers.Qwen2_5_VLModel, original=transformers.Qwen2_5_VLModel):  # type: ignore[misc]
        """Qwen2.5-VL without its head, taking patches and leaves."""

    class QlipQwen2_5_VLForConditionalGeneration(
        QwenGenerative,
        transformers.Qwen2_5_VLForConditionalGeneration,
        original=transformers.Qwen2_5_VLForConditionalGeneration,
    ):
        """Qwen2.5-VL with images of any size."""

        processor_class, inner_class = QlipQwen2_5_VLProcessor, QlipQwen2_5_VLModel


if hasattr(transformers, "Qwen3VLModel"):

    class QlipQwen3VLProcessor(QwenProcessor, transformers.Qwen3VLProcessor, original=transformers.Qwen3VLProcessor):
        """Qwen3-VL's processor for images of any size."""

    class QlipQwen3VLModel(QwenInner, transformers.Qwen3VLModel, original=transformers.Qwen3VLModel):
        """Qwen3-VL without its head, taking patches and leaves."""

    class QlipQwen3VLForConditionalGeneration(
        QwenGenerative,
        transformers.Qwen3VLForConditionalGeneration,
        original=transformers.Qwen3VLForConditionalGeneration,
    ):
        """Qwen3-VL with images of any size."""

        processor_class, inner_class = QlipQwen3VLProcessor, QlipQwen3VLModel


if hasattr(transformers, "Qwen3_5Model"):

    class QlipQwen3_5Model(QwenInner, transformers.Qwen3_5Model, original=transformers.Qwen3_5Model):
        """Qwen3.5 without its head, taking patches and leaves."""

    class QlipQwen3_5ForConditionalGeneration(
        QwenGenerative,
        transformers.Qwen3_5ForConditionalGeneration,
        original=transformers.Qwen3_5ForConditionalGeneration,
    ):
        """Qwen3.5 with images of any size."""

        processor_class, inner_class = QlipQwen3VLProcessor, QlipQwen3_5Model


if hasattr(transformers, "Glm4vModel"):

    class QlipGlm4vProcessor(QwenProcessor, transformers.Glm4vProcessor, original=transformers.Glm4vProcessor):
        """GLM-4V's processor for images of any size."""

    class QlipGlm4vModel(QwenInner, transformers.Glm4vModel, original=transformers.Glm4vModel):
        """GLM-4V without its head, taking patches and leaves."""

    class QlipGlm4vForConditionalGeneration(
        QwenGenerative, transformers.Glm4vForConditionalGeneration, original=transformers.Glm4vForConditionalGeneration
    ):
        """GLM-4V with images of any size."""

        processor_class, inner_class = QlipGlm4vProcessor, QlipGlm4vModel
