"""The command line ``python -m recipes.pocket``: train the models from a seed, check them, draw scenes to look at, write questions."""

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeVar

import lightning as L
import torch
from jsonargparse import auto_cli, set_parsing_settings
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Column, Table
from safetensors.torch import load_file, save_file
from torchvision.utils import make_grid, save_image
from transformers import (
    CLIPModel,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    ProcessorMixin,
    Qwen2VLForConditionalGeneration,
)

from qlip.data.sources import list_pictures
from qlip.evaluation.benchmarks.pocket import write_pope, write_vstar
from qlip.files import making_folder, replacing_folder, sha256, write_text
from qlip.shipped import shipped
from recipes.pocket.card import clip_card, llava_card, qwen_card
from recipes.pocket.check import check_clip, check_llava, check_qwen
from recipes.pocket.clip import CLIP_SCHEDULE, PocketClip, Readouts
from recipes.pocket.models import WIDTH, clip_processor, llava_processor, qwen_processor
from recipes.pocket.qwen import QWEN_SCHEDULE, PocketQwen
from recipes.pocket.reader import READER_SCHEDULE, PocketReader
from recipes.pocket.run import PocketRun, Schedule, draw_training_scenes

CLIP, LLAVA, QWEN, READOUTS = "pocket-clip", "pocket-llava", "pocket-qwen", "readouts.safetensors"
Model = TypeVar("Model", bound=PreTrainedModel)


def train(
    out: Path = Path("checkpoints/pocket"),
    seed: int = 0,
    clip: Schedule = CLIP_SCHEDULE,
    reader: Schedule = READER_SCHEDULE,
    width: int = WIDTH,
    scenes: int = 500,
) -> None:
    """Train pocket-clip and pocket-llava; a run that was stopped goes on where it stopped, and a finished model is not trained again.

    Args:
        out: Folder that gets the two models.
        seed: Seed of weights and scenes.
        clip: Schedule of pocket-clip.
        reader: Schedule of pocket-llava's projector and language model.
        width: Of the hidden states of pocket-llava's language model, at least 36, a multiple of 8.
        scenes: Number of fresh scenes that the finished models are measured on, a multiple of 100.
    """
    out.mkdir(parents=True, exist_ok=True)
    measured = {}
    if not (out / CLIP).is_dir():
        clip_run = PocketClip(clip, seed)
        fit(clip_run, out / "run-clip")
        save_file(clip_run.readouts.state_dict(), out / READOUTS)
        measured[CLIP] = check_clip(round_weights(clip_run.clip), scenes)
        save_model(clip_run.clip, clip_processor(), out / CLIP, clip_card(measured[CLIP], seed, clip))
    readouts = Readouts()
    readouts.load_state_dict(load_file(out / READOUTS))
    trained = CLIPModel.from_pretrained(out / CLIP, dtype=torch.float32)
    if not (out / LLAVA).is_dir():
        reader_run = PocketReader(trained.vision_model, readouts, reader, seed, width)
        fit(reader_run, out / "run-llava")
        measured[LLAVA] = check_llava(round_weights(reader_run.llava), scenes)
        save_model(reader_run.llava, llava_processor(), out / LLAVA, llava_card(measured[LLAVA], seed, reader))
    show(out, measured)


def train_qwen(
    out: Path = Path("checkpoints/pocket"),
    clip: str = CLIP,
    seed: int = 0,
    schedule: Schedule = QWEN_SCHEDULE,
    scenes: int = 500,
) -> None:
    """Train pocket-qwen; a run that was stopped goes on where it stopped, and a finished model is not trained again.

    Args:
        out: Folder that gets the model.
        clip: Whose tower it starts from: a folder that `train` made, or pocket-clip, which comes with the package.
        seed: Seed of weights and scenes.
        schedule: Its schedule; batch_size is the most scenes of a step, for large ones are fewer.
        scenes: Number of fresh scenes that the finished model is measured on, a multiple of 100.
    """
    out.mkdir(parents=True, exist_ok=True)
    measured = {}
    if not (out / QWEN).is_dir():
        tower = CLIPModel.from_pretrained(shipped(clip), dtype=torch.float32).vision_model
        run = PocketQwen(tower, schedule, seed)
        fit(run, out / "run-qwen")
        measured[QWEN] = check_qwen(round_weights(run.qwen), scenes)
        save_model(run.qwen, qwen_processor(), out / QWEN, qwen_card(measured[QWEN], seed, schedule))
    show(out, measured)


