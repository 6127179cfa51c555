"""A converted model as a model of lmms-eval (extra ``lmms-eval``): ``--model qlip``.

    lmms-eval --model qlip --model_args pretrained=llava-hf/llava-1.5-7b-hf,size=476,alpha=1.3 --tasks vstar_bench

lmms-eval finds it through the entry point ``lmms_eval.models``. Prompts, data and parsers are the harness's own there.
"""

from collections.abc import Callable
from itertools import takewhile
from typing import Any, Protocol, TypedDict

import torch
from accelerate import Accelerator
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from torch import nn

from qlip.core.rules import listed
from qlip.evaluation.cell import Vision
from qlip.evaluation.names import Dtype
from qlip.evaluation.run.arm import load_arm
from qlip.images.read import ImageLike

AUTO = 64  # questions that ``batch_size=auto`` begins with
MANIFEST = ModelManifest("qlip", simple_class_path="qlip.evaluation.run.harness.QlipLlava")


class Generation(TypedDict, total=False):
    """How a task wants its answers generated; what else it says is about sampling, and answers are greedy here."""

    max_new_tokens: int
    until: str | list[str]


class Request(Protocol):
    """A question of lmms-eval: its prompt, how to generate, how to find the images of a document, if any, and which document."""

    args: tuple[str, Generation, Callable[[object], list[ImageLike] | None], int, str, str]


class QlipLlava(lmms):
    """A model of images and words, converted, or stock with ``baseline``; the same arm as ``evaluate.py vqa`` measures.

    Args:
        pretrained: Hub id or folder of a model of a family in docs/models.md.
        revision: Commit, branch or tag of a Hub id; the newest commit if not given.
        dtype: Number format that the weights are loaded in: float32, bfloat16 or float16.
        device: Device to compute on, as torch names it; started by ``accelerate launch``, each process takes its own.
        batch_size: Number of questions in a batch; ``auto`` halves it whenever memory ends.
        max_batch_size: What ``auto`` begins with, 64 if not given.
        force_simple: What lmms-eval adds on its own; it has no meaning here.
        vision: Fields of `Vision`: baseline, position, size, crop, alpha, max_tokens, criterion, cover, fit, weighting, seed.
    """

    def __init__(
        self,
        pretrained: str = "llava-hf/llava-1.5-7b-hf",
        revision: str | None = None,
        dtype: Dtype = "bfloat16",
        device: str = "cuda",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        force_simple: bool = False,
        **vision: Any,
    ) -> None:
        super().__init__()
        unknown = sorted(vision.keys() - Vision.__dataclass_fields__.keys())
        if unknown:
            raise ValueError(f"model_args: got {listed(unknown)}; takes {', '.join(Vision.__dataclass_fields__)}")
        self.accelerator = Accelerator()  # lmms-eval deals the questions out among processes, and gathers with it
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device if self._world_size > 1 else torch.device(device)
        self.halving = str(batch_size).startswith("auto")
        self.batch_size = int(max_batch_size or AUTO) if self.halving else int(batch_size)
        self.arm = load_arm(pretrained, Vision(**vision), revision, dtype)
        model: nn.Module = self.arm.model
        model.to(self.device)

    def generate_until(self, requests: list[Request]) -> list[str]:
        """Greedy answers, in the order of the requests; neighbours that are to be generated alike share a batch.

        Raises:
            torch.OutOfMemoryError: if a batch does not fit and its size is fixed, or a single question does not.
        """
        answers: list[str] = []
        while len(answers) < len(requests):
            first, *others = requests[len(answers) : len(answers) + self.batch_size]
            batch = [first, *takewhile(lambda other: other.args[1] == first.args[1], others)]  # noqa: B023  used at once
            if not self._fits(batch, answers):
                self.batch_size = len(batch) // 2
        return answers

    def _fits(self, batch: list[Request], answers: list[str]) -> bool:
        """Append the answers to a batch, unless memory ends and the batch may be halved."""
        try:
            answers += self._answer(batch)
        except torch.OutOfMemoryError:
            if not self.halving or len(batch) == 1:
                raise
            return False
        return True

    @torch.no_grad()
    def _answer(self, batch: list[Request]) -> list[str]:
        items = []
        for context, _, to_visual, document, task, split in (request.args for request in batch):
            images = to_visual(self.task_dict[task][split][document]) or []
            question = context.replace("<image>", "").strip()
            items.append(self.arm.prepare(images, self.arm.prompt(question, "llava", len(images)), 0))
        inputs = self.arm.to(self.arm.collate(items), self.device)
        generation = batch[0].args[1]
        tokens = self.arm.model.generate(
            **inputs, max_new_tokens=generation.get("max_new_tokens", 128), do_sample=False
        )
        longest = max(len(item.input_ids) for item in items)
        return [_until(text, generation.get("until") or []) for text in self.arm.decode(tokens[:, longest:])]

    def loglikelihood(self, requests: list[Request]) -> list[tuple[float, bool]]:
        """Not asked for by the paper's seven tasks.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("loglikelihood: qlip answers tasks that generate; V* by likelihood is evaluate.py's")

    def generate_until_multi_round(self, requests: list[Request]) -> list[str]:
        """Not asked for by the paper's seven tasks.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("generate_until_multi_round: qlip answers tasks of one round")


def _until(text: str, ends: str | list[str]) -> str:
    """The text before the first of the ends."""
    for end in [ends] if isinstance(ends, str) else ends:
        text = text.split(end)[0] if end else text
    return text
