from collections.abc import Iterator

import torch
from torch import Tensor

from qlip.training.micro_batches import sum_of_micro_batches
from tests.training.counters import KeptActivations


def test_a_sum_of_micro_batches_has_the_gradient_of_the_sum_and_the_memory_of_a_term() -> None:
    x, weights = torch.randn(50, 3, requires_grad=True), torch.randn(4, 3, 3)

    def terms(x: Tensor) -> Iterator[Tensor]:
        for weight in weights:
            yield (x @ weight).tanh().square().sum()

    plain, at_once = KeptActivations(), KeptActivations()
    plain.during(lambda: sum(terms(x)).mul(3).backward())  # type: ignore[union-attr]
    expected, x.grad = x.grad, None
    at_once.during(lambda: sum_of_micro_batches(terms, x).mul(3).backward())
    assert x.grad is not None
    assert expected is not None
    torch.testing.assert_close(x.grad, expected)
    assert at_once.most < plain.most / 2
