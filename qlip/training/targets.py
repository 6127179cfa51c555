"""The [CLS] that the frozen CLIP gives each photograph's standard view: computed once, kept on disk, never trusted blindly."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from qlip.data.readable import check_unreadable, log_skipped
from qlip.files import write_bytes
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import to_pixels
from qlip.images.worker import keep_memory
from qlip.zoo.position_file import tensors_digest

log = logging.getLogger(__name__)

Encode = Callable[[Tensor], Tensor]
BLOCK = 256  # images of one cache file: seconds of work, which is what a kill costs and a rank takes at a time


@dataclass(frozen=True)
class Targets:
    """What is known of each image after the frozen CLIP saw it.

    Attributes:
        cls: ``(n, E)`` float32, the [CLS] output of each image; NaN for an image that cannot be read.
        sizes: ``(n, 2)`` int32, height and width of each upright image in pixels; 0 for one that cannot be read.
    """

    cls: Tensor
    sizes: Tensor

    @property
    def readable(self) -> Tensor:
        """Which images can be read, ``(n,)`` bool."""
        return ~self.cls.isnan().any(1)

    def __len__(self) -> int:
        return len(self.cls)

    def __getitem__(self, images: slice) -> "Targets":
        return Targets(self.cls[images], self.sizes[images])


@dataclass(frozen=True)
class Shard:
    """The part of a computation that falls to one process of several.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
        barrier: Returns once every process has called it.
    """

    rank: int = 0
    world_size: int = 1
    barrier: Callable[[], object] = lambda: None


SINGLE_PROCESS = Shard()


_View = tuple[Tensor, tuple[int, int]]  # pixels (3, n, n) of a standard view; height and width of its photograph
_Target = tuple[Tensor, tuple[int, int]]  # [CLS] output (E,) of a standard view; height and width of its photograph


class _StandardViews(Dataset[_View | None]):
    """The standard view of each file and the size of the photograph, or None where it cannot be read."""

    def __init__(self, files: Sequence[Path], processor: QlipImageProcessor) -> None:
        self.files, self.processor = files, processor

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> _View | None:
        try:
            image = to_pixels(self.files[index])
            return self.processor.prepare(image), (image.shape[1], image.shape[2])
        except (OSError, ValueError) as error:
            log_skipped(self.files[index], error)
            return None


def weights_digest(module: nn.Module) -> str:
    """sha256 of all tensors of a module, names included."""
    return tensors_digest(module.state_dict())


def cache_key(encoder_digest: str, processor: QlipImageProcessor, files: Sequence[Path]) -> str:
    """sha256 of all that the targets depend on: weights, preprocessing, and each file's path, size and time."""
    stats = [(os.path.realpath(file), *_stat(file)) for file in files]
    return hashlib.sha256(json.dumps([encoder_digest, repr(processor), stats]).encode()).hexdigest()


def _stat(file: Path) -> tuple[int, int]:
    """Size and time of a file; zeros for one that cannot be found, such as a dangling link, which reading will name."""
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


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
        except (SafetensorError, OSError, ValueError) as error:
            log.warning("rebuilding a damaged target cache: %s", error)
            return None
        if meta.get("key") != self.key or len(targets) != len(self.files) or meta.get("sha256") != _digest(targets):
            log.warning("rebuilding a target cache that does not match: %s", self.path)
            return None
        return targets

    def write(self, targets: Targets) -> None:
        """Write the cache file, whole or not at all."""
        tensors = {"targets": targets.cls.contiguous(), "sizes": targets.sizes.contiguous()}
        write_bytes(self.path, save(tensors, {"key": self.key, "sha256": _digest(targets)}))


def load_or_compute(
    encode: Encode,
    files: Sequence[Path],
    processor: QlipImageProcessor,
    *,
    encoder_digest: str,
    cache_dir: Path,
    shard: Shard = SINGLE_PROCESS,
    batch_size: int = 16,
    workers: int = 0,
    block: int = BLOCK,
) -> Targets:
    """Targets of all files, from the cache where it has them.

    The cache has a file for every ``block`` images. Ranks take blocks in turn, and read those of the others when all are
    done; a computation that was killed goes on behind its last whole block. Where ranks share no file system, each computes
    what it does not find.

    Args:
        encode: The frozen CLIP, from pixels ``(B, 3, n, n)`` to [CLS] outputs ``(B, E)``.
        files: Paths of the images.
        processor: Makes the standard view of an image.
        encoder_digest: Checksum of the weights behind ``encode``, see `weights_digest`.
        cache_dir: Folder of the cache.
        shard: The blocks that this process computes, of those that are missing.
        batch_size: Number of images encoded at once.
        workers: Number of processes that read images.
        block: Number of images in one cache file.

    Raises:
        UnreadableImages: if more than 1 % of the files cannot be read.
    """
    blocks = [_block(encoder_digest, processor, files[i : i + block], cache_dir) for i in range(0, len(files), block)]
    compute = partial(_compute_missing, encode, processor=processor, batch_size=batch_size, workers=workers)
    if not compute(blocks[shard.rank :: shard.world_size]):
        log.info("reusing %d cached targets: %s", len(files), cache_dir)
    shard.barrier()
    compute(blocks)
    targets = _joined(blocks)
    check_unreadable(int((~targets.readable).sum()), len(files), "data.root")
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
    encoded = _encoded(encode, files, processor, batch_size, workers)
    for block in missing:
        block.write(_stacked(list(islice(encoded, len(block.files)))))
    return len(files)


def _encoded(
    encode: Encode, files: Sequence[Path], processor: QlipImageProcessor, batch_size: int, workers: int
) -> Iterator[_Target | None]:
    """[CLS] and size of each file in turn, or None where it cannot be read."""
    loader: DataLoader[_View | None] = DataLoader(
        _StandardViews(files, processor),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=keep_memory,
    )
    for images in loader:
        views = [image[0] for image in images if image is not None]
        cls = iter(encode(torch.stack(views)).float().cpu() if views else ())
        yield from (None if image is None else (next(cls), image[1]) for image in images)


def _stacked(images: Sequence[_Target | None]) -> Targets:
    width = next((len(image[0]) for image in images if image is not None), 1)
    unknown = torch.full((width,), torch.nan), (0, 0)
    cls, sizes = zip(*(image or unknown for image in images), strict=True)
    return Targets(torch.stack(cls), torch.tensor(sizes, dtype=torch.int32))


def _joined(blocks: Sequence[_Block]) -> Targets:
    """The targets of all blocks; one without a readable image does not know the width and takes that of the others."""
    targets = [targets for block in blocks if (targets := block.read()) is not None]
    if len(targets) != len(blocks):
        raise OSError(f"data.cache_dir: a file of {blocks[0].path.parent} vanished while it was in use; run again")
    width = max(t.cls.shape[1] for t in targets)
    return Targets(torch.cat([t.cls.expand(-1, width) for t in targets]), torch.cat([t.sizes for t in targets]))


def _digest(targets: Targets) -> str:
    digest = hashlib.sha256(targets.cls.contiguous().numpy().tobytes())
    digest.update(targets.sizes.contiguous().numpy().tobytes())
    return digest.hexdigest()
