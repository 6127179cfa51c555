"""Training the coordinate MLP for a frozen tower: the step, validation and the optimiser (section 3.3 of the paper)."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, TypeVar

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint

from qlip.core.patches import PatchBatch
from qlip.core.position import PositionMLP
from qlip.encoder import QlipVisionModel, QlipVisionOutput, mean_of_patches
from qlip.towers.base import Tower, find_tower, position_table
from qlip.towers.load import image_statistics, load_tower
from qlip.training.batch import MicroBatch, TrainBatch
from qlip.training.checkpoint import check, seal, trained_state
from qlip.training.config import LossConfig, MLPConfig
from qlip.training.data import View, data_module_of
from qlip.training.loss import Encoded, batch_loss, cls_loss, patch_loss, residual
from qlip.training.schedule import learning_rate_factor
from qlip.training.targets import Shard, weights_digest
from qlip.training.validation import ValidationMeans
from qlip.zoo.solve import solved_position

Config = TypeVar("Config")


class QlipModule(L.LightningModule):
    """A frozen tower, CLIP's or any other with a table, and the coordinate MLP that is trained for it.

    Only the MLP is optimised and saved. The MLP runs in float32 whatever the trainer's precision.

    Args:
        backbone: A Hugging Face CLIP, SigLIP, ViT, DINOv2 or InternViT, Hub id or folder; ``random:<width>x<layers>`` builds a
            CLIP that needs no download.
        revision: Revision of a Hub id.
        mlp: Architecture of the network, and where its weights start.
        loss: Terms of the loss and their weights.
        lr: Learning rate of Adam.
        warmup: Fraction of the run over which the learning rate rises; then it falls as a cosine.
        recompute_activations: Keep only the input of each of the tower's layers and compute the rest again in the backward
            pass: for large images, at half as much time again.
    """

    table: Tensor
    grid_coords: Tensor

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
        mlp, loss = _as_config(MLPConfig, mlp), _as_config(LossConfig, loss)
        self.backbone = load_tower(backbone, revision).eval().requires_grad_(False)
        self.standard_size = _standard_size(find_tower(self.backbone))
        projected = hasattr(self.backbone, "visual_projection")
        if loss.target is None:
            loss = replace(loss, target="image_embeds" if projected else "pooler_output")
        elif loss.target == "image_embeds" and not projected:
            raise ValueError(f"loss.target: {backbone!r} has no projection to image_embeds; use pooler_output")
        if loss.patches < 0:
            raise ValueError(
                f"loss.patches: got {loss.patches}; takes a weight of at least 0, which leaves the term out"
            )
        # Plain values: checkpoints are only ever loaded with weights_only=True. What changes no result is not among them.
        plain = {"mlp": asdict(mlp), "loss": asdict(loss)}
        self.save_hyperparameters({"backbone": backbone, "revision": revision, **plain, "lr": lr, "warmup": warmup})
        self.loss, self.lr, self.warmup = loss, lr, warmup
        self.strict_loading = False  # checkpoints hold the MLP alone; on_load_checkpoint checks that they do
        self.register_buffer("table", position_table(self.backbone).float(), persistent=False)
        position = _initial_position(self.table, mlp)
        self.register_buffer("grid_coords", position.training_grid().flatten(0, 1), persistent=False)
        self.vision = QlipVisionModel.from_clip(self.backbone, position)
        tower = self.vision.tower
        edges = tower.grid if tower.frame == "edges" else None
        self.view = View(tower.patch_size, *image_statistics(backbone, revision), edges)
        if recompute_activations:
            _recompute_in_backward(self.vision.layers())

    @property
    def position(self) -> PositionMLP:
        """The network that is trained."""
        assert isinstance(self.vision.position, PositionMLP)
        return self.vision.position

    def train(self, mode: bool = True) -> "QlipModule":
        """Set the training mode of the MLP; the tower stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def setup(self, stage: str) -> None:
        """Have the data module compute its targets with the frozen tower, each rank its shard of those not in the cache.

        Raises:
            TypeError: if the data does not come from a `QlipDataModule`.
        """
        trainer = self.trainer
        data = data_module_of(trainer)
        self.val_means = ValidationMeans(data.val_sizes, self.loss.patches > 0)
        self.backbone.to(trainer.strategy.root_device)
        digest = f"{weights_digest(self.backbone)}-{self.loss.target}"
        shard = Shard(trainer.global_rank, trainer.world_size, partial(trainer.strategy.barrier, "targets"))
        data.build(self.encode_standard, digest, self.standard_size, self.view, shard, self.loss.patches > 0)

    @torch.no_grad()
    def encode_standard(self, pixels: Tensor) -> Tensor:
        """The frozen tower's own [CLS] output ``(B, E)`` for its standard view ``(B, 3, n, n)``."""
        pixels = pixels.to(self.backbone.device)
        if self.loss.target == "image_embeds":
            return self.backbone(pixels).image_embeds
        # A CLIP with a projection does not return what it projects; the tower inside it does.
        output = self.vision.tower.module(pixels)
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state[:, self.vision.tower.prefix_length :].mean(1) if pooled is None else pooled

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """L_cls + gamma R on one ragged batch (eqs. 3 to 5), and L_patches where it has a weight."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or (self.global_step + 1) % every:  # not a step that Lightning logs; a GPU need not wait for us
            return self.losses(batch)["loss"]
        norms: list[Tensor] = []
        losses = self.losses(batch, norms)
        values: dict[str, Tensor | float] = {name: value.detach() for name, value in losses.items()}
        values |= {
            "position_grad_norm": torch.cat(norms).mean(),
            "tokens_per_image": batch.tokens / len(batch),
            "padding_waste": batch.padding_waste,
            "offgrid": self.position.offgrid(self.table),
        }
        self.log_dict({f"train/{name}": value for name, value in values.items()}, batch_size=len(batch))
        # The bar reads its numbers at every step; on the host they cost nothing.
        bar = {"l_cls": losses["l_cls"].detach().cpu(), "R": losses["residual_l1"].detach().cpu()}
        self.log_dict(bar, prog_bar=True, logger=False, batch_size=len(batch))
        return losses["loss"]

    def losses(self, batch: TrainBatch, gradient_norms: list[Tensor] | None = None) -> dict[str, Tensor]:
        """The loss of a batch and its terms: scalars ``loss``, ``l_cls``, ``residual_l1`` and ``residual_l2``, and ``l_patches`` where it has
        a weight.

        Args:
            batch: The batch.
            gradient_norms: A list that gets the interpolation bias of the images, see `batch_loss`.
        """
        # One evaluation of the network: each coordinate of the batch once, and with them the grid that R looks at.
        positions = self.position(torch.cat([batch.coords, self.grid_coords]))
        at_coords, on_grid = positions.split([len(batch.coords), len(self.grid_coords)])
        parts: list[Tensor] = []
        total = batch_loss(batch, at_coords, self.encode, self.loss, gradient_norms, parts)
        l1, l2 = residual(on_grid, self.table)
        terms = {"loss": total + self.loss.gamma * l1, "l_cls": total, "residual_l1": l1, "residual_l2": l2}
        if parts:
            terms["l_patches"] = torch.stack(parts).sum()
            terms["l_cls"] = total - self.loss.patches * terms["l_patches"]
        return terms

    def encode(self, batch: MicroBatch, positions: Tensor) -> Encoded:
        """What the loss compares, of a micro-batch whose tokens have the encodings ``positions (B, N, D)``.

        Features are the states before the last layer, which a LLaVA reads; those of the standard views come from the tower with its own table.
        """
        if batch.standard is None:
            return Encoded(self.encode_at(batch.patches, positions))
        output = self.vision(batch.patches, positions=positions, output_hidden_states=True)
        table = self.table.flatten(0, 1).expand(len(batch), -1, -1)
        with torch.no_grad():
            standard = self.vision(batch.standard, positions=table, output_hidden_states=True)
        return Encoded(self._pooled(output, batch.patches), (self._features(output), self._features(standard)))

    def encode_at(self, patches: PatchBatch, positions: Tensor) -> Tensor:
        """[CLS] outputs ``(B, E)`` of patches whose tokens have the encodings ``positions (B, N, D)``."""
        return self._pooled(self.vision(patches, positions=positions), patches)

    def _features(self, output: QlipVisionOutput) -> Tensor:
        assert output.hidden_states is not None, "they were asked for"
        return output.hidden_states[-2][:, self.vision.tower.prefix_length :]

    def _pooled(self, output: QlipVisionOutput, patches: PatchBatch) -> Tensor:
        pooled = output.image_embeds if self.loss.target == "image_embeds" else output.pooler_output
        if pooled is not None:
            return pooled
        assert output.last_hidden_state is not None
        states = output.last_hidden_state[:, self.vision.tower.prefix_length :]
        return mean_of_patches(states, patches, "area")  # of the picture, not of the leaves

    def _evaluate(self, batch: TrainBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """[CLS] outputs of a whole batch, their targets, ``(B, E)`` each, and L_patches where it has a weight."""
        positions = self.position(batch.coords)
        encoded = [self.encode(m, F.embedding(m.coord_index, positions)) for m in batch.micro_batches]
        parts = [
            patch_loss(*each.features, m.patches) * (len(m) / len(batch))
            for each, m in zip(encoded, batch.micro_batches, strict=True)
            if each.features is not None
        ]
        cls, target = (
            torch.cat([each.cls for each in encoded]).float(),
            torch.cat([m.target for m in batch.micro_batches]),
        )
        return cls, target, torch.stack(parts).sum() if parts else None

    def validation_step(self, batch: list[TrainBatch], batch_idx: int) -> None:
        """Cosine of [CLS] at several sizes with the frozen tower's at its own."""
        for size, view in zip(data_module_of(self.trainer).val_sizes, batch, strict=True):
            cls, target, l_patches = self._evaluate(view)
            self.val_means.update(size, cls, target, cls_loss(cls, target, self.loss.cls_loss), l_patches)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all ranks, R, and how far from bicubic the network is where R does not look."""
        values = self.val_means.pop()
        l1, l2 = self.position.residual(self.table)
        values |= {"loss": values["l_cls"] + self.loss.gamma * l1, "residual_l1": l1, "residual_l2": l2}
        if "l_patches" in values:
            values["loss"] = values["loss"] + self.loss.patches * values["l_patches"]
        values["offgrid"] = l1.new_tensor(self.position.offgrid(self.table))
        self.log_dict({f"val/{name}": value for name, value in values.items()}, sync_dist=True)

    test_step, on_test_epoch_end = validation_step, on_validation_epoch_end

    def predict_step(self, batch: list[TrainBatch], batch_idx: int) -> list[Tensor]:
        """[CLS] outputs ``(B, E)``, one tensor a validation size."""
        return [self._evaluate(view)[0] for view in batch]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam on the MLP alone in one kernel, warm-up and cosine over the run, whatever limits it."""
        optimizer = torch.optim.Adam(self.position.parameters(), lr=self.lr, fused=True)
        trained = {id(p) for p in self.position.parameters()}
        assert trained == {id(p) for p in self.parameters() if p.requires_grad}
        schedule = LambdaLR(optimizer, learning_rate_factor(self.trainer, self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the MLP alone."""
        checkpoint["state_dict"] = trained_state(checkpoint["state_dict"])
        seal(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another network, and one that is damaged."""
        check(checkpoint, self.position)


def _initial_position(table: Tensor, mlp: MLPConfig) -> PositionMLP:
    """The network before training, for ``table (n, n, D)``."""
    sigma = {} if mlp.sigma is None else {"sigma": mlp.sigma}  # left out, it follows from the table's grid
    if mlp.init == "solved":
        return solved_position(table, hidden=mlp.hidden, depth=mlp.depth, fourier=mlp.fourier, **sigma)
    n, _, dim = table.shape
    return PositionMLP(dim, n, hidden=mlp.hidden, depth=mlp.depth, fourier=mlp.fourier, **sigma)


def _recompute_in_backward(layers: Iterable[nn.Module]) -> None:
    """Have each layer keep its input alone; transformers' own switch works in training mode only, where no CLIP is."""
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)


def _as_config(kind: Callable[..., Config], value: Config) -> Config:
    """A configuration, also from the plain dict in which ``load_from_checkpoint`` passes it."""
    return kind(**value) if isinstance(value, dict) else value


def _standard_size(tower: Tower) -> int:
    """Side in pixels of the view that gives the targets.

    Raises:
        ValueError: if the tower was made for pictures of any size.
    """
    if tower.size is None:
        raise ValueError(
            f"backbone: got a {type(tower.module).__name__}, which resizes its table to every picture and has no size of its own "
            f"to take targets at. It needs no training: qlip.convert takes it as it is"
        )
    return tower.size
