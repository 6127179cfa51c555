"""What a training step computes, keeps and waits for: counted, so that nothing here depends on a clock."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from qlip.cli import main
from qlip.training.batch import TrainBatch
from qlip.training.module import LossConfig, MLPConfig, QlipModule
from qlip.training.parts import SumOfParts
from tests.training.conftest import cut_images
from tests.training.test_module import attached

SMALL = MLPConfig(hidden=32, depth=2, fourier=8)
GRIDS = [(4, 6), (4, 6), (5, 3), (6, 6)]


def batch_of(tokens_at_once: int | None = None) -> TrainBatch:
    return TrainBatch.collate(cut_images(*GRIDS, width=16), tokens_at_once)


@pytest.fixture
def module(clip_folder: str) -> QlipModule:
    return QlipModule(clip_folder, mlp=SMALL).train()


def gradients(module: QlipModule, batch: TrainBatch) -> list[Tensor]:
    module.zero_grad()
    module.losses(batch)["loss"].backward()
    return [p.grad.clone() for p in module.position.parameters()]


def largest_difference(first: list[Tensor], second: list[Tensor]) -> float:
    scale = max(a.abs().max().item() for a in first)
    return max((a - b).abs().max().item() for a, b in zip(first, second, strict=True)) / scale


class Kept:
    """Bytes of activations that autograd keeps, now and at most; weights, which are there anyway, do not count."""

    def __init__(self, module: torch.nn.Module | None = None) -> None:
        tensors = [*module.parameters(), *module.buffers()] if module else []
        self.weights = {t.untyped_storage().data_ptr() for t in tensors}
        self.now = self.most = 0
        self.tensors: list[tuple[int, ...]] = []

    def pack(self, tensor: Tensor) -> Any:
        kept = self

        class Counted:
            def __init__(self) -> None:
                weight = tensor.untyped_storage().data_ptr() in kept.weights
                self.size = 0 if weight else tensor.nbytes
                self.tensor = tensor
                kept.now += self.size
                kept.most = max(kept.most, kept.now)
                kept.tensors.append(tuple(tensor.shape))

            def __del__(self) -> None:
                kept.now -= self.size

        return Counted()

    def during(self, function: Callable[[], object]) -> "Kept":
        with saved_tensors_hooks(self.pack, lambda counted: counted.tensor):
            function()
        return self


def leaves(result: Tensor) -> list[Tensor]:
    """Tensors that a backward pass from ``result`` would leave gradients in."""
    found, seen, todo = [], set(), [result.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
            found += [node.variable] if hasattr(node, "variable") else []
    return found


class Named(TorchDispatchMode):
    """Keeps the names of operations, ``aten`` ones that others consist of."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class HostReads(TorchFunctionMode):
    """Names of calls for which the host waits for a GPU, or makes a tensor itself that it then has to send."""

    METHODS = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "_local_scalar_dense")
    SIZES = ("nonzero", "_unique2", "unique_dim", "masked_select", "equal", "is_nonzero")  # of the result: data decides
    MADE = ("tensor", "arange", "linspace", "randn", "rand", "scalar_tensor", "lift_fresh")

    def __enter__(self) -> "HostReads":
        self.seen: list[str] = []
        self.inside = Named(self.seen)
        self.inside.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.inside.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))

    @property
    def names(self) -> list[str]:
        return [name for name in self.seen if name in self.METHODS + self.SIZES + self.MADE]


def test_a_sum_of_parts_has_the_gradient_of_the_sum_and_the_memory_of_a_part() -> None:
    x, weights = torch.randn(50, 3, requires_grad=True), torch.randn(4, 3, 3)

    def parts(x: Tensor) -> Iterator[Tensor]:
        for weight in weights:
            yield (x @ weight).tanh().square().sum()

    plain, at_once = Kept(), Kept()
    plain.during(lambda: sum(parts(x)).mul(3).backward())  # type: ignore[union-attr]
    expected, x.grad = x.grad, None
    at_once.during(lambda: SumOfParts.apply(parts, x).mul(3).backward())
    assert x.grad is not None
    assert expected is not None
    torch.testing.assert_close(x.grad, expected)
    assert at_once.most < plain.most / 2


@pytest.mark.parametrize("tokens_at_once", [1, 75])
@pytest.mark.parametrize("cls_loss", ["mse", "l2"])
def test_a_split_batch_has_the_gradient_of_the_whole(clip_folder: str, tokens_at_once: int, cls_loss: Any) -> None:
    module = QlipModule(clip_folder, mlp=SMALL, loss=LossConfig(cls_loss=cls_loss))
    whole, split = batch_of(), batch_of(tokens_at_once)
    assert [len(part) for part in split.parts] == {1: [1, 1, 1, 1], 75: [3, 1]}[tokens_at_once]
    assert len(whole.parts) == 1
    assert module.losses(whole)["loss"].item() == pytest.approx(module.losses(split)["loss"].item(), rel=1e-6)
    assert largest_difference(gradients(module, whole), gradients(module, split)) < 1e-6


def test_the_gradient_is_that_of_the_loss_written_down_plainly(clip_folder: str) -> None:
    module = QlipModule(clip_folder, mlp=MLPConfig(32, 2, 8, init="random"))  # solved, R is rounding and so is its sign
    batch = batch_of(60)
    items = [(part, i) for part in batch.parts for i in range(len(part))]
    squares = [(module.vision(part.patches).image_embeds[i] - part.target[i]).square().mean() for part, i in items]
    module.zero_grad()
    (torch.stack(squares).mean() + module.position.residual(module.table)[0]).backward()
    expected = [p.grad.clone() for p in module.position.parameters()]
    assert largest_difference(expected, gradients(module, batch)) < 1e-5


