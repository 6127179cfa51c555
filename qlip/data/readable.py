"""Pictures that cannot be read: one among hundreds is left out and named, many are an error."""

import logging
from collections.abc import Sequence
from pathlib import Path

from qlip.images.processor import QlipImageProcessor
from qlip.images.read import read_image

log = logging.getLogger(__name__)

MAX_UNREADABLE = 0.01


class UnreadableImages(OSError):
    """More than 1 % of the images cannot be read."""


def log_skipped(file: Path, error: Exception) -> None:
    """Say in the log which picture is left out, and why."""
    log.warning("skipping %s", error if str(file) in str(error) else f"{file}: {error}")


def check_unreadable(unreadable: int, total: int, option: str) -> None:
    """Raise if too many pictures were left out.

    Args:
        unreadable: How many were.
        total: How many there are.
        option: What the user calls their source; the message begins with it.

    Raises:
        UnreadableImages: if they are more than 1 %.
    """
    if unreadable > MAX_UNREADABLE * total:
        raise UnreadableImages(
            f"{option}: {unreadable} of {total} images cannot be read (at most 1 % may fail); the log names them"
        )


def readable_pictures(files: Sequence[Path], views: Sequence[QlipImageProcessor], option: str) -> list[Path]:
    """The files that can be read, and shown in each of the views; the log names the others.

    Raises:
        UnreadableImages: if more than 1 % cannot.
    """
    fine = []
    for file in files:
        try:
            picture = read_image(file)
            for view in views:
                view.grid(picture.height, picture.width)
            fine.append(file)
        except (OSError, ValueError) as error:
            log_skipped(file, error)
    check_unreadable(len(files) - len(fine), len(files), option)
    return fine
