"""Every family, one row each: every way to read a prompt, to go on from it, to train on it and to keep the weights elsewhere."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from torch import Tensor, nn

from tests.families.case import Case, deviation, inputs_of
from tests.families.row import PLACEHOLDER

MODES = {
    "static cache": {"cache_implementation": "static"},
    "no cache": {"use_cache": False},
    "chunked prefill": {"prefill_chunk_size": 16},
}
TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")


def generate(model: Any, inputs: Any, **mode: object) -> Any:
    """Greedily, six new tokens; with the logits of each step."""
    wanted = {"return_dict_in_generate": True, "output_logits": True}
    return model.generate(
        **copy.copy(inputs), max_new_tokens=6, do_sample=False, no_repeat_ngram_size=1, **wanted, **mode
    )


def alike(case: Case, one: Any, other: Any) -> bool:
    """Whether two runs said the same for the same reasons."""
    logits = [torch.stack(run.logits) for run in (one, other)]
    same = deviation(*logits) < 1e-5 * case.row.rounding
    return same and torch.equal(*(run.sequences[:, -6:] for run in (one, other)))


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_every_way_to_read_the_prompts_gives_the_same_answers(case, mode):
    def reads_alike(model, inputs):
        return alike(case, generate(model, inputs, **MODES[mode]), generate(model, inputs))

    if mode in case.row.lacks:
        assert fails(lambda: reads_alike(case.model, case.stock_inputs()))
        return
    converted, new = case.convert(max_tokens=50, cover="full", size=None)
    assert reads_alike(converted, case.inputs(new, case.pictures))


def fails(check: Any) -> bool:
    """Whether a stock model raises, or says something else."""
    try:
        return not check()
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return True


def joined(case: Case, first: Any, reply: Tensor, second: Any) -> dict[str, Any]:
    """Prompt, reply and the next prompt as one, with the images of both."""
    ids = torch.cat([first["input_ids"], reply, second["input_ids"]], dim=1)
    whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for name in first.keys() & set(TOKEN_TYPES):
        whole[name] = torch.cat([first[name], torch.zeros_like(reply), second[name]], dim=1)
    for name in case.row.leaves:
        parts = [turn[name] for turn in (first, second) if name in turn]
        whole[name] = torch.cat(parts) if torch.is_tensor(parts[0]) else [each for part in parts for each in part]
    return whole


@torch.no_grad()
@pytest.mark.parametrize("own_image", [True, False])
def test_a_second_turn_goes_on_from_the_cache_of_the_first(case, own_image):
    """The prompt then holds the images of both turns, ``pixel_values`` those of the second alone."""

    def goes_on(model, processor, images, **options):
        first = inputs_of(processor, images[:1], case.prompts[:1], **options)
        second = inputs_of(processor, [images[1][:1]], [f"{case.row.mark} left or right"], **options)
        if not own_image:
            second = {name: value[:, -3:] for name, value in second.items() if name not in case.row.leaves}
        turn = generate(model, first)
        whole = joined(case, first, turn.sequences[:, -6:], second)
        new = {name: value for name, value in whole.items() if name != "pixel_values"}
        if own_image:
            new["pixel_values"] = second["pixel_values"]
        return alike(case, generate(model, new, past_key_values=turn.past_key_values), generate(model, whole))

    if "second turn" in case.row.lacks:
        assert fails(lambda: goes_on(case.model, case.processor, case.natives, **dict(case.row.plain)))
        return
    assert goes_on(*case.convert(max_tokens=50, cover="full", size=None), case.pictures)


def labels_of(inputs: Any) -> Tensor:
    """The words of the prompts."""
    ids = inputs["input_ids"]
    return ids.masked_fill((inputs["attention_mask"] == 0) | (ids >= PLACEHOLDER), -100)


def gradients(model: Any, inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
    loss = model(**{**inputs, "labels": labels_of(inputs)}).loss
    loss.backward()
    return loss, {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def test_loss_and_gradients_at_the_native_size_are_stocks(case):
    which = slice(*case.row.compared)
    loss, expected = gradients(case.model.train(), case.stock_inputs(which))
    case.model.zero_grad()
    converted, new = case.convert(criterion="uniform", max_tokens=None)
    own_loss, reached = gradients(converted, case.inputs(new, case.natives, which))
    assert deviation(own_loss, loss) < 1e-6
    missed = [name for name in expected if name not in reached]
    assert all("position_embedding" in name for name in missed)  # ours are made of a copy
    largest = max(each.abs().max() for each in expected.values())
    for name, gradient in reached.items():
        if "position_embedding" not in name:
            assert (gradient - expected[name]).abs().max() < 1e-5 * case.row.rounding * largest, name
    patches = next(name for name in reached if "patch" in name and name.endswith("weight"))
    words = next(
        name for name in reached if re.search(r"(language|text)_model\.layers\.0", name) and name.endswith("weight")
    )
    assert all(reached[name].abs().max() > 0 for name in (patches, words))


def test_gradients_of_a_ragged_batch_reach_what_stocks_reach(case):
    _, stock = gradients(case.model.train(), case.stock_inputs())
    case.model.zero_grad()
    converted, new = case.convert(max_tokens=50, cover="full", size=None)
    loss, reached = gradients(converted, case.inputs(new, case.pictures))
    assert loss.isfinite()
    for name in (name for name, each in stock.items() if each.abs().max() > 0 and "position_embedding" not in name):
        assert reached[name].abs().max() > 0, name


@torch.no_grad()
def test_bfloat16_costs_what_it_costs_stock(case):
    def cost(model, inputs):
        """Root mean square of what rounding changes, in parts of that of the logits."""
        seen = inputs["attention_mask"].bool()
        exact, half = model(**inputs).logits[seen], copy.deepcopy(model).to(torch.bfloat16)
        got = half(**copy.deepcopy(inputs).to(dtype=torch.bfloat16)).logits[seen]
        assert got.dtype == torch.bfloat16
        return (got.float() - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt()

    stock = cost(case.model, case.stock_inputs())
    assert stock < 0.03 * case.row.rounding
    trees, new = copy.deepcopy(case).convert(max_tokens=50, cover="full", size=None)
    assert cost(trees, case.inputs(new, case.pictures)) < 1.5 * stock
    grids, new = case.convert(criterion="uniform", max_tokens=None)
    assert cost(grids, case.inputs(new, case.natives)) < 1.2 * stock


def tower_of(model: Any) -> nn.Module:
    return next(module for name, module in model.model.named_children() if name.startswith("vis"))


def to_cpu(model: Any, folder: Path) -> None:
    cpu_offload(model, execution_device="cpu", offload_buffers=True)


def by_parts(model: Any, folder: Path) -> None:
    """As ``device_map="auto"`` with the tower on disk."""
    own = [*model.model.named_children(), *model.model.named_parameters(recurse=False)]
    parts = {f"model.{name}": "cpu" for name, _ in own}
    tower = next(f"model.{name}" for name, module in model.model.named_children() if module is tower_of(model))
    dispatch_model(model, {**parts, "lm_head": "cpu", tower: "disk"}, main_device="cpu", offload_dir=str(folder))


@torch.no_grad()
@pytest.mark.parametrize("offload", [to_cpu, by_parts])
@pytest.mark.parametrize("convert_first", [True, False])
def test_weights_may_be_elsewhere(case, tmp_path, offload, convert_first):
    other = copy.deepcopy(case)
    if {"offload", offload.__name__} & case.row.lacks.keys():
        offload(other.model, tmp_path)
        assert fails(lambda: alike(case, *(generate(each.model, case.stock_inputs()) for each in (case, other))))
        return
    converted, new = case.convert(max_tokens=50, cover="full", size=None)
    inputs = case.inputs(new, case.pictures)
    expected = generate(converted, inputs)
    if convert_first:
        other.convert()
    offload(other.model, tmp_path)
    if not convert_first:
        other.convert()
    for _ in range(2):  # weights go back to where they were
        assert all(each.device.type == "meta" for each in tower_of(other.model).parameters())
        assert alike(case, generate(other.model, inputs), expected)
