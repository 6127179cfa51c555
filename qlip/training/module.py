"""Training the coordinate MLP for a frozen CLIP: the step, the losses, the optimiser (section 3.3 of the paper)."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint
from torchmetrics import MeanMetric

from qlip.core.bias import position_gradient_norms
from qlip.core.position import PositionMLP
from qlip.encoder import QlipVisionModel
from qlip.towers.load import load_clip, position_table
from qlip.training.batch import Part, TrainBatch
from qlip.training.data import QlipDataModule
from qlip.training.parts import SumOfParts
from qlip.training.targets import Share, weights_digest
from qlip.zoo.solve import solved_position


@dataclass(frozen=True)
class MLPConfig:
    """The coordinate MLP and where it starts."""

    hidden: int = 1024
    """Width of the hidden layers."""
    depth: int = 4
    """Number of hidden layers."""
    fourier: int = 48
    """Number of Fourier frequencies."""
    sigma: float | None = None
    """Their standard deviation in cycles per unit of coordinate; grid / 16 if not given."""
    init: Literal["solved", "random"] = "solved"
    """Start from the solved readout, where R is already at rounding error, or from random weights as the paper does."""


@dataclass(frozen=True)
class LossConfig:
    """L = L_cls + gamma R (eq. 5)."""

    gamma: float = 1.0
    """Weight of the residual."""
    cls_loss: Literal["mse", "l2"] = "mse"
    """Mean squared difference of the [CLS] outputs, or its norm (eq. 3); mse is what makes gamma = 1 balanced."""
    target: Literal["image_embeds", "pooler_output"] = "image_embeds"
    """Which [CLS] output: after or before CLIP's projection into the space shared with text."""


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Learning rate factor: linear warm-up, then half a cosine down to zero at ``total`` steps."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class QlipModule(L.LightningModule):
    """A frozen CLIP and the coordinate MLP that is trained for it.

    Only the MLP is optimised and saved. The MLP runs in float32 whatever the trainer's precision.

    Args:
        backbone: A Hugging Face CLIP, Hub id or folder; ``random:<width>x<layers>`` builds one that needs no download.
        revision: Revision of a Hub id.
        mlp: The network and its start.
        loss: The loss.
        lr: Learning rate of Adam.
        warmup: Share of all steps over which the learning rate rises; then it falls as a cosine.
        recompute_activations: Keep only the input of each of the CLIP's layers and compute the rest again in the backward
            pass: for large images, at half as much time again.
    """

    table: Tensor
    grid: Tensor

    def __init__(
        self,
        backbone: str = "openai/clip-vit-large-patch14-336",
        revision: str | None = None,
        mlp: MLPConfig = MLPConfig(),
        loss: LossConfig = LossConfig(),
        lr: float = 7.5e-5,
        warmup: float = 0.01,
        recompute_activations: bool = False,
    ) -> None:
        super().__init__()
        mlp, loss = _revive(MLPConfig, mlp), _revive(LossConfig, loss)
        # Plain values: checkpoints are only ever loaded with weights_only=True. What changes no result is not among them.
        self.save_hyperparameters(
            {
                "backbone": backbone,
                "revision": revision,
                "mlp": asdict(mlp),
                "loss": asdict(loss),
                "lr": lr,
                "warmup": warmup,
            }
        )
        self.loss, self.lr, self.warmup = loss, lr, warmup
        self.strict_loading = False  # checkpoints hold the MLP alone; on_load_checkpoint checks that they do
        self.clip = load_clip(backbone, revision).eval().requires_grad_(False)
        if loss.target == "image_embeds" and not hasattr(self.clip, "visual_projection"):
            raise ValueError(f"loss.target: {backbone!r} has no projection to image_embeds; use pooler_output")
        self.register_buffer("table", position_table(self.clip).float(), persistent=False)
        architecture: Any = {"hidden": mlp.hidden, "depth": mlp.depth, "fourier": mlp.fourier, "sigma": mlp.sigma}
        if mlp.init == "solved":
            position = solved_position(self.table, **architecture)
        else:
            position = PositionMLP(self.table.shape[-1], self.table.shape[0], **architecture)
        self.register_buffer("grid", position.training_grid().flatten(0, 1), persistent=False)
        self.vision = QlipVisionModel.from_clip(self.clip, position)
        if recompute_activations:  # transformers' own switch works in training mode only, and the CLIP is never in it
            for layer in self.vision.encoder.layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)

    @property
    def position(self) -> PositionMLP:
        """The network that is trained."""
        return self.vision.position  # type: ignore[return-value]

    def train(self, mode: bool = True) -> "QlipModule":
        """Set the training mode of the MLP; the CLIP stays in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def setup(self, stage: str) -> None:
        """Have the frozen CLIP set the targets, each rank its share of those that are not in the cache."""
        trainer: Any = self.trainer
        data = trainer.datamodule
        if not isinstance(data, QlipDataModule):
            return
        # Not Lightning's own means: with unequal shares of the ranks they come out wrong (2.6, gloo: cosines of 1.5).
        self.cosines: Any = nn.ModuleDict({f"cos_cls_{size}": MeanMetric() for size in data.val_sizes})
        self.cls_losses = MeanMetric()
        self.clip.to(trainer.strategy.root_device)
        digest = f"{weights_digest(self.clip)}-{self.loss.target}"
        share = Share(trainer.global_rank, trainer.world_size, partial(trainer.strategy.barrier, "targets"))
        data.build(self.encode_standard, digest, self.clip.config.image_size, self.clip.config.patch_size, share)

    @torch.no_grad()
    def encode_standard(self, pixels: Tensor) -> Tensor:
        """The frozen CLIP's own [CLS] output ``(B, E)`` for its standard view ``(B, 3, n, n)``."""
        return getattr(self.clip(pixels.to(self.clip.device)), self.loss.target)

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """L_cls + gamma R on one ragged batch (eqs. 3 to 5)."""
        trainer: Any = self.trainer
        every = trainer.log_every_n_steps
        if not every or (self.global_step + 1) % every:  # not a step that Lightning logs; a GPU need not wait for us
            return self.losses(batch)["loss"]
        norms: list[Tensor] = []
        losses = self.losses(batch, norms)
        values: dict[str, Any] = {name: value.detach() for name, value in losses.items()}
        values |= {
            "position_grad_norm": torch.cat(norms).mean(),
            "tokens_per_image": batch.tokens / len(batch),
            "padding_waste": batch.padding_waste,
            "offgrid": self.position.offgrid(self.table),
        }
        self.log_dict({f"train/{name}": value for name, value in values.items()}, batch_size=len(batch))
        # The bar reads its numbers at every step; on the host they cost nothing.
        bar = {"l_cls": values["l_cls"].cpu(), "R": values["residual_l1"].cpu()}
        self.log_dict(bar, prog_bar=True, logger=False, batch_size=len(batch))
        return losses["loss"]

    def losses(self, batch: TrainBatch, norms: list[Tensor] | None = None) -> dict[str, Tensor]:
        """The loss of a batch and its terms, the parts of the batch one after the other.

        Args:
            batch: The batch.
            norms: Gets the interpolation bias (eq. 1) of each image, ``(B,)`` a part, at the price of a second backward
                pass.
        """
        # One evaluation of the network: each coordinate of the batch once, and with them the grid that R looks at.
        positions = self.position(torch.cat([batch.coords, self.grid]))
        rows, on_grid = positions.split([len(batch.coords), len(self.grid)])
        l_cls: Any = SumOfParts.apply(partial(self._cls_losses, batch, norms), rows)
        difference = on_grid - self.table.flatten(0, 1)
        l1, l2 = difference.abs().mean(), difference.square().mean()
        return {"loss": l_cls + self.loss.gamma * l1, "l_cls": l_cls, "residual_l1": l1, "residual_l2": l2}

    def _cls_losses(self, batch: TrainBatch, norms: list[Tensor] | None, rows: Tensor) -> Iterator[Tensor]:
        """Share of each part in L_cls, given the positions ``(U, D)`` of the batch's coordinates."""
        for part in batch.parts:
            positions = F.embedding(part.row, rows)
            cls = self._cls(part, positions)
            if norms is not None:
                norms.append(position_gradient_norms(cls, part.target, positions))
            yield self._cls_loss(cls, part.target) * (len(part) / len(batch))

    def _cls(self, part: Part, positions: Tensor) -> Tensor:
        """[CLS] outputs ``(B, E)`` of a part, given the positions ``(B, N, D)`` of its tokens."""
        return getattr(self.vision(part.patches, positions=positions), self.loss.target)

    def _evaluate(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """[CLS] outputs of a whole batch, and their targets, ``(B, E)`` each."""
        rows = self.position(batch.coords)
        cls = torch.cat([self._cls(part, F.embedding(part.row, rows)) for part in batch.parts])
        return cls.float(), torch.cat([part.target for part in batch.parts])

    def validation_step(self, batch: list[TrainBatch], batch_idx: int) -> None:
        """Cosine of [CLS] at several sizes with the frozen CLIP's at its own."""
        for mean, view in zip(self.cosines.values(), batch, strict=True):
            cls, target = self._evaluate(view)
            self.cls_losses.update(self._cls_loss(cls, target), weight=len(cls))
            mean.update(F.cosine_similarity(cls, target))

    def on_validation_epoch_end(self) -> None:
        """Log the means over all ranks, R, and how far from bicubic the network is where R does not look."""
        means: dict[str, Any] = {"l_cls": self.cls_losses, **dict(self.cosines.items())}
        values = {name: mean.compute() for name, mean in means.items()}
        for mean in means.values():
            mean.reset()
        l1, l2 = self.position.residual(self.table)
        values |= {"loss": values["l_cls"] + self.loss.gamma * l1, "residual_l1": l1, "residual_l2": l2}
        values["offgrid"] = l1.new_tensor(self.position.offgrid(self.table))
        self.log_dict({f"val/{name}": value for name, value in values.items()}, sync_dist=True)

    def test_step(self, batch: list[TrainBatch], batch_idx: int) -> None:
        """As validation."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """As validation."""
        self.on_validation_epoch_end()

    def predict_step(self, batch: list[TrainBatch], batch_idx: int) -> list[Tensor]:
        """[CLS] outputs ``(B, E)``, one tensor a validation size."""
        return [self._evaluate(view)[0] for view in batch]

    def _cls_loss(self, cls: Tensor, target: Tensor) -> Tensor:
        if self.loss.cls_loss == "mse":
            return F.mse_loss(cls.float(), target)
        return (cls.float() - target).norm(dim=-1).mean()

    def configure_optimizers(self) -> Any:
        """Adam on the MLP alone in one kernel, warm-up and cosine over all steps of the run."""
        optimizer = torch.optim.Adam(self.position.parameters(), lr=self.lr, fused=True)
        trained = {id(p) for p in self.position.parameters()}
        assert trained == {id(p) for p in self.parameters() if p.requires_grad}
        total = self._total_steps()
        schedule = LambdaLR(optimizer, partial(warmup_cosine, warmup=round(self.warmup * total), total=total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _total_steps(self) -> int:
        """Optimiser steps of the whole run.

        Trainer.estimated_stepping_batches would start the data loader here, before a resumed run knows its place.
        """
        trainer: Any = self.trainer
        batches = len(trainer.datamodule.train_sampler())
        limit = trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        steps = -(-batches // trainer.accumulate_grad_batches) * (trainer.max_epochs or 1)
        return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the MLP; the CLIP is where it came from."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k.startswith("vision.position.")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint holds exactly this MLP.

        Raises:
            ValueError: if a tensor is missing or there is one too many.
        """
        wanted = {f"vision.position.{name}" for name in self.position.state_dict()}
        if wanted != checkpoint["state_dict"].keys():
            different = ", ".join(sorted(wanted ^ checkpoint["state_dict"].keys()))
            raise ValueError(f"ckpt_path: tensors differ from the configured MLP: {different}")


def _revive(kind: type[Any], value: Any) -> Any:
    """A configuration, also from the plain dict that a checkpoint holds."""
    return kind(**value) if isinstance(value, dict) else value
