"""What the benchmarks of preprocessing share: pictures in files, the two ways to take them apart, and a stopwatch for several."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from unittest.mock import patch

from PIL import Image

from qlip.core import compiled
from qlip.data.sources import find_pictures
from qlip.images.read import read_image

WAYS = ("tensors", "compiled")  # without numba and with it


def jpeg(picture: Image.Image) -> bytes:
    """The bytes of a JPEG file."""
    out = BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def small_files() -> list[bytes]:
    """The photographs that come with scikit-image, 300 to 1400 pixels."""
    splits = find_pictures("samples")
    return [jpeg(read_image(path)) for path in splits.train + splits.val]


def large_file(size: tuple[int, int]) -> bytes:
    """A photograph of scikit-image, scaled up."""
    path = find_pictures("samples").train[0]
    return jpeg(read_image(path).resize(size, Image.Resampling.BICUBIC))


def using(way: str) -> AbstractContextManager[object]:
    """Take pictures apart in one of `WAYS`; ends the program where numba is needed and missing."""
    if way == "tensors":
        return patch.object(compiled, "kernels", lambda: None)
    if compiled.kernels() is None:
        raise SystemExit('the benchmarks compare with compiled loops: pip install "qlip[fast]"')
    return nullcontext()


def with_way(way: str, processor: Callable[[object], object], files: object) -> None:
    """Prepare files in one of `WAYS`."""
    with using(way):
        processor(files)


def least(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds of processor time of each way, taken in turns so that they share what else the machine does; the least."""
    best = dict.fromkeys(ways, float("inf"))
    for way in ways.values():
        way()
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            way()
            best[name] = min(best[name], 1000 * (time.process_time() - start))
    return best


def each(way: Callable[[bytes], object], files: Sequence[bytes]) -> None:
    """One file after the other."""
    for data in files:
        way(data)
