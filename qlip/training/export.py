"""The trained network as zoo entries, which replace nothing of another run."""

import math
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from qlip.core.quadtree import Quadtree
from qlip.core.rules import check, shown
from qlip.training.data import data_module_of
from qlip.training.module import QlipModule
from qlip.zoo.config import ZooConfig
from qlip.zoo.registry import is_name
from qlip.zoo.store import check_target, save

_NAMES = {"val/residual_l1": "R", "val/residual_l2": "R2"}  # of metrics in an entry


class ZooExport(L.Callback):
    """Write the trained MLP as zoo entries: ``NAME`` whenever a validation is the best so far, ``NAME-last`` at the end.

    The state before the first step competes for the best, and a better one must be so by more than ``min_gain``. Entries of another run are kept: this one's are then ``NAME-2`` and
    ``NAME-2-last``, or the next that are free. A dry run, and one without a step, write nothing.

    Args:
        name: Name of the entry; ``qlip-<backbone>`` if not given.
        root: Folder that holds the entries.
        monitor: The metric whose smallest value is best.
        replace: Replace entries of that name that another run wrote.
        min_gain: Share of the best value so far by which a smaller one must fall below it.
    """

    def __init__(
        self,
        name: str | None = None,
        root: str = "checkpoints",
        monitor: str = "val/loss",
        replace: bool = False,
        min_gain: float = 0.01,
    ) -> None:
        if name is not None and not is_name(name):
            raise ValueError(
                f"name: got {shown(name)}; takes letters, digits, '.', '-' and '_', a letter or digit first; "
                f"--export.root is the folder"
            )
        check("min_gain", min_gain)
        self.name, self.root, self.monitor, self.replace, self.min_gain = name, Path(root), monitor, replace, min_gain
        self.target = self.entry = ""  # the folder that was asked for, and the one that is free
        self.best, self.best_step = math.inf, -1
        self.metrics, self.step = dict[str, float](), -1  # of the last validation, and its step
        self.written = False

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, so that it goes on with its own entries and replaces no better one."""
        names = ("target", "entry", "best", "best_step", "metrics", "step")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the run was; qlip 0.1 kept the best value alone."""
        if "entry" in state_dict:
            vars(self).update(state_dict)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the folders, before the training; a run that goes on under the same name keeps its own."""
        assert isinstance(pl_module, QlipModule)
        backbone = str(pl_module.hparams["backbone"]).rstrip("/").split("/")[-1]
        target = self.root / (self.name or f"qlip-{backbone.replace(':', '-')}")
        if self.target != str(target):
            self.best, self.best_step = math.inf, -1
            self.target, self.entry = str(target), str(target if self.replace else _free(target))
        for folder in (Path(self.entry), _last(self.entry)):
            check_target(folder)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Export if this is the best so far; the state before the first step waits for that step."""
        if trainer.state.fn != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self.step = trainer.global_step
        if not trainer.sanity_checking:
            self._export_best(trainer, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Export the state before the first step, if it was validated."""
        if self.step == trainer.global_step == 0:
            self._export_best(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Export the last state, which is validated first if it was not."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.step != trainer.global_step and trainer.enable_validation:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
        self._export(_last(self.entry), trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Export the last state also where a resumed run had been killed behind its last step."""
        if trainer.global_step and not trainer.fast_dev_run and not self.written:  # type: ignore[attr-defined]
            self._export(_last(self.entry), trainer, pl_module)

    def _export_best(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        value = self.metrics.get(self.monitor, math.inf)
        if value < self.best * (1 - self.min_gain):
            self.best, self.best_step = value, trainer.global_step
            self._export(Path(self.entry), trainer, module)

    @rank_zero_only
    def _export(self, folder: Path, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, QlipModule)
        save(module.position, folder, self._config(trainer, module))
        self.written = True

    def _config(self, trainer: L.Trainer, module: QlipModule) -> ZooConfig:
        data = data_module_of(trainer)
        l1, l2 = module.position.residual(module.table)
        measured = {"R": l1.item(), "R2": l2.item(), "offgrid": module.position.offgrid(module.table)}
        if self.step == trainer.global_step:
            measured |= {_NAMES.get(k, k.removeprefix("val/")): v for k, v in self.metrics.items()}
        return ZooConfig.of(
            module.position,
            backbone=module.hparams["backbone"],
            backbone_revision=module.hparams["revision"],
            patch_size=data.view.patch_size,
            metrics=measured,
            quadtree=Quadtree(data.merge[1], "random", patch_size=data.view.patch_size, cover="roots"),
            training={
                **{k: v for k, v in module.hparams.items() if k not in ("backbone", "revision")},
                "data": data.root, "max_size": data.max_size, "merge": list(data.merge),
                "batch_size": data.batch_size, "steps": trainer.global_step, "seed": data.seed,
            },
        )  # fmt: skip


def _last(folder: str | Path) -> Path:
    """The entry of the last state beside that of the best."""
    return Path(f"{folder}-last")


def _free(folder: Path) -> Path:
    """The first of ``NAME``, ``NAME-2``, ``NAME-3`` ... of which nothing is there, neither best nor last."""
    number, found = 1, folder
    while found.exists() or _last(found).exists():
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found
