"""Photographs at many sizes as ragged batches, with the targets that the frozen CLIP set for them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from qlip.core.patches import PatchBatch
from qlip.core.quadtree import Quadtree
from qlip.core.rules import SIDE, Number, check, numbers, shown
from qlip.data.readable import check_unreadable, log_skipped
from qlip.data.sources import Splits, find_pictures
from qlip.encoder import edge_coords
from qlip.images.names import Crop
from qlip.images.processor import QlipImageProcessor
from qlip.images.read import to_pixels
from qlip.images.worker import keep_memory
from qlip.training.batch import Item, TrainBatch
from qlip.training.sampler import SeededIndex, TokenBatchSampler, padding_waste
from qlip.training.targets import SINGLE_PROCESS, Encode, Shard, Targets, load_or_compute

log = logging.getLogger(__name__)

T = TypeVar("T")
ValidationItem = list[Item]  # of each size
Standard = QlipImageProcessor | None  # makes the standard view, where the loss looks at its patches


@dataclass(frozen=True)
class View:
    """How the frozen tower takes pictures.

    Attributes:
        patch_size: Side of its patches in pixels.
        mean, std: Of the channels in [0, 1].
        edges: Side of its table, if that ends at the edges of a picture; None if at the centres of the outer patches.
    """

    patch_size: int
    mean: tuple[float, ...] = tuple(OPENAI_CLIP_MEAN)
    std: tuple[float, ...] = tuple(OPENAI_CLIP_STD)
    edges: int | None = None

    def processor(self, size: int, crop: Crop = "patch", **tree: Any) -> QlipImageProcessor:
        """Prepares pictures at ``size`` pixels, whole or cut along a quadtree with these options."""
        quadtree = Quadtree(
            **{"criterion": "uniform", "cover": "roots", **tree}, patch_size=self.patch_size
        )  # the paper's cover
        return QlipImageProcessor(size, crop, quadtree, self.mean, self.std)

    def shown(self, width: int, height: int, max_size: int, **tree: Any) -> QlipImageProcessor:
        """How a photograph of ``width x height`` pixels is shown in training: at its own size, or scaled to ``max_size``."""
        return self.processor(max(min(width, height, max_size), self.patch_size), **tree)

    def place(self, batch: PatchBatch) -> PatchBatch:
        """The batch with coordinates of the tower's table, where a position is asked for them."""
        if self.edges is None:
            return batch
        assert batch.geometry is not None, "a processor's batches have it"
        return replace(batch, coords=edge_coords(batch.geometry, self.edges))


@dataclass(frozen=True)
class Photos:
    """Readable files, their targets ``(len(files), E)``, and the tokens of each at training size."""

    files: list[Path]
    targets: Tensor
    tokens: list[int]


class TrainingPhotos(Dataset[Item]):
    """Photographs at native size or smaller, some of their blocks merged at random (appendix C of the paper).

    Args:
        photos: The photographs.
        max_size: Shortest edge in pixels above which they are scaled down.
        merge: Smallest and largest probability with which a block merges.
        view: How the tower takes pictures.
        standard: Makes the standard view of each photograph that batches carry.
    """

    def __init__(
        self, photos: Photos, max_size: int, merge: tuple[float, float], view: View, standard: Standard = None
    ) -> None:
        self.photos, self.max_size, self.merge, self.view, self.standard = photos, max_size, merge, view, standard

    def __getitem__(self, seeded: SeededIndex) -> Item:
        """One photograph; all that is random about it follows from ``seeded.seed``."""
        image = to_pixels(self.photos.files[seeded.index])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded.seed)
            low, high = self.merge
            probability = low + (high - low) * torch.rand(()).item()
            processor = self.view.shown(
                image.shape[2], image.shape[1], self.max_size, alpha=probability, criterion="random"
            )
            standard = None if self.standard is None else self.standard(image)
            return Item(self.view.place(processor(image)), self.photos.targets[seeded.index], standard)


class ValidationPhotos(Dataset[ValidationItem]):
    """Photographs as centred squares of several sizes, uncut, so that they show what the targets show."""

    def __init__(self, photos: Photos, sizes: Sequence[int], view: View, standard: Standard = None) -> None:
        self.photos, self.view, self.standard = photos, view, standard
        self.processors = [view.processor(size, "square") for size in sizes]

    def __len__(self) -> int:
        return len(self.photos.files)

    def __getitem__(self, index: int) -> ValidationItem:
        """One photograph in every size."""
        image, target = to_pixels(self.photos.files[index]), self.photos.targets[index]
        standard = None if self.standard is None else self.standard(image)
        return [Item(self.view.place(processor(image)), target, standard) for processor in self.processors]


def collate_validation(items: Sequence[ValidationItem], tokens_at_once: int | None = None) -> list[TrainBatch]:
    """Put photographs into batches, one for each size."""
    return [TrainBatch.collate(views, tokens_at_once) for views in zip(*items, strict=True)]


