"""How a loaded model is switched to a class of ours and back, its weights untouched, and how the two are saved together.

Why a change of class: transformers calls ``get_image_features`` from ``forward`` and from ``generate``, accelerate replaces
``forward`` on instances but not this method, and a class at module level pickles.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import nn
from transformers import CLIPVisionModel, PreTrainedModel
from transformers.utils import cached_file

from qlip.core.position import Position
from qlip.encoder import QlipVisionModel, QlipVisionOutput
from qlip.images.pixels import to_batch, token_counts
from qlip.towers.offload import onloaded
from qlip.zoo.position_file import POSITION_FILE, check_writable, read_position, write_position

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
Class = TypeVar("Class", bound=type)


def answers_to(original: type) -> Callable[[Class], Class]:
    """Give a subclass its parent's name: pipelines, trainers and quantisers go by ``type(model).__name__``.

    Pickle goes by ``__qualname__``, which stays.
    """

    def rename(converted: Class) -> Class:
        converted.__name__ = original.__name__
        return converted

    return rename


@dataclass
class Encoding:
    """What a converted model needs besides its own weights.

    Held outside the module tree: so ``state_dict`` and ``parameters`` stay the original's, and ``model.to(bfloat16)``
    leaves the position in float32.
    """

    position: Position

    def encode(self, tower: CLIPVisionModel, pixel_values: Any, **options: bool) -> tuple[QlipVisionOutput, list[int]]:
        """Run the tower on ``pixel_values``; also the number of patches of each image."""
        embeddings = tower.embeddings
        with onloaded(embeddings):
            device = embeddings.class_embedding.device
        if isinstance(self.position, nn.Module):
            self.position.to(device)  # follows the tower, wherever it was moved since; does nothing if it is there
        batch = to_batch(pixel_values).to(device)
        return QlipVisionModel(tower, self.position)(batch, **options), token_counts(pixel_values)


class Converted:
    """What whole models have in common once they are converted: a position, and how they are saved and loaded.

    Modifications of `transformers.PreTrainedModel` (5.17 to 5.23):
    - ``save_pretrained`` writes the original's checkpoint, and the position beside it in ``qlip.safetensors``;
    - ``from_pretrained`` reads the two together.
    """

    original: ClassVar[type[PreTrainedModel]]
    qlip: Encoding

    @classmethod
    def attach(cls, model: Any, position: Position) -> Any:
        """Switch a model of the original class to this one, in place, and return it."""
        model.qlip = Encoding(position)
        model.__class__ = cls
        return model

    def detach(self) -> Any:
        """Undo `attach`, in place, and return the model."""
        del self.qlip
        self.__class__ = self.original  # type: ignore[assignment]
        return self

    @contextmanager
    def as_original(self) -> Iterator[Any]:
        """Within this context the model is what it was before `attach`."""
        cls, position = type(self), self.position
        self.detach()
        try:
            yield self
        finally:
            cls.attach(self, position)

    @property
    def position(self) -> Position:
        """Encodings of coordinates; in float32, not among ``parameters()``."""
        return self.qlip.position

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save for `from_pretrained` of this class, and of the original's.

        Args:
            save_directory: Gets the original's checkpoint and ``qlip.safetensors``.
            kwargs: As in transformers.

        Raises:
            TypeError: if the position is a function.
            ValueError: if ``push_to_hub`` is given, which would upload before the position is there.
        """
        if kwargs.pop("push_to_hub", False):
            raise ValueError("push_to_hub: got True; save here first, then call model.push_to_hub(repository)")
        check_writable(self.position)
        with self.as_original() as original:
            # transformers renames tensors back to the checkpoint's names, but not for classes that are not its own
            original.save_pretrained(save_directory, **kwargs)
        if kwargs.get("is_main_process", True):
            write_position(Path(save_directory) / POSITION_FILE, self.position)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Load what `save_pretrained` wrote, from a folder or the Hub.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            args: As in transformers.
            kwargs: As in transformers.

        Raises:
            OSError: if there is no checkpoint, or no ``qlip.safetensors`` with it.
        """
        position = read_position(find_file(pretrained_model_name_or_path, POSITION_FILE, kwargs))
        loaded = cls.original.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if isinstance(loaded, tuple):  # output_loading_info=True
            return cls.attach(loaded[0], position), *loaded[1:]
        return cls.attach(loaded, position)


def find_file(source: str | Path, name: str, options: Mapping[str, Any]) -> str:
    """Path of a file of ours in a folder or Hub repository, downloaded if need be.

    Args:
        source: Folder or Hub id.
        name: Of the file.
        options: Those of ``from_pretrained``; the ones about the Hub are heeded.

    Raises:
        OSError: if it is not there.
    """
    return str(cached_file(str(source), name, **{key: options[key] for key in HUB_OPTIONS if key in options}))
