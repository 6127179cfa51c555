"""The [CLS] that the frozen CLIP gives each photograph's standard view: computed once, kept on disk, never trusted blindly."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from qlip.files import replacing_file
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import read_image

log = logging.getLogger(__name__)

Encode = Callable[[Tensor], Tensor]
MAX_UNREADABLE = 0.01
BLOCK = 256  # images of one cache file: seconds of work, which is what a kill costs and a rank takes at a time


class UnreadableImages(OSError):
    """More than 1 % of the images cannot be read."""


@dataclass(frozen=True)
class Targets:
    """What is known of each image after the frozen CLIP saw it.

    Attributes:
        cls: ``(n, E)`` float32, its [CLS]; a row of NaN for each image that cannot be read.
        sizes: ``(n, 2)`` int32, height and width of the upright image in pixels; zero where it cannot be read.
    """

    cls: Tensor
    sizes: Tensor

    @property
    def readable(self) -> Tensor:
        """``(n,)`` bool."""
        return ~self.cls.isnan().any(1)

    def __len__(self) -> int:
        return len(self.cls)

    def __getitem__(self, images: slice) -> "Targets":
        return Targets(self.cls[images], self.sizes[images])


@dataclass(frozen=True)
class Share:
    """One process of those that compute together.

    Attributes:
        rank: Which.
        world_size: Of how many.
        barrier: Waits for the others.
    """

    rank: int = 0
    world_size: int = 1
    barrier: Callable[[], object] = lambda: None


ALONE = Share()


Seen = tuple[Tensor, tuple[int, int]]  # a standard view (3, n, n), later its [CLS] (E,), and the photograph's size


class _StandardViews(Dataset[Seen | None]):
    """The standard view of each file and the size of the photograph, or None where it cannot be read."""

    def __init__(self, files: Sequence[Path], processor: QlipImageProcessor) -> None:
        self.files, self.processor = files, processor

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Seen | None:
        try:
            image = read_image(self.files[index])
        except (OSError, ValueError, SyntaxError) as error:  # PIL raises SyntaxError for broken PNGs
            log.warning("skipping %s: %s", self.files[index], error)
            return None
        return self.processor.prepare(image), (image.height, image.width)


def weights_digest(module: nn.Module) -> str:
    """sha256 of all tensors of a module, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cache_key(encoder_digest: str, processor: QlipImageProcessor, files: Sequence[Path]) -> str:
    """sha256 of all that the targets depend on: weights, preprocessing, and each file's path, size and time."""
    stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(json.dumps([encoder_digest, repr(processor), stats]).encode()).hexdigest()


@dataclass(frozen=True)
class _Block:
    """Some images and the cache file of their targets, which changes its name with whatever they depend on."""

    files: Sequence[Path]
    key: str
    path: Path

    def read(self) -> Targets | None:
        """The cached targets, or None if there are none or the file is damaged."""
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                meta = file.metadata() or {}
                targets = Targets(file.get_tensor("targets"), file.get_tensor("sizes"))
        except (SafetensorError, OSError) as error:
            log.warning("rebuilding a damaged target cache: %s", error)
            return None
        if meta.get("key") != self.key or len(targets) != len(self.files) or meta.get("sha256") != _digest(targets):
            log.warning("rebuilding a target cache that does not match: %s", self.path)
            return None
        return targets

    def write(self, targets: Targets) -> None:
        """Write the cache file, whole or not at all."""
        tensors = {"targets": targets.cls.contiguous(), "sizes": targets.sizes.contiguous()}
        with replacing_file(self.path) as new:
            save_file(tensors, new, {"key": self.key, "sha256": _digest(targets)})


