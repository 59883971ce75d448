"""Lists longer than a launch's parameters: their table stays on the device, and a step is one launch again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from backends import BACKENDS
from ops import emulator
from ops.call import Call, make_call
from ops.cases import BF16, FP32, TensorCase
from ops.test_determinism import assert_same
from rules import RULES, first

EMULATED = BACKENDS["emulated"]
pytestmark = pytest.mark.skipif(EMULATED.missing() is not None, reason=str(EMULATED.missing()))

MANY = 600
"""More than the parameters of a launch hold of any rule's entries."""


def make_long(rule: str, count: int = MANY, **options) -> Call:
    cases = [TensorCase((i % 7, 3), (FP32, BF16)[i % 2]) for i in range(count)]
    return make_call(RULES[rule], first(RULES[rule]), cases, **options)


def launches_of(call: Call) -> int:
    with emulator.launches() as counted:
        call.run(EMULATED)
    return counted[0]


@contextmanager
def capturing() -> Iterator[None]:
    emulator.library().momentum_emulator_set_capturing(1)
    try:
        yield
    finally:
        emulator.library().momentum_emulator_set_capturing(0)


def run_inline(call: Call) -> None:
    """Step with the whole table in the parameters, as under capture; parity of that way is tested for every rule elsewhere."""
    with capturing():
        call.run(EMULATED)


@pytest.mark.parametrize("rule", RULES)
def test_one_launch_per_pass_from_the_second_step_on(rule):
    call = make_long(rule)
    twin = call.clone()
    passes = 1 + RULES[rule].passes
    assert launches_of(call) > passes  # the table is brought to the device
    assert launches_of(call) == passes
    for _ in range(2):
        run_inline(twin)
    assert_same(twin, call)


def test_four_thousand_tensors():
    call = make_long("adam", 4000)
    launches_of(call)
    assert launches_of(call) == 1


def test_what_changes_between_steps_needs_no_new_table():
    """New gradients at new addresses, and rates from a schedule."""
    call = make_long("adam", lr=[0.01, 0.02, 0.03] * (MANY // 3), weight_decay=[0.1], decay=2)
    twin = call.clone()
    launches_of(call)
    run_inline(twin)
    for each in (call, twin):
        each.lists["grads"] = [torch.full_like(g, 0.5) for g in each.lists["grads"]]
        each.options["lr"] = [0.5 * lr for lr in each.options["lr"]]
    assert launches_of(call) == 1
    run_inline(twin)
    assert_same(twin, call)


def test_a_moved_state_is_noticed():
    call = make_long("adam")
    twin = call.clone()
    for each, run in ((call, launches_of), (twin, run_inline)):
        run(each)
        states = each.lists["exp_avgs"]
        states[300] = states[300].clone()
        run(each)
    assert_same(twin, call)


def test_two_lists_in_turn_keep_their_tables():
    one, two = make_long("adam"), make_long("adam", MANY + 1)
    launches_of(one), launches_of(two)
    assert launches_of(one) == launches_of(two) == 1


def test_many_different_rates_take_several_launches():
    """Only so many pairs of learning rate and weight decay fit the parameters; beyond that the table travels whole."""
    call = make_long("adam", lr=[1e-3 * (1 + i) for i in range(MANY)])
    twin = call.clone()
    launches_of(call)
    assert launches_of(call) > 1
    for _ in range(2):
        run_inline(twin)
    assert_same(twin, call)


def test_a_captured_step_carries_its_table():
    """A graph outlives the call: nothing it reads may be owned by a cache."""
    call = make_long("adam")
    twin = call.clone()
    launches_of(call)
    with capturing():
        assert launches_of(call) > 1
    for _ in range(2):
        twin.run(EMULATED)
    assert_same(twin, call)
