"""LLaVA-NeXT with images of any size: the whole picture, small, then one tree of the large one in place of tiles.

A newline stands where the reading order goes down, so that uniform leaves are read as the rows of one tile. Where transformers
makes several tiles the two differ: each tile has the positions of a whole picture, the tree has those of the large one.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
import transformers
from torch import Tensor

from qlip.core.position import Position
from qlip.encoder import Weighting
from qlip.families.lines import WholeAndTree, line_lengths, whole_side
from qlip.families.llava_base import LlavaGenerative, TiledLlavaInner, select_strategy
from qlip.families.processor import PromptProcessor
from qlip.images.pixels import PerImage, PixelValues, to_pairs
from qlip.images.processor import QlipImageProcessor
from qlip.towers.base import Tower, onloaded


def by_image(pixel_values: PixelValues) -> list[tuple[Any, Any]]:
    """The whole and the tree of each image."""
    pairs = to_pairs(pixel_values)
    return list(zip(pairs[::2], pairs[1::2], strict=True))


class Sized(list[Any]):
    """Pictures that can say how many they are as a tensor would; LLaVA-NeXT asks."""

    def size(self, dim: int) -> int:
        """How many."""
        return len(self)


def check_strategy(strategy: str, tower: Tower) -> str:
    """The strategy, unless it shows the class token among the lines of a picture; transformers fails there too.

    Raises:
        ValueError: if it does.
    """
    if strategy == "full" and tower.prefix_length:
        raise ValueError(
            "vision_feature_select_strategy: got 'full', which keeps the class token of a tower that has one; LLaVA-NeXT has no "
            "place for it among the lines of a picture. Set it to 'default' in the model's configuration"
        )
    return strategy


if hasattr(transformers, "LlavaNextModel"):

    class QlipLlavaNextProcessor(
        PromptProcessor, transformers.LlavaNextProcessor, original=transformers.LlavaNextProcessor
    ):
        """LLaVA-NeXT's processor for images of any size, without tiles.

        Modifications of `transformers.LlavaNextProcessor` (5.23 to 5.24), besides those of `PromptProcessor`:
        - ``pixel_values`` holds two pairs for each image, see `WholeAndTree`; ``max_tokens`` bounds the tree with its newlines,
          and the small picture's tokens come on top, as many for every image.
        """

        image_processor: WholeAndTree

        @classmethod
        def convert(cls, processor: Any, settings: QlipImageProcessor) -> Self:
            """A new processor; the given one stays as it is. See `ConvertedProcessor.convert`."""
            new = super().convert(processor, settings)
            new.image_processor = WholeAndTree(settings, whole_side(processor.image_processor))
            return new

        @classmethod
        def template_of(cls, processor: Any) -> str:
            """A placeholder and nothing around it; older processors lack the patch size and could not say how many."""
            return processor.image_token

        @property
        def extra_tokens(self) -> int:
            """Tokens of the small picture."""
            return (self.image_processor.side // self.image_processor.settings.quadtree.patch_size) ** 2

        def tokens_of(self, image: Any) -> int:
            """Placeholders of an image: the whole, and the tree with its newlines."""
            whole, (_, leaves) = image
            return len(whole[1]) + len(leaves) + len(line_lengths(leaves[:, 0]))

    class QlipLlavaNextModel(TiledLlavaInner, transformers.LlavaNextModel, original=transformers.LlavaNextModel):
        """LLaVA-NeXT without its head, taking patches and leaves."""

        @property
        def fixed_tokens(self) -> int:
            """Features of the small picture."""
            vision = self.config.vision_config
            return (vision.image_size // vision.patch_size) ** 2

        def __call__(self, input_ids: Any = None, pixel_values: Any = None, *args: Any, **kwargs: Any) -> Any:
            """Check the placeholders, then run."""
            counted = Sized(pixel_values) if isinstance(pixel_values, list | tuple | PerImage) else pixel_values
            return super().__call__(input_ids, counted, *args, **kwargs)

        def _strategy(self, asked: str | None) -> str:
            """What is done with the class token: it is dropped, where there is one."""
            return check_strategy(super()._strategy(asked), self.tower)

        def feature_counts(self, pixel_values: PixelValues, options: Mapping[str, Any]) -> list[int]:
            """Features of each image: of the whole, and of the tree with its newlines."""
            lines = [len(line_lengths(leaves[:, 0])) for _, (_, leaves) in by_image(pixel_values)]
            counts = super().feature_counts(pixel_values, options)
            return [sum(each) for each in zip(counts[::2], counts[1::2], lines, strict=True)]

        def finish(self, features: list[Tensor], pixel_values: PixelValues) -> list[Tensor]:
            """The whole, then the lines of the tree with a newline after each."""
            with onloaded(self):
                newline = self.image_newline[None].to(features[0])
            finished = []
            for whole, tree, (_, (_, leaves)) in zip(
                features[::2], features[1::2], by_image(pixel_values), strict=True
            ):
                lines = tree.split(line_lengths(leaves[:, 0]))
                finished.append(torch.cat([whole, *(part for line in lines for part in (line, newline))]))
            return finished

    class QlipLlavaNextForConditionalGeneration(
        LlavaGenerative,
        transformers.LlavaNextForConditionalGeneration,
        original=transformers.LlavaNextForConditionalGeneration,
    ):
        """LLaVA-NeXT with images of any size."""

        processor_class, inner_class = QlipLlavaNextProcessor, QlipLlavaNextModel

        @classmethod
        def attach(
            cls, model: Any, position: Position | None, weighting: Weighting = "once", train_position: bool = False
        ) -> Self:
            """Switch a model and its inner model, in place, and return it; refused where `check_strategy` says so."""
            check_strategy(select_strategy(model.config), cls.tower_of(model))
            return super().attach(model, position, weighting, train_position)

        @classmethod
        def size_of(cls, model: Any) -> int:
            """Shortest edge of the largest square that transformers' tiles can make."""
            return max(min(height, width) for height, width in model.config.image_grid_pinpoints)

        @classmethod
        def stock_tokens(cls, model: Any, processor: Any) -> int:
            """What the smallest of transformers' tilings takes, besides the small whole picture."""
            patch = cls.patch_size_of(model)
            return min((height // patch) * (width // patch) for height, width in model.config.image_grid_pinpoints)
