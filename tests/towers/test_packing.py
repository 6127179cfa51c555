"""Images side by side in one row against the same images padded, and what packing them saves, counted."""

import copy
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

import qlip.towers.packing
from qlip import PatchBatch, QlipVisionModel
from qlip.towers.packing import PackedImages, Packing
from qlip.towers.synthetic import random_clip
from tests.operation_counters import Operations, Waits

COUNTS = (5, 33, 1, 18)
LAYERS = 3


def ragged(counts=COUNTS, seed=0) -> PatchBatch:
    """Noise, also where the batch is padded."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(counts)
    mask = torch.arange(longest) < torch.tensor(counts)[:, None]
    patches = torch.randn(len(counts), longest, 3, 14, 14, generator=generator)
    return PatchBatch(patches, torch.rand(len(counts), longest, 2, generator=generator) * 2 - 1, mask)


def singles(batch: PatchBatch) -> list[PatchBatch]:
    images = zip(batch.patches, batch.coords, batch.mask, strict=True)
    return [PatchBatch(p[None, m], c[None, m], m[None, m]) for p, c, m in images]


def tower(attention="sdpa") -> QlipVisionModel:
    clip = random_clip(128, LAYERS, image_size=112)
    clip.config._attn_implementation = attention  # the setter would look for a package behind a name with "flash" in it
    return QlipVisionModel.from_clip(clip, "bicubic")


def padded(model: QlipVisionModel, batch: PatchBatch, positions: torch.Tensor) -> torch.Tensor:
    """``(B, 1 + N, D)``, the obvious way: every image as long as the longest, attention written out, padding masked."""
    embeddings, dtype = model.vision_model.embeddings, model.vision_model.embeddings.class_embedding.dtype
    tokens = torch.stack([embeddings.patch_embedding(p.to(dtype)).flatten(1) for p in batch.patches])
    first = embeddings.class_embedding + embeddings.position_embedding.weight[0]
    states = torch.cat([first.expand(len(batch), 1, -1), tokens + positions.to(dtype)], dim=1)
    states = model.vision_model.pre_layrnorm(states)
    hidden = ~F.pad(batch.mask, (1, 0), value=True)[:, None, None]
    for layer in model.vision_model.encoder.layers:
        attention, x = layer.self_attn, layer.layer_norm1(states)
        q, k, v = (
            f(x).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for f in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        weights = (q @ k.mT * attention.scale).masked_fill(hidden, -torch.inf).softmax(-1)
        states = states + attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
        states = states + layer.mlp(layer.layer_norm2(states))
    return states


def loss_of(states: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    return (states * weights.to(states.dtype))[keep].float().sum()


def with_gradients(model, batch, encode) -> list[torch.Tensor]:
    """Hidden states of every token that is no padding, and the gradients of a weighted sum of them."""
    positions = model.position(batch.coords).detach().requires_grad_()
    keep = F.pad(batch.mask, (1, 0), value=True)
    states = encode(batch, positions)
    gradients = torch.autograd.grad(loss_of(states, keep), [positions, *trained(model)])
    return [states[keep].detach(), *gradients]


def trained(model) -> list[torch.Tensor]:
    """The encoder's weights, but for the biases of keys: softmax takes no notice of them, so their gradient is rounding."""
    return [weight for name, weight in model.vision_model.encoder.named_parameters() if "k_proj.bias" not in name]


def packed(model):
    return lambda batch, positions: model(batch, positions=positions).last_hidden_state


def assert_all_close(got, expected, within):
    for a, b in zip(got, expected, strict=True):
        assert (a - b).abs().max() <= within * b.abs().max()


def per_image(module, query, key, value, attention_mask, **_):
    assert attention_mask is None
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2), None


def by_offsets(
    module, query, key, value, attention_mask, cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k, **_
):
    """As transformers' flash attention: ``(T, H, d)``, sequences by their ends."""
    assert attention_mask is None
    out = fake_varlen(
        *(x[0].transpose(0, 1) for x in (query, key, value)), cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k
    )
    return out[None], None


