"""From what a model wrote to what it meant: the parsers of LLaVA, VLMEvalKit and lmms-eval, as they are.

Harnesses disagree here by more than QLIP's gains, so the parser belongs to the prompt style and is the same on all arms.
"""

import re
from collections.abc import Mapping

from qlip.evaluation.benchmarks.base import Style

PUNCTUATION = str.maketrans({character: " " for character in ".()[],:;!*#{}"})
LAST_TOKENS = 5  # VLMEvalKit takes a letter only near the end of the reply


def parse_letter(raw: str, options: Mapping[str, str], style: Style) -> str | None:
    """The letter of one of ``options``, or None.

    Args:
        raw: The reply.
        options: Text of each letter.
        style: ``vlmevalkit`` infers the letter from anywhere in the reply; the others take it at the start alone.
    """
    return _infer_letter(raw, options) if style == "vlmevalkit" else _strict_letter(raw, options, style)


def _infer_letter(raw: str, options: Mapping[str, str]) -> str | None:
    """VLMEvalKit's ``can_infer`` without its GPT judge: one letter near the end, "answer is X", or one option's text."""
    words = raw.translate(PUNCTUATION).split()
    present = [letter for letter in options if letter in words]
    if len(present) == 1 and present[0] in words[-LAST_TOKENS:]:
        return present[0]
    said = re.search(r"answer is:?\s*\(?([A-Z])\b", raw, flags=re.IGNORECASE)
    if said and said[1].upper() in options:
        return said[1].upper()
    reply, length = raw.lower(), sum(len(text) for text in options.values())
    if len(reply) <= 2 * length:
        quoted = [letter for letter, text in options.items() if text and text.lower() in reply]
        if len(quoted) == 1:
            return quoted[0]
    return None


def _strict_letter(raw: str, options: Mapping[str, str], style: Style) -> str | None:
    """LLaVA's and lmms-eval's: "A", "A. ...", and for LLaVA "The answer is A."; brackets as in "(A)" do not matter."""
    reply = raw.strip()
    start = re.match(r"\(?([A-Z])(?:\)?[.:]?$|[.:)]\s)", reply)
    if start:
        return start[1] if start[1] in options else None
    if style == "llava":
        said = re.findall(r"The answer is \(?([A-Z])\)?\.", reply)
        if len(said) == 1 and said[0] in options:
            return said[0]
    return None


def parse_yes_no(raw: str, style: Style) -> str | None:
    """``"yes"``, ``"no"`` or None.

    ``llava`` is POPE's own: the first sentence, "no" if it holds No, not or no, else "yes", so it always understands.
    ``vlmevalkit`` wants exactly one of the two words. ``lmms`` wants the bare word: "yes." is not understood.
    """
    if style == "llava":
        words = raw.split(".")[0].replace(",", "").split()
        return "no" if {"No", "not", "no"} & set(words) else "yes"
    if style == "lmms":
        reply = raw.lower().strip()
        return reply if reply in ("yes", "no") else None
    found = {"yes", "no"} & set(re.sub(r"[^\w\s]", " ", raw.lower()).split())
    return found.pop() if len(found) == 1 else None


def parse_words(raw: str) -> str:
    """A short answer, made comparable: lower case, without space around it or a full stop."""
    return raw.lower().strip().rstrip(".")


def split_options(text: str) -> tuple[str, dict[str, str]]:
    """Split a question from the options written under it as ``(A) ..`` or ``A. ..`` lines; other lines stay."""
    options, rest = {}, []
    for line in text.split("\n"):
        match = re.match(r"\s*(?:\(([A-Z])\)|([A-Z])\.)\s*(.*)", line)
        if match:
            options[match[1] or match[2]] = match[3].strip()
        else:
            rest.append(line)
    return "\n".join(rest), options
