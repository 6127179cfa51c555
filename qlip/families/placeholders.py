"""Checks that a prompt holds as many image placeholders as its images have tokens, before any model runs."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from torch import Tensor


def placeholder_runs(
    input_ids: "Tensor | Sequence[Iterable[int]]", token_id: int, breaks: int = 0
) -> Iterator[tuple[int, int]]:
    """Runs of neighbouring placeholders in reading order: index of the prompt, and how many there are.

    Args:
        input_ids: ``(B, L)``, or a list of lists of any lengths.
        token_id: The placeholder.
        breaks: How many other tokens may stand between two placeholders of a run.
    """
    rows = (input_ids == token_id).tolist() if isinstance(input_ids, Tensor) else input_ids
    wanted = True if isinstance(input_ids, Tensor) else token_id
    for prompt, row in enumerate(rows):
        length = 0
        for is_placeholder, group in groupby(row, lambda value: value == wanted):
            count = sum(1 for _ in group)
            if is_placeholder:
                length += count
            elif length and count > breaks:
                yield prompt, length
                length = 0
        if length:
            yield prompt, length


def check_placeholders(
    input_ids: "Tensor | Sequence[Iterable[int]]",
    counts: Sequence[int],
    token_id: int,
    cause: str = "",
    breaks: int = 0,
) -> None:
    """Check that the runs of placeholders are made of whole images, in order.

    transformers compares sums over the batch, so two mistakes can hide each other and put one image's features into
    another's place.

    Args:
        input_ids: See `placeholder_runs`.
        counts: Tokens of each image, in the order of the prompts.
        token_id: The placeholder.
        cause: What is likely to have gone wrong, if the caller knows.
        breaks: See `placeholder_runs`.

    Raises:
        ValueError: naming the image, the tokens expected, those found, and the likely cause.
    """
    runs = list(placeholder_runs(input_ids, token_id, breaks))
    image = 0
    for prompt, length in runs:
        left = length
        while left:
            if image == len(counts):
                raise _mismatch(image, prompt, 0, left, cause or "there are more places for images than images")
            # As many runs as images: each run is one image's. Fewer: neighbouring images have run together.
            found = left if len(runs) == len(counts) else min(left, counts[image])
            if found != counts[image]:
                raise _mismatch(image, prompt, counts[image], found, cause)
            left -= found
            image += 1
    if image < len(counts):
        raise _mismatch(image, None, counts[image], 0, cause or "no prompt has a place for it")


def _mismatch(image: int, prompt: int | None, expected: int, found: int, cause: str) -> ValueError:
    where = "" if prompt is None else f" in prompt {prompt}"
    cause = cause or "the prompt was cut (max_length, truncation) or written by hand, or belongs to other images"
    return ValueError(
        f"input_ids: image {image}{where} has {expected} tokens, but {found} placeholders; likely cause: {cause}. Let the "
        f"converted processor make prompt and images in one call, without truncation, and lower max_tokens if it gets too "
        f"long"
    )
