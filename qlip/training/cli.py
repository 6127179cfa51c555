"""The command line of ``train.py``: Lightning's own, with its two traps closed."""

import logging
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.logging import RichHandler

from qlip.training.callbacks import QuadtreePreview, Summary, ZooExport
from qlip.training.data import QlipDataModule
from qlip.training.module import QlipModule

LOGS = Path("lightning_logs")


class ConfigError(Exception):
    """The command line asks for something that cannot be; the message says what to do."""


class QlipCLI(LightningCLI):
    """LightningCLI with these changes (lightning 2.6).

    - ``--ckpt_path last`` is the newest resumable checkpoint under ``lightning_logs``, also after a crash.
    - ``--ckpt_path X --model.lr Y`` stops where Y differs from what X was trained with; Lightning keeps X's in silence.
    - Unwritten defaults: TensorBoard, rich progress, checkpoints that survive Ctrl-C, zoo export, closing table.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our callbacks, each configurable under its own name."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                # No monitor: with one, Lightning writes last.ckpt only when the metric improves, and a killed run loses the
                # rest. The best weights are ZooExport's business.
                "checkpoint.filename": "epoch={epoch}-step={step}",
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.save_last": True,
                "checkpoint.save_on_exception": True,
            }
        )
        parser.add_lightning_class_args(ZooExport, "export")
        parser.add_lightning_class_args(QuadtreePreview, "preview")

    def after_fit(self) -> None:
        """Print the closing table."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Summary):
                callback.report(self.trainer, self.model, self.datamodule)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, then resolve ``last`` and refuse what a checkpoint would silently override."""
        super().parse_arguments(parser, args)
        command = self.config.get("subcommand")
        if command and self.config[command].get("ckpt_path") == "last":
            self.config[command].ckpt_path = str(newest_checkpoint())
        path = self.config[command].get("ckpt_path") if command else None
        if path and Path(path).is_file():
            asked = parser.parse_args(args, defaults=False)[command]  # type: ignore[arg-type]
            refuse_overrides(path, asked.get("model"))


def newest_checkpoint(logs: Path = LOGS) -> Path:
    """The most recently written resumable checkpoint of any run.

    Raises:
        ConfigError: if there is none.
    """
    found = sorted(logs.glob("version_*/checkpoints/last*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigError(f"ckpt_path: got 'last', but there is no checkpoint under {logs}; start without --ckpt_path")
    return found[-1]


def refuse_overrides(path: str, asked: Namespace | None) -> None:
    """Stop where the user asks for other hyperparameters than the checkpoint holds; Lightning would keep the latter.

    Args:
        path: The checkpoint.
        asked: Only those arguments of the model that the user gave.

    Raises:
        ConfigError: naming each argument, what was asked and what the checkpoint holds.
    """
    saved = torch.load(path, weights_only=True, map_location="cpu").get("hyper_parameters", {})
    held = _flatten(saved)
    wanted = _flatten(asked.as_dict() if asked else {})
    changed = [
        f"--model.{name} {value!r} (the checkpoint has {held[name]!r})"
        for name, value in wanted.items()
        if name in held and held[name] != value
    ]
    if changed:
        raise ConfigError(
            f"ckpt_path: {path} goes on with its own hyperparameters and would ignore {', '.join(changed)}. Leave these "
            f"arguments out to resume, or leave --ckpt_path out to start anew"
        )


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"mlp": {"depth": 4}}`` to ``{"mlp.depth": 4}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def main(args: ArgsType = None) -> None:
    """Run the command line; with no arguments for the model and the data, ``fit`` is the paper's recipe."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[RichHandler(show_path=False)])
    logging.getLogger("qlip").setLevel(logging.INFO)
    advert = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    advert.addFilter(lambda record: "litlogger" not in record.getMessage())
    torch.set_float32_matmul_precision("high")
    warnings.filterwarnings("ignore", message="Found .* module.* in eval mode")  # the frozen CLIP is meant to be
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)")
    try:
        QlipCLI(
            QlipModule,
            QlipDataModule,
            args=args,
            load_from_checkpoint_support=False,
            trainer_defaults={
                "max_epochs": 100,
                "logger": {"class_path": "TensorBoardLogger", "init_args": {"save_dir": ".", "name": str(LOGS)}},
                "log_every_n_steps": 10,
                "use_distributed_sampler": False,  # our sampler shares out its batches itself
                "num_sanity_val_steps": -1,  # a whole validation before the first step: the "before" of the closing table
                "enable_model_summary": False,
                "callbacks": [LearningRateMonitor("step"), Summary()],
            },
            parser_kwargs={name: {"default_env": False} for name in ("fit", "validate", "test", "predict")},
        )
    except SIGTERMException:  # Lightning lets it pass for success
        Console(stderr=True).print("stopped by SIGTERM; go on with: python train.py fit ... --ckpt_path last")
        sys.exit(128 + signal.SIGTERM)
    except (ConfigError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError) and "quickstart" not in message:
            message += (
                " Without a network: python train.py fit --config configs/quickstart.yaml, or --model.backbone FOLDER"
            )
        Console(stderr=True).print(f"train.py: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
