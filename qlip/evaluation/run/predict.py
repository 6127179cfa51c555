"""Asking questions with Lightning: batches sorted by tokens, shared out over devices, every answer on disk at once."""

import copy
import logging
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from qlip.evaluation.benchmarks.base import Benchmark, Question, Record
from qlip.evaluation.benchmarks.source import Source
from qlip.evaluation.journal import Journal
from qlip.evaluation.names import Style
from qlip.evaluation.run.arm import Arm, Inputs, PreparedQuestion
from qlip.images.read import to_rgb
from qlip.images.worker import keep_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuestionBatch:
    """Questions that are asked together.

    Attributes:
        questions: The questions.
        items: Each question ready for the model, on its own.
        inputs: All of them as one input of the model.
    """

    questions: list[Question]
    items: list[PreparedQuestion]
    inputs: Inputs


class Batches(Sampler[list[int]]):
    """This rank's share of the batches; each item is in one batch of one rank, whatever the count.

    Args:
        costs: Tokens of each item. Items of like cost share a batch, which spares padding; the longest come first, so that
            too large a batch fails at once.
        batch_size: Items in a batch.
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    def __init__(self, costs: Sequence[int], batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        order = sorted(range(len(costs)), key=lambda i: -costs[i])
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        self.batches = batches[rank::world_size]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


Prepared = tuple[Question, PreparedQuestion]


class PreparedQuestions(Dataset[Prepared | None]):
    """Questions as an arm wants them, picture read and cut, prompt in tokens; None where the picture cannot be read."""

    def __init__(self, questions: Sequence[Question], source: Source, arm: Arm, style: Style) -> None:
        self.questions, self.source, self.arm, self.style = questions, source, arm, style

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Prepared | None:
        question = self.questions[index]
        # by its name, so that an answer does not hang on the batch, the rank, or how often a run was stopped
        seed = zlib.crc32(f"{self.arm.vision.seed}:{question.id}".encode())
        try:
            picture = to_rgb(self.source.image(question.row))
        except (OSError, ValueError) as error:
            log.warning("skipping question %s, row %d of %s: %s", question.id, question.row, self.source.origin, error)
            return None
        return question, self.arm.prepare(picture, self.arm.prompt(question.prompt, self.style), seed)


class QuestionData(L.LightningDataModule):
    """The questions still open, agreed on by all ranks.

    Args:
        questions: All questions, answered ones included.
        source: Has their pictures.
        arm: Prepares them for its model.
        style: Whose prompts are used.
        journal: Knows which questions are answered.
        batch_size: Questions in a batch on each device.
        workers: Processes that read and cut pictures.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        source: Source,
        arm: Arm,
        style: Style,
        journal: Journal,
        batch_size: int,
        workers: int,
    ) -> None:
        super().__init__()
        self.questions, self.source, self.arm, self.style, self.journal = questions, source, arm, style, journal
        self.batch_size, self.workers = batch_size, workers

    def predict_dataloader(self) -> DataLoader[Prepared | None]:
        """Batches of open questions, this rank's alone."""
        trainer = self.trainer
        assert trainer is not None, "Lightning attaches one before it asks for batches"
        # One rank reads the journal for all: another may look after the first answers are in and share out differently.
        done = trainer.strategy.broadcast({record["id"] for record in self.journal.recover()})
        questions = [question for question in self.questions if question.id not in done]
        sizes = self.source.sizes()
        costs = [self.arm.cost(*sizes[question.row]) for question in questions]
        dataset = PreparedQuestions(questions, self.source, self.arm, self.style)
        batches = Batches(costs, self.batch_size, trainer.global_rank, trainer.world_size)
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self._collate,
            num_workers=self.workers,
            worker_init_fn=keep_memory,
        )

    def _collate(self, prepared: list[Prepared | None]) -> QuestionBatch | None:
        pairs = [pair for pair in prepared if pair is not None]
        items = [item for _, item in pairs]
        return QuestionBatch([question for question, _ in pairs], items, self.arm.collate(items)) if items else None

    def transfer_batch_to_device(
        self, batch: QuestionBatch | None, device: torch.device, dataloader_idx: int
    ) -> QuestionBatch | None:
        """Move the inputs; questions stay."""
        if batch is None:
            return None
        inputs = super().transfer_batch_to_device(batch.inputs, device, dataloader_idx)
        return QuestionBatch(batch.questions, batch.items, inputs)


class Answering(L.LightningModule):
    """Answers batches greedily and writes each to the journal.

    Args:
        arm: The model with its processor.
        benchmark: Parses the answers.
        style: Whose prompts and parser are used.
        max_new_tokens: Tokens that an answer may have at most.
        journal: Gets the answers.
    """

    def __init__(self, arm: Arm, benchmark: Benchmark, style: Style, max_new_tokens: int, journal: Journal) -> None:
        super().__init__()
        self.arm, self.benchmark, self.style, self.journal = arm, benchmark, style, journal
        self.model, self.max_new_tokens = arm.model, max_new_tokens

    def predict_step(self, batch: QuestionBatch | None, batch_idx: int) -> int:
        """Ask one batch and return the number of its answers; its seconds are shared out equally. None has no questions left."""
        if batch is None:
            return 0
        start = time.perf_counter()
        if batch.questions[0].candidates:
            answers = [self.likeliest(*pair) for pair in zip(batch.questions, batch.items, strict=True)]
        else:
            answers = self.arm.generate(batch.inputs, self.max_new_tokens)
        seconds = (time.perf_counter() - start) / len(answers)
        triples = zip(batch.questions, batch.items, answers, strict=True)
        self.journal.append([self._record(*triple, seconds) for triple in triples])
        return len(answers)

    def likeliest(self, question: Question, item: PreparedQuestion) -> str:
        """The candidate with the lowest mean loss over its tokens (V*'s own way)."""
        return question.candidates[int(self.losses(item, question.candidates).argmin())]

    def losses(self, item: PreparedQuestion, candidates: Sequence[str]) -> Tensor:
        """Mean loss of the tokens of each candidate as an answer, ``(len(candidates),)``.

        The prompt is read once and each candidate is said after it, as an answer would be: in one piece with the prompt,
        families whose prompts look ahead (PaliGemma) would let candidates look ahead too.
        """
        read = self.model(**self.arm.to(item.inputs, self.device), use_cache=True)
        kept = "cache" if "cache" in read else "past_key_values"  # renamed by transformers 5.24
        losses = []
        for candidate in candidates:
            said = self.arm.encode(candidate).to(self.device)
            own = {kept: copy.deepcopy(read[kept])}  # what is said is written to it
            # Without a mask, which families with M-RoPE would take for the places of the whole prompt.
            logits = torch.cat([read.logits[0, -1:], self.model(input_ids=said[None], **own).logits[0, :-1]])
            losses.append(F.cross_entropy(logits.float(), said.to(logits.device)))
        return torch.stack(losses)

    def on_predict_end(self) -> None:
        """Wait until every rank has written its answers."""
        self.trainer.strategy.barrier("answers")

    def _record(self, question: Question, item: PreparedQuestion, raw: str, seconds: float) -> Record:
        parsed = raw if question.candidates else self.benchmark.parse(raw, question.options, self.style)
        return {
            "id": question.id,
            "prompt": question.prompt,
            "raw": raw,
            "parsed": parsed,
            "answer": question.answer,
            "correct": self.benchmark.correct(parsed, question.answer),
            "group": question.group,
            "unit": question.unit or question.id,
            "tokens": item.tokens,
            "baseline_tokens": item.baseline_tokens,
            "prompt_tokens": len(item.input_ids),
            "seconds": round(seconds, 6),
        }
