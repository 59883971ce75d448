"""How many kernels a step launches: one for a map, one more for each reduction it depends on, for any list."""

from __future__ import annotations

import pytest

from backends import BACKENDS
from momentum.enums import Cautious
from ops import emulator
from ops.call import make_call
from ops.cases import BF16, FP32, TensorCase, dtype_mixes
from ops.test_determinism import assert_same, calls
from rules import RULES, first

EMULATED = BACKENDS["emulated"]
pytestmark = pytest.mark.skipif(EMULATED.missing() is not None, reason=str(EMULATED.missing()))


@pytest.mark.parametrize("rule", RULES)
def test_mixed_dtypes_share_launches(rule):
    """One launch for the map and one for each reduction, whatever mix of sixteen- and thirty-two-bit types is listed."""
    cases = [case for case in dtype_mixes() if case.arithmetic == FP32]
    call = make_call(RULES[rule], first(RULES[rule]), cases)
    with emulator.launches() as counted:
        call.run(EMULATED)
    assert counted == [1 + RULES[rule].passes]


def test_cautious_rescaling_is_one_more():
    call = make_call(RULES["adam"], first(RULES["adam"]), dtype_mixes()[:20], cautious=Cautious.RESCALED)
    with emulator.launches() as counted:
        call.run(EMULATED)
    assert counted == [2]


@pytest.mark.parametrize("rule", ["adam", "stable_spam"])
def test_lists_of_thousands(rule):
    """4000 tensors are one launch a pass once their table is on the device, and get what they get in lists of 2000."""
    n = 4000
    cases = [TensorCase((5 + i % 3, 2), (FP32, BF16)[i % 2]) for i in range(n)]
    call = make_call(RULES[rule], first(RULES[rule]), cases)
    halves = [call.clone().select(list(range(k, n, 2))) for k in (0, 1)]
    call.run(EMULATED)
    with emulator.launches() as counted:
        call.run(EMULATED)
    assert counted == [1 + RULES[rule].passes]
    for k, half in enumerate(halves):
        half.run(EMULATED)
        half.run(EMULATED)
        assert_same(call.select(list(range(k, n, 2))), half)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", ["reverse", "permuted"])
def test_any_schedule_order(rule, order):
    forward = calls(rule, "cpu")
    other = forward.clone()
    forward.run(EMULATED)
    with emulator.order(order, seed=3):
        other.run(EMULATED)
    assert_same(forward, other)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [1, 13])
def test_any_grid(rule, count):
    """The number of blocks follows the device; the bits do not."""
    usual = calls(rule, "cpu")
    other = usual.clone()
    usual.run(EMULATED)
    with emulator.multiprocessors(count):
        other.run(EMULATED)
    assert_same(usual, other)
