"""Pictures by address: what transformers takes as text besides paths."""

import base64
from http.client import HTTPException
from urllib.request import urlopen

from qlip.images.read import MAX_BYTES

TIMEOUT = 20  # seconds without a byte


def fetched(source: str) -> str | bytes:
    """The bytes behind ``http://``, ``https://`` and ``data:image/`` addresses; any other text is a path and stays one.

    Raises:
        OSError: if nothing can be had from the address; the message names it.
    """
    if source.startswith("data:image/"):
        try:
            return base64.b64decode(source.partition(",")[2], validate=True)
        except ValueError as error:
            raise OSError(f"image: got {source[:40]!r}..., which is not encoded in base64 ({error})") from error
    return _download(source) if source.startswith(("http://", "https://")) else source


def _download(address: str) -> bytes:
    try:
        with urlopen(address, timeout=TIMEOUT) as response:
            content: bytes = response.read(MAX_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise OSError(f"image: {address} cannot be fetched ({error})") from error
    if len(content) > MAX_BYTES:
        raise OSError(f"image: {address} has more than {MAX_BYTES:,} bytes, which is the most that is read")
    return content
