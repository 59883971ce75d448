"""The step counters: one float per tensor before the call, moved on by it, and the arrival counter behind them."""

from __future__ import annotations

import pytest
import torch

from ops.call import check, make_call
from ops.cases import TensorCase, mixed_few
from rules import RULES, first


@pytest.mark.parametrize("rule", RULES)
def test_each_tensor_has_its_own(backend, rule):
    call = make_call(RULES[rule], first(RULES[rule]), mixed_few(), device=backend.device)
    call.steps[:-1] = torch.tensor([0.0, 7.0, 3.0, 0.0, 1e6, 2.0, 100.0, 1.0])
    before = call.clone()
    call.run(backend)
    check(before, call)


def test_they_count_calls(backend):
    call = make_call(RULES["adam"], first(RULES["adam"]), mixed_few(), device=backend.device)
    call.steps.zero_()
    for k in range(1, 6):
        call.run(backend)
        assert call.steps.tolist() == [float(k)] * len(call.cases) + [0.0]


def test_empty_list(backend):
    """Nothing to do is no error, and leaves the counter of an empty list alone."""
    for rule in RULES:
        call = make_call(RULES[rule], first(RULES[rule]), [], device=backend.device)
        call.run(backend)
        assert call.steps.tolist() == [0.0]


@pytest.mark.parametrize("rule", RULES)
def test_only_empty_tensors(backend, rule):
    """An empty tensor has steps too."""
    call = make_call(RULES[rule], first(RULES[rule]), [TensorCase((0,)), TensorCase((0, 5))], device=backend.device)
    call.steps.zero_()
    call.run(backend)
    assert call.steps.tolist() == [1.0, 1.0, 0.0]
