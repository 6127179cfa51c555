"""SmolVLM with images of any size; see `qlip.families.idefics`."""

import transformers

from qlip.families.idefics import IdeficsGenerative, IdeficsInner, IdeficsProcessor

if hasattr(transformers, "SmolVLMModel"):

    class QlipSmolVLMProcessor(IdeficsProcessor, transformers.SmolVLMProcessor, original=transformers.SmolVLMProcessor):
        """SmolVLM's processor for images of any size."""

    class QlipSmolVLMModel(IdeficsInner, transformers.SmolVLMModel, original=transformers.SmolVLMModel):
        """SmolVLM without its head, taking patches and leaves."""

    class QlipSmolVLMForConditionalGeneration(
        IdeficsGenerative,
        transformers.SmolVLMForConditionalGeneration,
        original=transformers.SmolVLMForConditionalGeneration,
    ):
        """SmolVLM with images of any size."""

        processor_class, inner_class = QlipSmolVLMProcessor, QlipSmolVLMModel
