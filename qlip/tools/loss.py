"""What a picture loses on its way through tokens: measures of a picture against the original, and plain downscaling."""

import csv
import io
import os
import shutil
import subprocess
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image
from skimage.filters import sobel
from skimage.metrics import structural_similarity

STRONG = 0.1  # Sobel gradient of an edge, grey values in [0, 1]: a step of a tenth of the range or more
CONFIDENT = 60  # of 100, as tesseract rates a word
LETTERS = 3  # of a word at least: shorter ones are found in any texture

Array = np.ndarray[Any, Any]


def downscale(image: Image.Image, pixels: int) -> Image.Image:
    """The picture as a whole grid of ``pixels`` pixels holds it: scaled down to them, aspect kept, and back up, both bicubic.

    A picture that has no more pixels is returned as it is.
    """
    factor = (pixels / (image.width * image.height)) ** 0.5
    if factor >= 1:
        return image
    small = (max(round(image.width * factor), 1), max(round(image.height * factor), 1))
    return image.resize(small, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


def grey(image: Image.Image) -> Array:
    """Luma in [0, 1], ``(H, W)`` float32."""
    return np.asarray(image.convert("L"), dtype=np.float32) / 255


def similarity(original: Array, other: Array) -> float:
    """SSIM (Wang et al. 2004) of two grey pictures in [0, 1], with scikit-image's window of 7 x 7 pixels; 1 for equal ones."""
    if min(original.shape) < 3:  # too narrow for any window: its borders are repeated
        more = [(0, max(3 - side, 0)) for side in original.shape]
        original, other = np.pad(original, more, mode="edge"), np.pad(other, more, mode="edge")
    window = min(7, *original.shape)
    value: Any = structural_similarity(original, other, win_size=window - 1 + window % 2, data_range=1.0)
    return float(value)


def fine_edges(original: Array) -> Array:
    """Sobel gradients of a grey picture where they are strong, zero elsewhere: what `edges_kept` looks for."""
    slopes = sobel(original)
    return np.where(slopes >= STRONG, slopes, 0)


def edges_kept(edges: Array, other: Array) -> float | None:
    """Share of the pixels on strong edges where another picture's gradient is at least half as strong.

    A blur halves the gradient of an edge that is narrower than the blur, and leaves that of a wide one: so fine edges count.

    Args:
        edges: `fine_edges` of the original.
        other: The other picture in grey.

    Returns:
        None if the original has no strong edge.
    """
    places = edges > 0
    return float((sobel(other)[places] >= edges[places] / 2).mean()) if places.any() else None


def can_read() -> bool:
    """Whether tesseract, the program that reads words, is installed."""
    return shutil.which("tesseract") is not None


def words(image: Image.Image) -> Counter[str]:
    """How often each word of at least three characters is read in a picture by tesseract, with a confidence of at least 60.

    Raises:
        OSError: if tesseract fails.
    """
    file = io.BytesIO()
    image.convert("RGB").save(file, "PPM")
    command = ["tesseract", "stdin", "stdout", "--psm", "3", "tsv"]  # 3: a page of any layout
    one_thread = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(command, input=file.getvalue(), capture_output=True, env=one_thread, check=False)
    if done.returncode:
        raise OSError(f"tesseract: {done.stderr.decode(errors='replace').strip()}")
    rows = csv.DictReader(io.StringIO(done.stdout.decode()), delimiter="\t", quoting=csv.QUOTE_NONE)
    found = ((row["text"] or "", float(row["conf"])) for row in rows)
    return Counter(word.strip() for word, sure in found if len(word.strip()) >= LETTERS and sure >= CONFIDENT)


def words_kept(original: Counter[str], other: Counter[str]) -> float | None:
    """Share of the words of the original that are read in another picture as often; None if the original has none."""
    return (original & other).total() / original.total() if original else None
