"""Steps of subsets past the dispatcher: see test_direct.py."""

from __future__ import annotations

import pytest

from backends import Backend
from momentum import _direct
from ops.cases import TensorCase
from ops.subset import OPTIMIZERS, SubsetCall, make_subset
from ops.test_direct import CASES, Subclass
from ops.test_subset import REFUSED as REFUSED_SUBSETS
from ops.test_subset import subset_to_break
from tolerances import bit_equal


def direct_subset(backend: Backend, call: SubsetCall) -> bool:
    """Return whether the call was run past the dispatcher."""
    tensors = [call.lists[name] for name in ("params", "grads", *call.stored, "masks")]
    options = call.hypers | call.options | {"counts": call.counts}
    return _direct.step(backend.namespace, f"{call.rule.name}_subset", [*tensors, call.steps], options)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_same_bits_of_subsets(backend, rule, axis):
    options = {"interval": 2, "restart": True, "rest": 2, "decay": 2, "max_lr": 0.5}
    call = make_subset(rule, CASES[:2] * 3, device=backend.device, axis=axis, **options)
    twin = call.clone()
    for _ in range(3):
        assert direct_subset(backend, call)
        twin.run(backend)
    for name, tensor in twin.tensors().items():
        assert bit_equal(call.tensors()[name], tensor), name


@pytest.mark.parametrize("name", REFUSED_SUBSETS)
def test_refused_subsets_are_left_to_the_op(backend, name):
    if backend.device != "cpu":
        pytest.skip("the checks are the same code")
    call = subset_to_break(backend.device)
    REFUSED_SUBSETS[name][0](call)
    before = {key: tensor.clone() for key, tensor in call.tensors().items()}
    assert not direct_subset(backend, call)
    assert [key for key, tensor in call.tensors().items() if not bit_equal(tensor, before[key])] == []


def test_many_subsets():
    """Enough for threads to share the reading; the last tensor may be what the op must see."""
    cpu = Backend("cpu", "momentum", "cpu")
    call = make_subset("adam", [TensorCase((6, 4))] * 300, axis=1, interval=2, restart=True)
    twin = call.clone()
    assert direct_subset(cpu, call)
    twin.run(cpu)
    for name, tensor in twin.tensors().items():
        assert bit_equal(call.tensors()[name], tensor), name
    call.lists["grads"][-1] = call.lists["grads"][-1].as_subclass(Subclass)
    assert not direct_subset(cpu, call)
