"""What a language model can hold, checked before anything is encoded."""

from typing import Any

from torch import Tensor


def context_of(model: Any) -> int | None:
    """Tokens that a model's language model can hold; None if its configuration does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def check_context(
    input_ids: Tensor, token_id: int, counts: list[int], max_new_tokens: int, context: int, fixed_tokens: int = 0
) -> None:
    """Raise unless prompts and their answers fit a context.

    Args:
        input_ids: The prompts, ``(B, L)``; they may hold images of earlier turns too.
        token_id: Of the placeholder.
        counts: Features of each image that is to be encoded; every prompt has as many images.
        max_new_tokens: Of an answer.
        context: Tokens that the language model can hold.
        fixed_tokens: Features of every image besides those that a budget is about.

    Raises:
        ValueError: naming the largest ``max_tokens`` with which they would.
    """
    prompts, length = input_ids.shape
    if length + max_new_tokens <= context:
        return
    placeholders = (input_ids == token_id).sum(1)
    earlier = -(-(int(placeholders.sum()) - sum(counts)) // prompts)  # of images that were encoded in earlier turns
    words, each = int((length - placeholders).max()) + earlier, -(-len(counts) // prompts)
    room = (context - max_new_tokens - words) // each - fixed_tokens
    remedy = f"Set max_tokens={room} or lower in the call of the processor" if room > 0 else "Shorten the prompt"
    raise ValueError(
        f"input_ids: got {length} tokens, {int(placeholders.max())} of them of images; with max_new_tokens={max_new_tokens} "
        f"they do not fit the model's context of {context}. {remedy}, or lower max_new_tokens"
    )