def test_a_split_batch_keeps_the_activations_of_one_part(module: QlipModule) -> None:
    whole, split = batch_of(), batch_of(1)
    most = [Kept(module).during(lambda b=b: gradients(module, b)).most for b in (whole, split)]
    alone = [
        Kept(module).during(
            lambda p=p: module.vision(p.patches, positions=torch.zeros(*p.row.shape, 32).requires_grad_())
        )
        for p in split.parts
    ]
    assert most[1] < 0.5 * most[0]
    assert most[1] < 1.5 * max(kept.most for kept in alone)


def test_recomputed_activations_give_the_same_gradient_from_less_memory(clip_folder: str, module: QlipModule) -> None:
    saving, batch = QlipModule(clip_folder, mlp=SMALL, recompute_activations=True).train(), batch_of()
    assert largest_difference(gradients(module, batch), gradients(saving, batch)) < 1e-6
    assert "recompute_activations" not in saving.hparams
    (part,) = batch.parts
    positions = torch.zeros(*part.row.shape, 32).requires_grad_()
    kept = [Kept(m).during(lambda m=m: m.vision(part.patches, positions=positions)) for m in (module, saving)]
    assert kept[1].most < 0.3 * kept[0].most


def test_the_network_sees_each_coordinate_once_and_the_grid_once(module: QlipModule) -> None:
    for tokens_at_once in (None, 1):
        batch, rows = batch_of(tokens_at_once), []
        handle = module.position.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))  # noqa: B023
        gradients(module, batch)
        handle.remove()
        different = {tuple(c) for p in batch.parts for c in p.patches.coords[p.patches.mask].tolist()}
        assert rows == [len(different) + module.position.grid**2]
        assert len(different) < batch.tokens


def test_only_the_network_is_behind_the_loss_and_only_positions_behind_an_activation(module: QlipModule) -> None:
    trained = {id(p) for p in module.position.parameters()}
    assert {id(p) for p in module.parameters() if p.requires_grad} == trained
    batch, outputs, embedded = batch_of(), [], []
    module.vision.register_forward_hook(lambda _, args, output: outputs.append(leaves(output.image_embeds)))
    module.vision.pre_layernorm.register_forward_pre_hook(lambda _, args: embedded.append(args[0].grad_fn))
    kept = Kept(module)
    kept.during(lambda: outputs.append(leaves(module.losses(batch)["loss"])))
    through_the_clip, whole = outputs
    assert [tuple(leaf.shape) for leaf in through_the_clip] == [(len(batch.coords), module.position.dim)]
    assert {id(leaf) for leaf in whole} == trained
    patches = batch.parts[0].patches.patches
    assert patches.shape[-3:].numel() not in {
        shape[-1] for shape in kept.tensors if shape
    }  # the patch embedding's input


def test_a_step_makes_a_gpu_wait_for_nothing_but_the_encoder(
    module: QlipModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached(module, monkeypatch).clear()
    module.trainer.log_every_n_steps = 50
    (optimizer,) = [torch.optim.Adam(module.position.parameters(), lr=1e-3, fused=True)]
    batch = batch_of()
    (part,) = batch.parts
    with HostReads() as encoder:
        module.vision(part.patches, positions=torch.zeros(*part.row.shape, 32))
    with HostReads() as step:
        module.training_step(batch, 0).backward()
        optimizer.step()
    assert step.names == encoder.names
    assert len(encoder.names) <= 8  # which images are how long, whatever their number


def test_steps_between_those_that_are_logged_log_nothing(module: QlipModule, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = attached(module, monkeypatch)
    module.trainer.log_every_n_steps = 2
    module.training_step(batch_of(), 0)
    assert not logged
    module.trainer.log_every_n_steps = 1
    module.training_step(batch_of(60), 0)
    assert "train/position_grad_norm" in logged


def test_bfloat16_changes_the_clip_and_not_how_gradients_are_taken(module: QlipModule) -> None:
    exact, batch = gradients(module, batch_of()), batch_of(60)
    part = batch.parts[-1]
    with torch.autocast("cpu", torch.bfloat16):
        module.zero_grad()
        loss = module.losses(batch)["loss"]
    loss.backward()
    rough = [p.grad.clone() for p in module.position.parameters()]
    assert 0 < largest_difference(exact, rough) < 0.05
    rows = module.position(batch.coords).detach()

    def plain(rows: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            cls = module._cls(part, torch.nn.functional.embedding(part.row, rows))
            return module._cls_loss(cls, part.target)

    first, second = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    plain(first).backward()
    with torch.autocast("cpu", torch.bfloat16):
        total = SumOfParts.apply(lambda x: [plain(x)], second)
    total.backward()
    assert torch.equal(first.grad, second.grad)


def test_adam_is_fused_and_goes_on_from_a_run_in_which_it_was_not(
    module: QlipModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached(module, monkeypatch)
    monkeypatch.setattr(QlipModule, "_total_steps", lambda self: 10)
    batch = batch_of()
    old = torch.optim.Adam(module.position.parameters(), lr=module.lr)
    gradients(module, batch)
    old.step()
    optimizer = module.configure_optimizers()["optimizer"]
    assert optimizer.param_groups[0]["fused"]
    optimizer.load_state_dict(old.state_dict())
    assert optimizer.state_dict()["state"][0]["step"] == 1
    optimizer.step()
    assert optimizer.state_dict()["state"][0]["step"] == 2


def test_a_run_computes_each_target_once_and_a_second_run_none(
    fit_args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, encode = [], QlipModule.encode_standard

    def count(self: QlipModule, pixels: Tensor) -> Tensor:
        encoded.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(QlipModule, "encode_standard", count)
    main(["fit", *fit_args])
    assert sum(encoded) == 13
    main(["fit", *fit_args, "--export.name=again"])
    assert sum(encoded) == 13
