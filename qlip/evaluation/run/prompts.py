"""How a question is put to a model: in the model's own chat template, and for LLaVA-1.5 in the words that it was trained with."""

import re
from typing import Any

from transformers import LlavaForConditionalGeneration

from qlip.evaluation.names import Style

_LLAVA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the user's questions. USER: <image>\n{} ASSISTANT:"
)
_VLMEVALKIT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the human's questions. USER:  <image> {} ASSISTANT: "
)
# Written out rather than rendered: chat templates leave the system sentence out, and one revision prints it twice.
CHATS: dict[Style, str] = {"llava": _LLAVA, "vlmevalkit": _VLMEVALKIT, "lmms": _LLAVA}


def prompt(model: object, processor: Any, question: str, style: Style, images: int = 1) -> str:
    """A question about pictures as the model is asked it, the marks of the pictures included.

    Args:
        model: The model, converted or not.
        processor: Its processor, converted or not; the two render alike.
        question: The question.
        style: Whose frame LLaVA-1.5 gets; every other model has its own.
        images: Number of pictures; their marks stand before the question, as lmms-eval puts them.
    """
    if isinstance(model, LlavaForConditionalGeneration) and _is_vicuna(processor):
        marks = " ".join(["<image>"] * images)
        return re.sub(r"<image>(\s)", rf"{marks}\1" if images else "", CHATS[style]).format(question)
    if not processor.chat_template:  # PaliGemma, and models that were only pretrained
        return f"{processor.image_token * images}{question}"
    return _rendered(processor, question, images)


def _is_vicuna(processor: Any) -> bool:
    """Whether a LLaVA's template, if there is one, is LLaVA-1.5's; other models share the class."""
    return not processor.chat_template or bool(
        re.search(r"USER:\s*<image>\s*question\s*ASSISTANT:\s*$", _rendered(processor, "question", 1))
    )


def _rendered(processor: Any, question: str, images: int) -> str:
    content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    assert isinstance(text, str)
    return text
