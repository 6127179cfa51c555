"""The verbs of training, ``fit``, ``validate``, ``test`` and ``predict``: Lightning's own, with its two traps closed."""

import re
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from qlip.configs import find
from qlip.structured import check_configs
from qlip.training.callbacks import QuadtreePreview, Summary, ZooExport
from qlip.training.checkpoint import read_checkpoint
from qlip.training.data import QlipDataModule
from qlip.training.module import QlipModule

LOGS = Path("lightning_logs")
VERBS = ("fit", "validate", "test", "predict")


class ConfigError(ValueError):
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
    held = _flatten(read_checkpoint(path)["hyper_parameters"])
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


def _with_found_recipes(args: list[str]) -> list[str]:
    """``--config quickstart`` to ``--config <the file that comes with qlip>``; YAML on the command line stays as it is."""
    found = []
    for before, arg in zip(["", *args], args, strict=False):
        option, _, value = arg.rpartition("=") if arg.startswith("--config=") else ("", "", arg)
        if (option or before in ("-c", "--config")) and re.fullmatch(r"[\w./][\w./-]*", value):
            arg = f"{option}={find(value, 'recipe')}" if option else str(find(value, "recipe"))
        found.append(arg)
    return found


def run(args: list[str], prog: str) -> None:
    """Run one of Lightning's verbs; with no arguments for the model and the data, ``fit`` is the paper's recipe.

    Args:
        args: The verb and its options.
        prog: Name of the program in messages.

    Raises:
        ConfigError: if the arguments do not go together.
        OSError: if something is not there, also a configuration, or cannot be written; it says what runs without a network.
        argparse.ArgumentError: if an argument is unknown or not taken.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    torch.set_float32_matmul_precision("high")
    args = _with_found_recipes(args)
    check_configs(args)
    command = f"python {prog}" if prog.endswith(".py") else prog
    parsers: dict[str, Any] = {name: {"default_env": False, "exit_on_error": False} for name in VERBS}
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
            parser_kwargs={"prog": prog, "exit_on_error": False, **parsers},
        )
    except SIGTERMException:  # Lightning lets it pass for success
        print(f"stopped by SIGTERM; go on with: {command} fit ... --ckpt_path last", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except MisconfigurationException as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        if "quickstart" in str(error):
            raise
        alone = f"{command} fit --config quickstart, or --model.backbone FOLDER"
        raise OSError(f"{error} Without a network: {alone}") from error