def fake_varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=None):
    """torch's attention for varying lengths has no CPU kernel; this is what its documentation says it does."""
    assert query.ndim == 3
    assert cu_seq_q.dtype == torch.int32
    assert cu_seq_q.tolist() == cu_seq_k.tolist()
    assert cu_seq_q.diff().max() == max_q == max_k
    ends = cu_seq_q.tolist()
    images = [[x[a:b].transpose(0, 1) for x in (query, key, value)] for a, b in pairwise(ends)]
    return torch.cat([F.scaled_dot_product_attention(*image, scale=scale).transpose(0, 1) for image in images])


AttentionInterface.register("per_image", per_image)
AttentionInterface.register("flash_by_offsets", by_offsets)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "per_image", "flash_by_offsets"])
def test_one_row_equals_padding_gradients_included(attention):
    model, batch = tower(attention), ragged()
    expected = with_gradients(model, batch, lambda *inputs: padded(model, *inputs))
    assert_all_close(with_gradients(model, batch, packed(model)), expected, 1e-5)


def test_one_row_equals_padding_in_bfloat16():
    model, batch = tower(), ragged()
    with torch.no_grad():
        for weight in model.vision_model.encoder.parameters():
            weight.div_(4 if weight.ndim == 2 else 1)  # random_clip's are strong, and blow rounding up to 5 % in both
    model.bfloat16()
    expected = with_gradients(model, batch, lambda *inputs: padded(model, *inputs))
    for got, wanted in zip(with_gradients(model, batch, packed(model)), expected, strict=True):
        assert got.dtype == wanted.dtype
        assert (got.float() - wanted.float()).norm() <= 2e-2 * wanted.float().norm()


def test_the_kernel_for_varying_lengths_is_given_what_it_takes(monkeypatch):
    """A stand-in for a GPU: our side of the call is what is tested."""
    calls = []
    monkeypatch.setattr(qlip.towers.packing, "_has_kernel", lambda query: True)
    monkeypatch.setattr(
        qlip.towers.packing,
        "varlen_attn",
        lambda *args, scale: (calls.append(1), fake_varlen(*args, scale=scale))[1],
        raising=True,
    )
    model, batch = tower(), ragged()
    expected = with_gradients(model, batch, lambda *inputs: padded(model, *inputs))
    assert_all_close(with_gradients(model, batch, packed(model)), expected, 1e-5)
    assert len(calls) == LAYERS


@torch.no_grad()
def test_padding_of_the_output_is_zero():
    batch = ragged()
    for states in tower()(batch, output_hidden_states=True).hidden_states:
        keep = F.pad(batch.mask, (1, 0), value=True)
        assert states[keep].abs().amax(-1).min() > 0
        assert not states[~keep].any()


@torch.no_grad()
def test_padding_may_be_anywhere():
    model, batch = tower(), ragged((7, 12))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    moved = PatchBatch(batch.patches[:, order], batch.coords[:, order], batch.mask[:, order])
    got, expected = model(moved), model(batch)
    assert_all_close([got.pooler_output], [expected.pooler_output], 1e-5)
    assert_all_close([got.last_hidden_state[:, 1:]], [expected.last_hidden_state[:, 1:][:, order]], 1e-5)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_changes_nothing(reentrant):
    model, batch = tower(), ragged()
    expected = with_gradients(model, batch, packed(model))
    for layer in model.vision_model.encoder.layers:  # what transformers' own switch sets
        layer.train().gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=reentrant)
    positions = model.position(batch.coords).detach().requires_grad_()
    loss = loss_of(model(batch, positions=positions).last_hidden_state, F.pad(batch.mask, (1, 0), value=True))
    with Operations() as operations:
        loss.backward()
    assert operations.attention() == 2 * LAYERS * len(batch)  # once more forward, once back
    assert_all_close([positions.grad, *(weight.grad for weight in trained(model))], expected[1:], 1e-5)


