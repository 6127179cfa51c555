"""A converted model as a model of lmms-eval (extra ``lmms-eval``): ``--model qlip``.

    lmms-eval --model qlip --model_args pretrained=llava-hf/llava-1.5-7b-hf,size=476,alpha=1.3 --tasks vstar_bench

lmms-eval finds it through the entry point ``lmms_eval.models``. Prompts, data and parsers are the harness's own there.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypedDict

import torch
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from torch import nn

from qlip.evaluation.cell import Vision
from qlip.evaluation.names import Dtype
from qlip.evaluation.run.arm import load_arm
from qlip.images.read import ImageLike

MANIFEST = ModelManifest("qlip", simple_class_path="qlip.evaluation.run.harness.QlipLlava")


class Generation(TypedDict, total=False):
    """How a task wants its answers generated; what else it says is about sampling, and answers are greedy here."""

    max_new_tokens: int
    until: str | list[str]


class Request(Protocol):
    """A question of lmms-eval: its prompt, how to generate, how to find the images of a document, and which document."""

    args: tuple[str, Generation, Callable[[object], list[ImageLike]], int, str, str]


class QlipLlava(lmms):
    """A model of images and words, converted, or stock with ``baseline``; the same arm as ``evaluate.py vqa`` measures.

    Args:
        pretrained: Hub id or folder of a model of a family in docs/models.md.
        revision: Commit, branch or tag of a Hub id; the newest commit if not given.
        dtype: Number format that the weights are loaded in: float32, bfloat16 or float16.
        device: Device to compute on, as torch names it.
        batch_size: Number of questions in a batch.
        vision: Fields of `Vision`: baseline, position, size, crop, alpha, max_tokens, criterion, cover, fit, weighting, seed.
    """

    def __init__(
        self,
        pretrained: str = "llava-hf/llava-1.5-7b-hf",
        revision: str | None = None,
        dtype: Dtype = "bfloat16",
        device: str = "cuda",
        batch_size: int | str = 1,
        **vision: Any,
    ) -> None:
        super().__init__()
        harness = {"max_batch_size", "force_simple"}  # what lmms-eval adds on its own
        fields = {name: value for name, value in vision.items() if name not in harness}
        unknown = sorted(fields.keys() - Vision.__dataclass_fields__.keys())
        if unknown:
            raise ValueError(f"model_args: got {', '.join(unknown)}; takes {', '.join(Vision.__dataclass_fields__)}")
        self.arm = load_arm(pretrained, Vision(**fields), revision, dtype)
        model: nn.Module = self.arm.model
        model.to(device)
        self.where, self.batch_size = device, int(batch_size)

    def generate_until(self, requests: list[Request]) -> list[str]:
        """Greedy answers, in the order of the requests; those that are to be generated alike share a batch."""
        answers: list[str] = []
        for batch in self._batches(requests):
            answers += self._answer(batch)
        return answers

    def _batches(self, requests: list[Request]) -> Iterator[list[Request]]:
        """Neighbours that are to be generated alike, at most ``batch_size`` of them."""
        batch: list[Request] = []
        for request in requests:
            if batch and (len(batch) == self.batch_size or request.args[1] != batch[0].args[1]):
                yield batch
                batch = []
            batch.append(request)
        if batch:
            yield batch

    @torch.no_grad()
    def _answer(self, batch: list[Request]) -> list[str]:
        items = []
        for context, _, to_visual, document, task, split in (request.args for request in batch):
            (image,) = to_visual(self.task_dict[task][split][document])
            question = context.replace("<image>", "").strip()
            items.append(self.arm.prepare(image, self.arm.prompt(question, "llava"), 0))
        inputs = self.arm.to(self.arm.collate(items), self.where)
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
