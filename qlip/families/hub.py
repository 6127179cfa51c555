"""Files of ours in a folder or Hub repository of a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def find_file(source: str | Path, name: str, options: Mapping[str, Any]) -> str:
    """Path of a file of ours in a folder or Hub repository, downloaded if need be.

    Args:
        source: Folder or Hub id.
        name: Name of the file.
        options: Those of ``from_pretrained``; the ones about the Hub are heeded.

    Raises:
        OSError: if there is no such folder or repository; a FileNotFoundError if the file is not in it, for then the model or
            processor is a stock one.
    """
    hub = {key: options[key] for key in HUB_OPTIONS if key in options}
    path = cached_file(str(source), name, **hub, _raise_exceptions_for_missing_entries=False)
    if path is None:
        raise FileNotFoundError(
            f"{source}: has no {name}, so it is stock and was not converted when it was saved. Load it with transformers "
            f"and convert it: model, processor = qlip.convert(model, processor)"
        )
    return path