def test_clips_configuration_stays_as_it_was():
    clip = random_clip(64, 1, image_size=112)
    before = copy.deepcopy(clip.config.to_dict()), clip.config._attn_implementation
    functions = dict(AttentionInterface._global_mapping)
    QlipVisionModel.from_clip(clip, "bicubic")(ragged())
    assert (clip.config.to_dict(), clip.config._attn_implementation) == before
    assert AttentionInterface._global_mapping == functions


def test_layers_compile_into_one_graph():
    layer = tower().vision_model.encoder.layers[0]
    states = torch.randn(1, 30, 128)
    images = PackedImages.of([10, 20], states.device)
    expected = layer(states, images)
    layer.compile(backend="eager", fullgraph=True)
    assert_all_close([layer(states, images)], [expected], 1e-5)
    torch._dynamo.reset()  # what it keeps is in the way of tests that look at all tensors there are


def test_lengths_go_to_the_device_of_their_layer():
    images = PackedImages.of([10, 20], torch.device("cpu")).to("meta", non_blocking=True)
    assert images.lengths == [10, 20]
    assert images.offsets.device.type == "meta"


def test_lengths_are_no_mask_for_anything_else():
    with pytest.raises(TypeError, match="got PackedImages for a mask; only scaled_dot_product_attention takes it"):
        torch.add(torch.zeros(3), PackedImages.of([1, 2], torch.device("cpu")))


# Counted, not timed: what must not creep back.


def products_and_attention(model, batch) -> tuple[int, int]:
    with Operations() as operations, torch.no_grad():
        model(batch)
    return operations.products(), operations.attention()


def test_a_ragged_batch_takes_as_many_matrix_products_as_one_image():
    model, batch = tower(), ragged()
    products, attention = products_and_attention(model, singles(batch)[0])
    assert attention == LAYERS
    assert products_and_attention(model, batch) == (products, LAYERS * len(batch))
    assert products_and_attention(model, ragged((20, 20, 20))) == (products, LAYERS)


@torch.no_grad()
def test_encoding_waits_for_the_device_as_often_whatever_the_batch():
    model = tower()

    def waits(*counts):
        batch = ragged(counts)
        with Waits() as seen:
            model(batch)
        return seen.seen()

    assert waits(4, 9) == waits(*range(2, 10)) == {"tolist": 1, "nonzero": 2, "tensor": 1}
    assert waits(9, 9) == waits(*[9] * 8) == {"tolist": 1, "tensor": 1}


def kept_for_backward(model, batch) -> int:
    """Bytes of the activations that a backward pass to the positions keeps; weights, which are there anyway, not counted."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that its address is not given away again
        return tensor

    positions = torch.randn(*batch.coords.shape[:2], 128, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pooled = model(batch, positions=positions).pooler_output
    assert pooled.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def test_memory_grows_with_the_tokens_not_with_the_longest_image():
    model, batch = tower().requires_grad_(False), ragged((500, *[10] * 15))
    together, apart = kept_for_backward(model, batch), sum(kept_for_backward(model, image) for image in singles(batch))
    assert together <= 1.05 * apart


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that is made; views of what was there before do not count."""

    def __init__(self, *given):
        super().__init__()
        self.given, self.bytes = {tensor.data_ptr() for tensor in given}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.given:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return made


@torch.no_grad()
def test_nothing_is_computed_for_padding(monkeypatch):
    """On the way to [CLS]: the hidden states that a user asks for come back padded."""
    monkeypatch.setattr(Packing, "unpack", lambda self, states: states)
    model, counts = tower(), (100, *[4] * 31)
    batch = ragged(counts)
    with Largest(batch.patches, *model.parameters()) as largest:
        model(batch)
    widest = max(3 * 14 * 14, 4 * 128)  # a patch, or the MLP inside a layer
    assert largest.bytes <= 4 * widest * sum(1 + n for n in counts)