def load_or_compute(
    encode: Encode,
    files: Sequence[Path],
    processor: QlipImageProcessor,
    *,
    encoder_digest: str,
    cache_dir: Path,
    share: Share = ALONE,
    batch_size: int = 16,
    workers: int = 0,
    block: int = BLOCK,
) -> Targets:
    """Targets of all files, from the cache where it has them.

    The cache has a file for every ``block`` images. Ranks take blocks in turn, and read those of the others when all are
    done; a computation that was killed goes on behind its last whole block. Where ranks share no file system, each computes
    what it does not find.

    Args:
        encode: The frozen CLIP, pixels ``(B, 3, n, n)`` to ``(B, E)``.
        files: Image files.
        processor: Makes the standard view.
        encoder_digest: Identifies the weights behind ``encode``, see `weights_digest`.
        cache_dir: Folder of the cache.
        share: What of it is this process's to compute.
        batch_size: Images encoded at once.
        workers: Processes that read images.
        block: Images of one cache file.

    Raises:
        UnreadableImages: if more than 1 % of the files cannot be read.
    """
    blocks = [_block(encoder_digest, processor, files[i : i + block], cache_dir) for i in range(0, len(files), block)]
    compute = partial(_compute_missing, encode, processor=processor, batch_size=batch_size, workers=workers)
    if not compute(blocks[share.rank :: share.world_size]):
        log.info("reusing %d cached targets: %s", len(files), cache_dir)
    share.barrier()
    compute(blocks)
    targets = _joined(blocks)
    unreadable = int((~targets.readable).sum())
    if unreadable > MAX_UNREADABLE * len(files):
        raise UnreadableImages(
            f"data.root: {unreadable} of {len(files)} images cannot be read (at most 1 % may fail); the log names them"
        )
    return targets


def _block(encoder_digest: str, processor: QlipImageProcessor, files: Sequence[Path], cache_dir: Path) -> _Block:
    key = cache_key(encoder_digest, processor, files)
    return _Block(files, key, cache_dir / f"targets-{key[:16]}.safetensors")


def _compute_missing(
    encode: Encode, blocks: Sequence[_Block], processor: QlipImageProcessor, batch_size: int, workers: int
) -> int:
    """Compute and write the blocks that the cache lacks; how many images that were."""
    missing = [block for block in blocks if block.read() is None]
    files = [file for block in missing for file in block.files]
    if files:
        log.info("computing %d targets once, cache: %s", len(files), missing[0].path.parent)
    seen = _encoded(encode, files, processor, batch_size, workers)
    for block in missing:
        block.write(_stacked(list(islice(seen, len(block.files)))))
    return len(files)


def _encoded(
    encode: Encode, files: Sequence[Path], processor: QlipImageProcessor, batch_size: int, workers: int
) -> Iterator[Seen | None]:
    """[CLS] and size of each file in turn, or None where it cannot be read."""
    loader: DataLoader[Any] = DataLoader(
        _StandardViews(files, processor), batch_size=batch_size, num_workers=workers, collate_fn=list
    )
    for images in loader:
        views = [image[0] for image in images if image is not None]
        cls = iter(encode(torch.stack(views)).float().cpu() if views else ())
        yield from (None if image is None else (next(cls), image[1]) for image in images)


def _stacked(seen: Sequence[Seen | None]) -> Targets:
    width = next((len(image[0]) for image in seen if image is not None), 1)
    unknown = torch.full((width,), torch.nan), (0, 0)
    cls, sizes = zip(*(image or unknown for image in seen), strict=True)
    return Targets(torch.stack(cls), torch.tensor(sizes, dtype=torch.int32))


def _joined(blocks: Sequence[_Block]) -> Targets:
    """The targets of all blocks; one without a readable image does not know the width and takes that of the others."""
    targets = [targets for block in blocks if (targets := block.read()) is not None]
    assert len(targets) == len(blocks), "a cache file vanished while it was in use"
    width = max(t.cls.shape[1] for t in targets)
    return Targets(torch.cat([t.cls.expand(-1, width) for t in targets]), torch.cat([t.sizes for t in targets]))


def _digest(targets: Targets) -> str:
    digest = hashlib.sha256(targets.cls.contiguous().numpy().tobytes())
    digest.update(targets.sizes.contiguous().numpy().tobytes())
    return digest.hexdigest()