def check(folder: Path = Path("checkpoints/pocket"), scenes: int = 500) -> None:
    """Measure the models in a folder on fresh scenes of sizes they were trained on, and print their sha256.

    Args:
        folder: Folder that `train` or `train-qwen` put models into.
        scenes: Number of scenes, a multiple of 100.

    Raises:
        FileNotFoundError: if it holds none of them.
    """
    measures: dict[str, tuple[type[PreTrainedModel], Callable[[Any, int], dict[str, float]]]] = {
        CLIP: (CLIPModel, check_clip),
        LLAVA: (LlavaForConditionalGeneration, check_llava),
        QWEN: (Qwen2VLForConditionalGeneration, check_qwen),
    }
    measured = {
        name: measure(kind.from_pretrained(folder / name, dtype=torch.float32), scenes)
        for name, (kind, measure) in measures.items()
        if (folder / name).is_dir()
    }
    if not measured:
        raise FileNotFoundError(f"folder: got {folder}, which holds none of {', '.join(measures)}")
    show(folder, measured)


def show(folder: Path, measured: Mapping[str, Mapping[str, float]]) -> None:
    """Print what was measured of models in a folder, and their sha256; or, of models that were there before, how to measure them."""
    if not measured:
        Console().print(
            f"{folder}: trained before; python -m recipes.pocket check --folder {folder} measures again",
            soft_wrap=True,
        )
        return
    table = Table("model", "measure", Column("value", overflow="fold"))
    for name, metrics in measured.items():
        for measure, value in metrics.items():
            table.add_row(name, measure, f"{value:.3f}")
        table.add_row(name, "sha256", sha256(folder / name / "model.safetensors"))
    Console().print(table)


def draw(out: Path = Path("scenes.png"), count: int = 24, texture: float = 0.5, seed: int = 0) -> None:
    """Draw scenes as in training into one picture.

    Args:
        out: File that the picture is written to.
        count: Number of scenes.
        texture: Share of them, from 0 to 1, that lie over photographs and textures.
        seed: Seed of the scenes.
    """
    generator, random = torch.Generator().manual_seed(seed), Random(f"background {seed}")
    scenes = draw_training_scenes(count, texture, generator, random, seed)
    save_image(make_grid(scenes.images, nrow=8), out)


def questions(benchmark: Literal["vstar-photo", "pope-photo"], backgrounds: Path, out: Path) -> None:
    """Write the questions of a photo benchmark with other photographs behind the same objects.

    ``evaluate.py vqa --benchmark NAME --data OUT`` asks them.

    Args:
        benchmark: Whose questions are written.
        backgrounds: Folder of photographs, which is searched recursively.
        out: Folder that is made and gets questions and pictures.

    Raises:
        FileNotFoundError: if the folder of photographs is none or holds none.
        FileExistsError: if the folder to write is there.
        OSError: if a photograph cannot be read.
    """
    photographs = list_pictures(str(backgrounds), option="backgrounds")
    if out.exists():
        raise FileExistsError(f"out: got {out}, which is there already; takes a folder that is not")
    with making_folder(out) as folder:
        (write_vstar if benchmark == "vstar-photo" else write_pope)(folder, photographs)


def fit(module: PocketRun, folder: Path) -> None:
    """Train to the end of the module's schedule, from the last checkpoint in ``folder`` if there is one."""
    last = folder / "last.ckpt"
    checkpoint = ModelCheckpoint(folder, every_n_train_steps=50, save_last=True, save_top_k=1, save_on_exception=True)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=module.schedule.steps,
        log_every_n_steps=10,
        callbacks=[checkpoint, RichProgressBar()],
        logger=TensorBoardLogger(folder, name="", version=""),
        enable_model_summary=False,
    )
    trainer.fit(module, ckpt_path=last if last.is_file() else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt


@torch.no_grad()
def round_weights(model: Model) -> Model:
    """Round float32 weights to float16, in which they are saved, so that what is measured is what is shipped.

    Buffers, such as rotary frequencies, are not rounded: they are made anew on loading.
    """
    for parameter in model.parameters():
        parameter.copy_(parameter.half())
    return model


def save_model(model: PreTrainedModel, processor: ProcessorMixin, folder: Path, card: str) -> None:
    """Write a model (in float16), its processor and its card to one folder, which appears whole or not at all."""
    with replacing_folder(folder) as new:
        model.eval().half().save_pretrained(new)
        model.float()
        processor.save_pretrained(new)
        write_text(new / "README.md", card)
        for file in new.iterdir():
            file.chmod(0o644)  # safetensors writes weights that nobody but the user may read


def main(args: list[str] | None = None) -> None:
    """Run the command line with the given arguments, or those of the process."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    auto_cli(
        {"train": train, "train-qwen": train_qwen, "check": check, "draw": draw, "questions": questions},
        args=args,
        as_positional=False,
        prog="python -m recipes.pocket",
    )
