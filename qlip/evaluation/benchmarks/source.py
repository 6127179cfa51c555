"""Where the rows and pictures of a benchmark come from: the Hub at a revision, or a folder."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import datasets
from huggingface_hub import HfApi

from qlip.core.rules import shown
from qlip.images.read import ImageLike, read_size


class EncodedImage(TypedDict):
    """A picture as `datasets` leaves it undecoded; at least one of the two is there."""

    bytes: bytes | None
    path: str


@dataclass(frozen=True, eq=False)
class Source:
    """Rows of a benchmark and where they are from.

    Attributes:
        rows: With pictures in a column ``image``: of `datasets`' own kind, or a path relative to ``root``.
        origin: Hub id or folder.
        revision: Commit on the Hub; None for a folder.
        root: Folder of the pictures, where the rows hold paths.
    """

    rows: datasets.Dataset
    origin: str
    revision: str | None
    root: Path | None = None

    def image(self, row: int) -> ImageLike:
        """The picture of a row.

        Raises:
            ValueError: if the row has none.
        """
        image = self._undecoded[row]["image"]
        if image is None:
            raise ValueError(f"data: row {row} of {self.origin} has no image; takes rows with one")
        return self._file(image)

    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of the picture of every row, from its header alone; zeros where it cannot be read."""
        return [self._size(value) for value in self._undecoded.select_columns("image")["image"]]

    @cached_property
    def _undecoded(self) -> datasets.Dataset:
        """The rows with their pictures as files: decoding is for `qlip.images.read`, which names what it cannot read."""
        if "image" not in self.rows.features:
            raise ValueError(
                f"data: {self.origin} has the columns {', '.join(self.rows.column_names)}; takes one called image"
            )
        if isinstance(self.rows.features["image"], datasets.Image):
            return self.rows.cast_column("image", datasets.Image(decode=False))
        return self.rows

    def _file(self, image: str | EncodedImage) -> Path | bytes:
        if isinstance(image, str) and is_relative(image):
            return (self.root or Path()) / image
        if isinstance(image, str) or not isinstance(image, dict) or not image.keys() >= {"bytes", "path"}:
            raise ValueError(
                f"data: {self.origin}: image: got {shown(image)}; takes a path below {self.root}, or a picture"
            )
        return Path(image["path"]) if image["bytes"] is None else image["bytes"]

    def _size(self, value: str | EncodedImage | None) -> tuple[int, int]:
        try:
            return (0, 0) if value is None else read_size(self._file(value))
        except (OSError, ValueError):
            return 0, 0  # asking for the picture itself will say why


def load_rows(hub: str, config: str | None, split: str, data: Path | None, revision: str | None) -> Source:
    """Load a split from a folder, or from the Hub at one commit.

    Args:
        hub: Dataset id on the Hub.
        config: Name of the configuration, None for the default.
        split: Name of the split.
        data: Folder to use in place of the Hub: what ``Dataset.save_to_disk`` wrote, or a copy of the repository.
        revision: Commit, branch or tag; the newest commit if not given.

    Raises:
        FileNotFoundError: if the folder is not there.
        ValueError: if the folder holds something else.
    """
    if data is None:
        revision = resolve_revision(hub, revision)
        return Source(datasets.load_dataset(hub, config, split=split, revision=revision), hub, revision)
    with naming(str(check_folder(data))):
        return Source(_read_folder(data, config, split), str(data), None)


def check_folder(data: Path) -> Path:
    """The folder, if there is one.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not os.path.isdir(data):
        raise FileNotFoundError(
            f"data: got {data}, which is no folder; takes a copy of the benchmark's Hub repository or what "
            f"datasets' save_to_disk wrote. Leave --data out to download it"
        )
    return data


def _read_folder(folder: Path, config: str | None, split: str) -> datasets.Dataset:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        saved = datasets.load_from_disk(str(folder))
        if isinstance(saved, datasets.Dataset):
            return saved
        if split not in saved:
            raise ValueError(f"data: {folder} has the splits {', '.join(saved)}; takes one with {split!r}")
        return saved[split]
    configs = datasets.get_dataset_config_names(str(folder))
    chosen = config if config in configs else None  # a copy may hold nothing but the one configuration
    return datasets.load_dataset(str(folder), chosen, split=split)


def is_relative(name: str) -> bool:
    """Whether a name stays below the folder that it is meant to be in."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts and "\0" not in name and len(name) < 4096


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Turn whatever `datasets` raises for files that it cannot read into an error that says which data are meant.

    Raises:
        ValueError: for any other error than one of ours.
    """
    try:
        yield
    except Exception as error:  # of pyarrow, pandas, fsspec and others
        text = " ".join(str(error).split())
        if text.startswith("data: "):
            raise
        cause = error.__cause__ or error
        raise ValueError(
            f"data: {what} cannot be read ({type(cause).__name__}: {' '.join(str(cause).split())[:300]}); takes a whole copy of "
            f"the benchmark's Hub repository, or what datasets' save_to_disk wrote"
        ) from error


def resolve_revision(hub: str, revision: str | None) -> str:
    """The commit behind a branch or tag, so that a result says exactly what it was measured on."""
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    return str(HfApi().dataset_info(hub, revision=revision).sha)
