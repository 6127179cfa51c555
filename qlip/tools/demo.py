"""``qlip demo``: a page to try a model on. Gradio makes the page; what it shows is `Demo`'s."""

import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from PIL import Image

from qlip.data.pictures import small_objects
from qlip.evaluation.cell import Vision
from qlip.evaluation.run.arm import Arm, load_arm
from qlip.images.processor import QlipImageProcessor
from qlip.shipped import is_shipped
from qlip.tools.config import DemoConfig
from qlip.tools.panels import Panels, draw_panels

LONGEST = 128  # tokens of an answer


@dataclass(frozen=True)
class Reply:
    """What one model said.

    Attributes:
        text: Its answer.
        tokens: Image tokens that it read.
        seconds: Time that it took, preparing the picture not included.
    """

    text: str
    tokens: int
    seconds: float


class Demo:
    """One model, stock and converted by turns: both have the same weights, which are loaded once.

    Args:
        config: Which model, and where it computes.

    Raises:
        OSError: if there is no such model.
        ValueError: if it cannot be converted.
    """

    def __init__(self, config: DemoConfig) -> None:
        self.config = config
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = auto if config.device == "auto" else config.device
        self.lock = Lock()  # a page serves several people, and the model is one thing at a time
        with self.lock:
            self.settings: QlipImageProcessor = self._arm(Vision()).processor.image_processor.settings
            side = self.settings.size or 4 * self.settings.quadtree.patch_size
            self.stock_tokens = self._arm(Vision(baseline="own")).stock.tokens(side, side)

    def look(self, picture: Image.Image, vision: Vision) -> Panels:
        """What the tokens of a picture hold.

        Raises:
            ValueError: if an option is not taken, or the picture is too large.
        """
        size = self.settings.size if vision.size == "model" else vision.size
        options: dict[str, Any] = {"alpha": vision.alpha, "max_tokens": vision.max_tokens, "size": size}
        return draw_panels(picture, self.settings.with_options(**options, criterion=vision.criterion, fit=vision.fit))

    def ask(self, picture: Image.Image, question: str, vision: Vision) -> tuple[Reply, Reply]:
        """The answers of the stock model and the converted one.

        Raises:
            ValueError: if an option is not taken, or the picture is too large.
        """
        with self.lock:
            return self._reply(Vision(baseline="own"), picture, question), self._reply(vision, picture, question)

    def _arm(self, vision: Vision) -> Arm:
        arm = load_arm(self.config.model, vision, dtype=self.config.dtype)
        arm.model.to(self.device)
        return arm

    @torch.inference_mode()
    def _reply(self, vision: Vision, picture: Image.Image, question: str) -> Reply:
        arm = self._arm(vision)
        item = arm.prepare(picture, arm.prompt(question, "llava"), vision.seed)
        start = time.perf_counter()
        (text,) = arm.generate(arm.collate([item]), LONGEST)
        return Reply(text, item.tokens, time.perf_counter() - start)


def first(model: str) -> tuple[Image.Image | None, str]:
    """A picture and a question to begin with: a drawn scene for the pocket models, which know nothing else."""
    if not is_shipped(model):
        return None, ""
    picture, scene = next(small_objects(1, seed=3))
    return picture, f"What is the color of the {scene[0].shape}?"
