"""The vision tower of a model without words, taking patches and leaves in place of pixels."""

from typing import Any

import torch
from torch import Tensor

from qlip.encoder import QlipVisionOutput, mean_of_patches
from qlip.families.inner import Encoding, Renamed
from qlip.images.pixels import PixelValues, to_batch
from qlip.towers.base import find_tower


class ConvertedTower(Renamed):
    """A vision tower inside a whole model, which calls it as before: heads, losses and outputs stay transformers' own.

    Modifications of the towers' classes (transformers 5.23 to 5.24):
    - ``pixel_values`` is a pair for each image (see `qlip.images.pixels`), or a `PatchBatch`;
    - options about pixels and positions have no meaning.
    """

    qlip: Encoding

    def __call__(self, pixel_values: PixelValues, *unused: Any, **options: Any) -> QlipVisionOutput:
        """Encode images; not in ``forward``, which accelerate replaces on instances.

        Args:
            pixel_values: A pair for each image, in a `PerImage` or a list; or a `PatchBatch`.
            unused: Masks and shapes of pixels.
            options: ``output_hidden_states``; transformers' other options have no meaning here.
        """
        self.check_alone()
        batch = to_batch(pixel_values)
        output, _ = self.qlip.encode(self, batch, output_hidden_states=bool(options.get("output_hidden_states")))
        assert output.last_hidden_state is not None
        output.last_hidden_state = self.shown(output.last_hidden_state, batch)  # type: ignore[assignment]
        return output

    def shown(self, states: Tensor, batch: Any) -> Tensor:
        """What the model's head is shown of the last states ``(B, F + N, D)``, zero where padded: all of them."""
        return states


class AveragedTower(ConvertedTower):
    """The tower of a model whose head takes the mean of all patches: of the leaves, counted as the tower's attention counts them."""

    def shown(self, states: Tensor, batch: Any) -> Tensor:
        """The tower's first tokens and the mean in place of the patches, ``(B, F + 1, D)``; the head's own mean is then this one."""
        first = find_tower(self).prefix_length
        mean = mean_of_patches(states[:, first:], batch, self.qlip.weighting)
        return torch.cat([states[:, :first], mean[:, None]], dim=1)
