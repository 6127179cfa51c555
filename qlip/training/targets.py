"""The [CLS] that the frozen CLIP gives each photograph's standard view: computed once, kept on disk, never trusted blindly."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from qlip.models.images import read_image
from qlip.models.processing import QlipImageProcessor

log = logging.getLogger(__name__)

Encode = Callable[[Tensor], Tensor]
MAX_UNREADABLE = 0.01


class UnreadableImages(OSError):
    """More than 1 % of the images cannot be read."""


class _StandardViews(Dataset[Tensor | None]):
    """The standard view of each file, ``(3, n, n)``, or None where it cannot be read."""

    def __init__(self, files: Sequence[Path], processor: QlipImageProcessor) -> None:
        self.files, self.processor = files, processor

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor | None:
        try:
            image = read_image(self.files[index])
        except (OSError, ValueError, SyntaxError) as error:  # PIL raises SyntaxError for broken PNGs
            log.warning("skipping %s: %s", self.files[index], error)
            return None
        return self.processor.prepare(image)


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


def load_or_compute(
    encode: Encode,
    files: Sequence[Path],
    processor: QlipImageProcessor,
    *,
    encoder_digest: str,
    cache_dir: Path,
    batch_size: int = 16,
    workers: int = 0,
) -> Tensor:
    """Targets ``(len(files), E)`` float32, a row of NaN for each file that cannot be read.

    Args:
        encode: The frozen CLIP, pixels ``(B, 3, n, n)`` to ``(B, E)``.
        files: Image files.
        processor: Makes the standard view.
        encoder_digest: Identifies the weights behind ``encode``, see `weights_digest`.
        cache_dir: Folder of the cache; one file a key.
        batch_size: Images encoded at once.
        workers: Processes that read images.

    Raises:
        UnreadableImages: if more than 1 % of the files cannot be read.
    """
    key = cache_key(encoder_digest, processor, files)
    path = cache_dir / f"targets-{key[:16]}.safetensors"
    targets = _read(path, key, len(files))
    if targets is None:
        log.info("computing %d targets once, cache: %s", len(files), path)
        targets = _compute(encode, files, processor, batch_size, workers)
        _write(path, key, targets)
    else:
        log.info("reusing %d cached targets: %s", len(files), path)
    unreadable = int(targets.isnan().any(1).sum())
    if unreadable > MAX_UNREADABLE * len(files):
        raise UnreadableImages(
            f"data.root: {unreadable} of {len(files)} images cannot be read (at most 1 % may fail); the log names them"
        )
    return targets


@torch.no_grad()
def _compute(
    encode: Encode, files: Sequence[Path], processor: QlipImageProcessor, batch_size: int, workers: int
) -> Tensor:
    loader: DataLoader[Tensor | None] = DataLoader(
        _StandardViews(files, processor), batch_size=batch_size, num_workers=workers, collate_fn=list
    )
    rows: list[Tensor | None] = []
    for views in loader:
        readable = [view for view in views if view is not None]
        encoded = iter(encode(torch.stack(readable)).float().cpu() if readable else ())
        rows += [None if view is None else next(encoded) for view in views]
    width = next((len(row) for row in rows if row is not None), 1)
    return torch.stack([torch.full((width,), torch.nan) if row is None else row for row in rows])


def _digest(targets: Tensor) -> str:
    return hashlib.sha256(targets.contiguous().numpy().tobytes()).hexdigest()


def _read(path: Path, key: str, count: int) -> Tensor | None:
    """The cached targets, or None if there are none or the file is stale or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            meta, targets = file.metadata() or {}, file.get_tensor("targets")
    except (SafetensorError, OSError) as error:
        log.warning("rebuilding a damaged target cache: %s", error)
        return None
    if meta.get("key") != key or len(targets) != count or meta.get("sha256") != _digest(targets):
        log.warning("rebuilding a target cache that does not match: %s", path)
        return None
    return targets


def _write(path: Path, key: str, targets: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{torch.randint(1 << 31, ()).item()}.tmp")
    save_file({"targets": targets.contiguous()}, aside, {"key": key, "sha256": _digest(targets)})
    aside.replace(path)
