"""The verbs of training, ``fit``, ``validate``, ``test`` and ``predict``: Lightning's own, with its two traps closed."""

import re
import signal
import sys
from argparse import ArgumentError
from typing import Any

import torch
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from qlip.configs import find
from qlip.core.rules import shown
from qlip.structured import check_configs
from qlip.training.callbacks import Interruption, QuadtreePreview, ResidualProjection, Summary
from qlip.training.checkpoint import read_checkpoint
from qlip.training.data import QlipDataModule
from qlip.training.export import ZooExport
from qlip.training.module import QlipModule
from qlip.training.resume import LOGS, ConfigError, check_path, newest_run, refuse_differences, refuse_overrides
from qlip.training.screen import ProgressBar, RunLogger

PRECISIONS = ("32-true", "bf16-mixed", "32", "bf16")  # the last two are other names of the first
BARE = (
    "log_every_n_steps",
    "num_sanity_val_steps",
    "enable_model_summary",
)  # our defaults that a bare trainer takes none of
RUN_LOGGER = f"{RunLogger.__module__}.{RunLogger.__qualname__}"
VERBS = ("fit", "validate", "test", "predict")


def check_precision(precision: object) -> None:
    """Check that a training can be done in a precision.

    Raises:
        ConfigError: if not, and why.
    """
    if precision is not None and str(precision) not in PRECISIONS:
        raise ConfigError(
            f"trainer.precision: got {shown(precision)}; takes {', '.join(PRECISIONS)}. In float16 the gradients of a micro-batch would "
            f"be lost before Lightning scales the loss, and the coordinate MLP needs its weights in float32"
        )


class SaveRun(SaveConfigCallback):
    """Keep the options of a fit with its logs: by them it is known for a run that can go on."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save them, if this is a fit and there are logs."""
        if stage == "fit" and trainer.loggers:
            super().setup(trainer, pl_module, stage)


class QlipCLI(LightningCLI):
    """LightningCLI with these changes (lightning 2.6).

    - ``fit --ckpt_path last`` is the newest run under ``lightning_logs`` with its own options, also after a crash; for the other
      verbs it is that run's checkpoint. Other options are refused.
    - A checkpoint is a file here, never an address, and nothing in it is run.
    - ``--ckpt_path X --model.lr Y`` stops where Y differs from what X was trained with; Lightning keeps X's in silence.
    - Unwritten defaults: projection, TensorBoard, rich progress, checkpoints that survive Ctrl-C, zoo export, closing table.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our callbacks, each configurable under its own name; the projection first, for the others keep what it leaves."""
        parser.add_lightning_class_args(ResidualProjection, "projection")
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

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Arguments of each verb that are no options: ``weights_only`` is always set."""
        return {verb: {*skipped, "weights_only"} for verb, skipped in LightningCLI.subcommands().items()}

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Leave out of our defaults what the user has switched off; Lightning refuses the two together."""
        check_precision(config["precision"])
        if config["barebones"]:
            config |= {name: None for name in BARE if config[name] == self.trainer_defaults.get(name)}
            config["logger"] = config["logger"] if isinstance(config["logger"], bool) else None
        written = config["enable_checkpointing"] is not False and not config["barebones"]
        callbacks = [callback for callback in callbacks if written or not isinstance(callback, ModelCheckpoint)]
        unwanted: tuple[type[Callback], ...] = ()
        if config["logger"] in (None, False) and not config["fast_dev_run"]:
            unwanted += (LearningRateMonitor,)
        if config["enable_progress_bar"] is False or config["barebones"]:
            unwanted += (ProgressBar,)
        kept = [each for each in self.trainer_defaults["callbacks"] if not isinstance(each, unwanted)]
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": kept}
        return super()._instantiate_trainer(config, callbacks)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, then resolve ``last`` and refuse what a checkpoint would silently override."""
        super().parse_arguments(parser, args)
        _refuse_nulls(parser, self.config)
        verb = self.config.subcommand
        path = self.config[verb].ckpt_path
        if path is None:
            return
        asked = parser.parse_args(args, defaults=False)[verb]  # type: ignore[arg-type]
        if path == "last":
            run = newest_run()
            path = str(run.checkpoint)
            if verb == "fit":
                refuse_differences(run, asked)
                super().parse_arguments(parser, [verb, f"--config={run.config}", f"--ckpt_path={path}"])
                logger = self.config[verb].trainer.logger
                if getattr(logger, "class_path", None) == RUN_LOGGER:
                    self.save_config_callback = None  # the folder that goes on has them
                    logger.init_args.version = run.folder.name
                    logger.init_args.purge_step = read_checkpoint(path)["global_step"]
        check_path(path)
        refuse_overrides(path, asked.get("model"))
        self.config[verb].ckpt_path = path


def _refuse_nulls(parser: LightningArgumentParser, config: Namespace) -> None:
    """Check null against the types of options as any other value; a parser takes it for "not given", unless it has another sign for that.

    With another sign for all of its work, it writes timedeltas that are null as text that it cannot read (jsonargparse 4.53).

    Raises:
        argparse.ArgumentError: naming the option that takes no null.
    """
    set_parsing_settings(unset_sentinel=True)
    try:
        parser.validate(config)
    except TypeError as error:
        raise ArgumentError(None, str(error)) from error
    finally:
        set_parsing_settings(unset_sentinel=False)


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
    """Run one of Lightning's verbs; with no arguments, ``fit`` is the paper's recipe and projects (docs/training-study.md).

    Args:
        args: The verb and its options.
        prog: Name of the program in messages.

    Raises:
        ConfigError: if the arguments do not go together.
        OSError: if something is not there, also a configuration, or cannot be written; it says what runs without a network.
        argparse.ArgumentError: if an argument is unknown or not taken.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True, unset_sentinel=False)
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
            save_config_callback=SaveRun,
            trainer_defaults={
                "max_epochs": 100,
                "logger": {"class_path": RUN_LOGGER, "init_args": {"save_dir": ".", "name": str(LOGS)}},
                "log_every_n_steps": 10,
                "use_distributed_sampler": False,  # our sampler shares out its batches itself
                "num_sanity_val_steps": -1,  # a whole validation before the first step: the "before" of the closing table
                "enable_model_summary": False,
                "callbacks": [
                    *(Interruption(), ProgressBar(), LearningRateMonitor("step")),
                    Summary(f"{command} fit --ckpt_path last"),
                ],
            },
            parser_kwargs={"prog": prog, "exit_on_error": False, **parsers},
        )
    except SIGTERMException:  # Lightning lets it pass for success
        sys.exit(128 + signal.SIGTERM)
    except MisconfigurationException as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        if "quickstart" in str(error):
            raise
        alone = f"{command} fit --config quickstart, or --model.backbone FOLDER"
        raise OSError(f"{error} Without a network: {alone}") from error
