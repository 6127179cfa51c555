"""Options of the tools: dataclasses of plain values, which load no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qlip.core.names import Cover
from qlip.core.rules import BUDGET, check_fields, numbers, shown
from qlip.evaluation.names import Dtype
from qlip.images.names import Fit


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """How pictures are cut and drawn."""

    size: int | Literal["model"] | None = "model"
    """Shortest edge in pixels that pictures are scaled to; null leaves them at their own size; ``model`` is what the model was made for."""
    alpha: float | None = None
    """Split threshold of the quadtree, in units of the criterion; a larger one gives fewer tokens."""
    max_tokens: int | None = None
    """Tokens that a picture may take at most; if neither this nor alpha is given, those of the stock model."""
    criterion: str = "derivative"
    """Split criterion of the quadtree; with uniform nothing merges."""
    cover: Cover = "full"
    """``full`` lets the borders of a picture merge too; ``roots`` leaves them in single patches, as the paper does."""
    fit: Fit = "prune"
    """How a picture keeps to max_tokens: ``prune`` merges the least deserving blocks at the size that is set; ``scale`` merges what alpha
    says and scales the picture down to the largest size at which that fits."""
    model: str | None = None
    """Whose patches, size and price are taken: pocket-llava, a folder or a Hub id, of which only the configuration is loaded; if not
    given, CLIP ViT-L/14 of 336 pixels, LLaVA-1.5's tower, which needs no download."""
    patch_size: int | None = None
    """Side of a patch in pixels, in place of the 14 of that CLIP."""
    out: Path | None = None
    """PNG file; several pictures go below one another. If not given, each gets PICTURE-qlip.png in the current folder."""

    def __post_init__(self) -> None:
        given = [name for name in ("alpha", "patch_size") if getattr(self, name) is not None]
        check_fields(
            self,
            *given,
            "max_tokens",
            "cover",
            "fit",
            *([] if isinstance(self.size, str) and self.size == "model" else ["size"]),
        )
        if self.model is not None and self.patch_size is not None:
            raise ValueError(
                f"patch_size: got {self.patch_size} with model={self.model!r}, which has its own. Leave one out"
            )


@dataclass(frozen=True)
class TuneConfig:
    """For which pictures, which model and at which price settings are sought."""

    images: str
    """Folder of pictures, searched to any depth, or the name of a source: samples, pocket or imagenette (those held out from
    training)."""
    budget: int | None = None
    """Tokens that a picture may take."""
    share: float | None = None
    """The budget as a share of the stock model's tokens, such as 0.5; of a model that takes pictures as they are, of the median of
    the pictures' own grids. Budget or share must be given."""
    model: str | None = None
    """Whose patches, size and price are taken: pocket-llava, a folder or a Hub id, of which only the configuration is loaded; if not
    given, CLIP ViT-L/14 of 336 pixels, LLaVA-1.5's tower, which needs no download."""
    limit: int | None = 200
    """How many pictures are looked at, drawn at random where there are more; all of them if null."""
    seed: int = 0
    """Seed of that draw."""
    out: Path = Path("results/tune")
    """Folder of results; those of these options go into a folder of their own in it."""
    workers: int = 2
    """Number of processes that measure pictures; 0 does it in the main process."""

    def __post_init__(self) -> None:
        if (self.budget is None) == (self.share is None):
            raise ValueError(
                f"budget: got {self.budget}, and share {self.share}; takes one of the two, such as --share 0.5"
            )
        check_fields(self, "budget", "share", "limit", "seed", "workers")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared."""

    budgets: tuple[int, ...] | None = None
    """Image tokens of each converted arm, such as [64,144]; if not given, a half and a quarter of what the stock model spends."""
    out: Path | None = None
    """Folder that gets the answers and the page; results/compare/QUESTIONS if not given."""

    def __post_init__(self) -> None:
        if self.budgets is not None and numbers(self.budgets, BUDGET) is None:
            given = list(self.budgets) if isinstance(self.budgets, tuple) else self.budgets  # as it is written
            raise ValueError(
                f"budgets: got {shown(given)}; takes whole numbers from 1, at least one, at most {BUDGET.high:,}, such as [64,144]"
            )


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The page of the demo."""

    model: str = "pocket-llava"
    """A model that answers in words about images: pocket-llava, which comes with the package and knows drawn shapes alone, a Hub id or
    a folder."""
    dtype: Dtype = "float32"
    """Number format that the weights are loaded in."""
    device: str = "auto"
    """Device to compute on, as torch names it: ``cuda``, ``cuda:1``, ``cpu``; ``auto`` is CUDA if there is any, else the CPU."""
    port: int | None = None
    """Port of this machine on which the page is served; the first free one from 7860 if not given."""
