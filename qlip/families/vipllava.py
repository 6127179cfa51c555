"""VipLLaVA with images of any size: a LLaVA whose language model is shown several hidden states of each patch, joined."""

import transformers

from qlip.families.inner import Features
from qlip.families.llava import QlipLlavaProcessor
from qlip.families.llava_base import LlavaGenerative, LlavaInner

if hasattr(transformers, "VipLlavaModel"):

    class QlipVipLlavaModel(LlavaInner, transformers.VipLlavaModel, original=transformers.VipLlavaModel):
        """VipLLaVA without its head, taking patches and leaves."""

        features_class = Features

    class QlipVipLlavaForConditionalGeneration(
        LlavaGenerative,
        transformers.VipLlavaForConditionalGeneration,
        original=transformers.VipLlavaForConditionalGeneration,
    ):
        """VipLLaVA with images of any size; its processor is LLaVA's."""

        processor_class, inner_class = QlipLlavaProcessor, QlipVipLlavaModel