class QlipDataModule(L.LightningDataModule):
    """Photographs for training the coordinate MLP (section 3.3 of the paper).

    Args:
        root: ``imagenette`` (the paper's data, downloaded on first use), ``samples`` (photographs that scikit-image
            ships, no network), ``pocket`` (the same and drawn scenes), or a folder of images, with or without ``train/``
            and ``val/``.
        batch_size: Photographs in a batch, on each device.
        max_size: Shortest edge in pixels above which photographs are scaled down; smaller ones stay native.
        merge: Probability with which a quadtree block merges; two numbers are a range drawn from for each photograph.
        val_limit: Most photographs to validate on, evenly spaced over those there are.
        val_sizes: Sides in pixels of the squares that validation compares with the standard view.
        repeats: Number of times that an epoch shows each photograph; for data sets of a handful.
        workers: Processes that read and cut photographs.
        tokens_at_once: Most tokens that go through the CLIP together; a batch above it goes in micro-batches whose
            gradients add up to the batch's. All at once if not given.
        download_to: Folder for downloaded data.
        cache_dir: Folder in which targets are kept between runs.
        seed: Seed of the order and of the merging.
    """

    def __init__(
        self,
        root: str = "imagenette",
        batch_size: int = 14,
        max_size: int = 560,
        merge: float | tuple[float, float] = 0.1,
        val_limit: int = 256,
        val_sizes: tuple[int, ...] = (224, 336, 448, 560),
        repeats: int = 1,
        workers: int = 4,
        tokens_at_once: int | None = None,
        download_to: str = "data",
        cache_dir: str = "~/.cache/qlip",
        seed: int = 0,
    ) -> None:
        super().__init__()
        given = (merge, merge) if isinstance(merge, int | float) else merge
        probabilities = numbers(given, Number(0, 1, fraction=True), count=2)
        if probabilities is None or probabilities[0] > probabilities[1]:
            raise ValueError(f"merge: got {shown(merge)}; takes a probability, or two, the smaller first")
        low, high = probabilities
        counts = {"batch_size": batch_size, "max_size": max_size, "val_limit": val_limit, "repeats": repeats}
        for name, value in {**counts, "workers": workers, "tokens_at_once": tokens_at_once, "seed": seed}.items():
            check(name, value)
        if numbers(val_sizes, SIDE) is None:
            raise ValueError(
                f"val_sizes: got {shown(val_sizes)}; takes whole numbers of pixels, at least one, such as [224, 336]"
            )
        self.root, self.download_to, self.cache_dir = root, download_to, Path(cache_dir).expanduser()
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.tokens_at_once = tokens_at_once
        self.max_size, self.merge, self.repeats, self.val_limit = max_size, (low, high), repeats, val_limit
        self.view, self.val_sizes = View(14), tuple(val_sizes)
        self.standard: Standard = None
        self.unreadable: list[Path] = []
        self.train: Photos | None = None
        self.val: Photos | None = None

    def prepare_data(self) -> None:
        """Download what is missing, in one process."""
        self._find()

    def build(
        self,
        encode: Encode,
        encoder_digest: str,
        image_size: int,
        view: View,
        shard: Shard = SINGLE_PROCESS,
        keep_standard: bool = False,
    ) -> None:
        """List the photographs and compute their targets with the frozen CLIP, unless an earlier call has.

        `QlipModule.setup` calls it, because the module has the CLIP and the data module the photographs.

        Args:
            encode: The frozen tower, from pixels ``(B, 3, n, n)`` to [CLS] outputs ``(B, E)``.
            encoder_digest: Checksum of the tower's weights, see `weights_digest`.
            image_size: Side n of the tower's standard view in pixels.
            view: How the tower takes pictures.
            shard: The targets that this process computes, of those that are not in the cache.
            keep_standard: Have batches carry the standard views, for a loss that looks at their patches.

        Raises:
            UnreadableImages: if more than 1 % of the images cannot be read.
        """
        if self.train is not None:  # fit, then validate: Lightning sets the module up again
            return
        self.view, splits = view, self._find()
        standard = view.processor(image_size, "square")
        self.standard = standard if keep_standard else None
        files = splits.train + splits.val[:: -(-len(splits.val) // self.val_limit)]
        targets = load_or_compute(
            encode, files, standard, encoder_digest=encoder_digest, cache_dir=self.cache_dir, shard=shard,
            workers=self.workers,
        )  # fmt: skip
        shown = self._shown(files, targets)
        self.unreadable = [file for file, fine in zip(files, shown.tolist(), strict=True) if not fine]
        check_unreadable(len(self.unreadable), len(files), "data.root")
        cut = len(splits.train)
        self.train = self._photos(files[:cut], targets[:cut], shown[:cut])
        self.val = self._photos(files[cut:], targets[cut:], shown[cut:])
        sampler = self.train_sampler()
        lengths = [[sampler.tokens[seeded.index] for seeded in batch] for batch in sampler.epoch_batches(0)]
        log.info(
            "%d photographs to train on, %d to validate on, %d unreadable; padding wastes %.1f %% of the tokens",
            len(self.train.files), len(self.val.files), len(self.unreadable), 100 * padding_waste(lengths),
        )  # fmt: skip

    def _find(self) -> Splits:
        return find_pictures(self.root, self.download_to)

    def _shown(self, files: Sequence[Path], targets: Targets) -> Tensor:
        """Which photographs can be read, and are not too long and thin for the sizes that are shown: ``(n,)`` bool."""
        shown = targets.readable
        squares = [self.view.processor(size, "square") for size in self.val_sizes]
        for index in shown.nonzero().flatten().tolist():
            height, width = targets.sizes[index].tolist()
            try:
                for processor in [self.view.shown(width, height, self.max_size), *squares]:
                    processor.grid(height, width)
            except ValueError as error:
                log_skipped(files[index], error)
                shown[index] = False
        return shown

    def _photos(self, files: list[Path], targets: Targets, shown: Tensor) -> Photos:
        keep = shown.nonzero().flatten()
        return Photos([files[i] for i in keep.tolist()], targets.cls[keep], self._tokens(targets.sizes[keep]))

    def _tokens(self, sizes: Tensor) -> list[int]:
        """Patches of photographs of ``sizes (n, 2)`` pixels at training size, before merging."""
        shortest = sizes.double().amin(1, keepdim=True)
        scale = shortest.clamp(max=self.max_size).clamp(min=self.view.patch_size) / shortest
        return ((sizes * scale).long() // self.view.patch_size).clamp(min=1).prod(1).tolist()

    def _built(self, photos: Photos | None) -> Photos:
        if photos is None:
            raise RuntimeError("data: no targets yet; QlipModule.setup builds them, so run this through a Trainer")
        return photos

    def train_sampler(self) -> TokenBatchSampler:
        """The order of the training batches on this rank."""
        photos, trainer = self._built(self.train), self.trainer
        return TokenBatchSampler(
            photos.tokens * self.repeats,
            self.batch_size,
            self.seed,
            (lambda: trainer.global_step * trainer.accumulate_grad_batches) if trainer else (lambda: 0),
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def train_dataloader(self) -> DataLoader[Item]:
        """Ragged batches in the sampler's order."""
        photos = self._built(self.train)
        repeated = Photos(photos.files * self.repeats, photos.targets.repeat(self.repeats, 1), [])
        dataset = TrainingPhotos(repeated, self.max_size, self.merge, self.view, self.standard)
        collate = partial(TrainBatch.collate, tokens_at_once=self.tokens_at_once)
        return self._loader(dataset, collate, sampler=self.train_sampler())

    def val_dataloader(self) -> DataLoader[ValidationItem]:
        """Squares of each of ``val_sizes``, one list of batches a step."""
        photos, trainer = self._built(self.val), self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        count = len(photos.files)
        # At least one photograph for each rank, if need be one that another has too: an idle rank would hang the rest.
        indices = [i % count for i in range(rank, max(count, world_size), world_size)]
        mine = Photos([photos.files[i] for i in indices], photos.targets[indices], [])
        dataset = ValidationPhotos(mine, self.val_sizes, self.view, self.standard)
        collate = partial(collate_validation, tokens_at_once=self.tokens_at_once)
        return self._loader(dataset, collate, batch_size=max(self.batch_size // 4, 1))

    def test_dataloader(self) -> DataLoader[ValidationItem]:
        """The validation photographs."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[ValidationItem]:
        """The validation photographs."""
        return self.val_dataloader()

    def _loader(
        self,
        dataset: Dataset[T],
        collate: Callable[[list[T]], object],
        *,
        batch_size: int = 1,
        sampler: TokenBatchSampler | None = None,
    ) -> DataLoader[T]:
        return DataLoader(
            dataset,
            batch_size=batch_size,  # by name: Lightning makes the loader again for predict
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self.workers,
            worker_init_fn=keep_memory,
            pin_memory=torch.cuda.is_available(),
        )


def data_module_of(trainer: L.Trainer) -> QlipDataModule:
    """The data module of a trainer.

    Raises:
        TypeError: if it is not a `QlipDataModule`, or data loaders were passed instead.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, QlipDataModule):
        got = "none" if data is None else type(data).__name__
        raise TypeError(
            f"datamodule: got {got}; QlipModule trains and validates on a QlipDataModule or a subclass of it, which holds "
            f"the frozen CLIP's targets and knows the length of the run. Pass datamodule=QlipDataModule(root=FOLDER)"
        )
    return data
