"""Steps on a subset of the elements: every rule and axis on every backend against the float64 reference."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
import torch

from backends import BACKENDS
from momentum.enums import DecayMode, Units
from momentum.reference.subset import draw_units
from ops.cases import BF16, FP16, FP32, FP64, NARROW, SHAPES, TensorCase, layouts
from ops.subset import OPTIMIZERS, REST, SubsetCall, check_subset, make_subset, unpack
from tolerances import bit_equal

ELEMENTS, COLUMNS, ROWS = (int(unit) for unit in Units)
AXES = (ELEMENTS, COLUMNS, ROWS)
MIXES = [
    TensorCase(SHAPES[i * 5 % len(SHAPES)], param, grad, offset=i % 4)
    for i, (param, grad) in enumerate(itertools.product(NARROW * 4, NARROW))
]
LARGE = [TensorCase((70_001,)), TensorCase((300, 257)), TensorCase((3, 1030), BF16, BF16), TensorCase((513, 40), FP16, FP32)]
HYPERS = {
    "adam": {"beta1": 0.8, "beta2": 0.95},
    "lion": {},
    "sgd": {"momentum": 0.9},
    "spam": {"reset_interval": 8, "warmup_steps": 5, "accumulation_steps": 3, "threshold": 2.0},
}
INTERVALS = {ELEMENTS: {"interval": 8}, COLUMNS: {"interval": 8, "phase": 1, "restart": True}}
INTERVALS[ROWS] = INTERVALS[COLUMNS]
# Before, at and after steps that draw, for phases 0 and 1.
STEPS = (0, 1, 6, 7, 8, 9, 23)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_dtypes_and_sizes(backend, rule, axis):
    cases = MIXES + LARGE + ([case for case in layouts() if case.param != FP64] if axis == ELEMENTS else [])
    call = make_subset(
        rule, cases, steps=STEPS, device=backend.device, hypers=HYPERS[rule], axis=axis, rest=2, rest_scale=0.5,
        decay=DecayMode.DECOUPLED, lr=[0.01 * (1 + i % 3) for i in range(len(cases))],
        weight_decay=[0.1 * (i % 2) for i in range(len(cases))], **INTERVALS[axis],
    )  # fmt: skip
    before = call.clone()
    call.run(backend)
    check_subset(before, call)


@pytest.mark.parametrize("decay", [*DecayMode][1:])
@pytest.mark.parametrize("rest", REST)
def test_what_the_rest_does(backend, rest, decay):
    call = make_subset(
        "adam", MIXES[:12] + LARGE, device=backend.device, rest=REST.index(rest), rest_scale=0.3, maximize=True, decay=decay,
        weight_decay=[0.1], max_lr=0.02,
    )  # fmt: skip
    before = call.clone()
    call.run(backend)
    check_subset(before, call)


@pytest.mark.parametrize("density", [0.0, 0.003, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("axis", AXES)
def test_densities(backend, axis, density):
    cases = MIXES[::3] + LARGE
    call = make_subset("spam", cases, density=density, steps=STEPS, device=backend.device, axis=axis, **INTERVALS[axis])
    before = call.clone()
    call.run(backend)
    check_subset(before, call)


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_elements_chosen_again_keep_their_states(backend, rule):
    call = make_subset(rule, LARGE, density=0.6, steps=(4, 9), device=backend.device, interval=5, rest=1)
    before = call.clone()
    call.run(backend)
    check_subset(before, call)
    masks = [[unpack(mask, 70_001, 42_000) for mask in c.lists["masks"][:1]] for c in (before, call)]
    assert (masks[0][0] & masks[1][0]).any()
    assert not torch.equal(masks[0][0], masks[1][0])


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_trajectory(backend, rule):
    """Several steps in a row, over two draws: each is checked from the state that the last one left."""
    call = make_subset(rule, LARGE, steps=(0,), device=backend.device, hypers=HYPERS[rule], interval=3, rest=3)
    for _ in range(7):
        before = call.clone()
        call.run(backend)
        check_subset(before, call)


def test_gradient_scale_and_overflow(backend):
    call = make_subset("adam", LARGE, device=backend.device)
    scaled, refused = call.clone(), call.clone()
    scaled.lists["grads"] = [g * 4 for g in scaled.lists["grads"]]
    scaled.options |= {
        "grad_scale": torch.tensor([4.0], device=backend.device),
        "found_inf": torch.tensor([0.0], device=backend.device),
    }
    before = refused.clone()
    refused.options["found_inf"] = torch.tensor([1.0], device=backend.device)
    for c in (call, scaled, refused):
        c.run(backend)
    for name, tensors in call.lists.items():
        assert name == "grads" or all(map(bit_equal, tensors, scaled.lists[name]))
    assert all(bit_equal(t, refused.tensors()[name]) for name, t in before.tensors().items())


def test_numbers_on_the_device(backend):
    numbers = make_subset("adam", LARGE, device=backend.device, hypers={"beta1": 0.75}, lr=[0.125], rest=2)
    tensors = numbers.clone()
    tensors.hypers = {}
    tensors.options |= {
        "lr": [7.0],
        "lr_tensor": torch.tensor(0.125, device=backend.device),
        "beta1_tensor": torch.tensor(0.75, device=backend.device),
    }
    numbers.run(backend)
    tensors.run(backend)
    assert all(bit_equal(t, tensors.tensors()[name]) for name, t in numbers.tensors().items())


@pytest.mark.parametrize("axis", AXES)
def test_same_bits_whatever_else_is_in_the_list(backend, axis):
    together = make_subset("spam", MIXES + LARGE, steps=STEPS, device=backend.device, axis=axis, rest=2, **INTERVALS[axis])
    again, alone = together.clone(), together.clone()
    together.run(backend)
    again.run(backend)
    for i in reversed(range(len(together.cases))):
        alone.select([i]).run(backend)
    for name, tensors in together.lists.items():
        assert all(map(bit_equal, tensors, again.lists[name])), name
        assert all(map(bit_equal, tensors, alone.lists[name])), name


def test_long_lists(backend):
    """More tensors than a table in the launch's parameters holds."""
    call = make_subset("adam", [TensorCase((n % 70,)) for n in range(400)], density=0.5, device=backend.device, rest=2)
    for _ in range(2):
        before = call.clone()
        call.run(backend)
        check_subset(before, call)


def test_threads():
    one = make_subset("spam", LARGE, steps=STEPS, rest=2, interval=8)
    three = one.clone()
    one.run(BACKENDS["cpu"])
    torch.set_num_threads(3)
    try:
        three.run(BACKENDS["cpu"])
    finally:
        torch.set_num_threads(1)
    assert all(bit_equal(t, three.tensors()[name]) for name, t in one.tensors().items())


def test_draws_are_uniform():
    """Exact counts; every unit equally often; two draws overlap as often as chance has it."""
    units, count, draws = 1000, 250, 400
    chosen = torch.stack([draw_units(units, count, 9, period) for period in range(draws)])
    assert (chosen.sum(1) == count).all()
    times = chosen.sum(0).double()
    # Under chance (times - 100)^2 / 75 adds up to chi-squared, whose mean is `units` and whose variance 2 `units`.
    statistic = float(((times - draws / 4).square() / (draws * 3 / 16)).sum())
    assert statistic == pytest.approx(units, abs=5 * (2 * units) ** 0.5)
    overlap = float((chosen[1:] & chosen[:-1]).sum(1).double().mean())
    assert overlap == pytest.approx(count * count / units, abs=5 * (count * 0.75 * 0.75 / (draws - 1)) ** 0.5)


def break_mask(c):
    c.lists["masks"][0] = c.lists["masks"][0][:-1]


def share_memory(c):
    c.lists["grads"][0] = c.lists["params"][0]


REFUSED = {
    "grads_short": (lambda c: c.lists["grads"].pop(), r"grads has length 1, expected 2"),
    "masks_short": (lambda c: c.lists["masks"].pop(), r"masks has length 1, expected 2"),
    "states_short": (lambda c: c.lists["exp_avgs"].pop(), r"exp_avgs has length 1, expected 2"),
    "counts_short": (lambda c: c.counts.pop(), r"counts has length 1, expected 2"),
    "count_negative": (lambda c: c.counts.__setitem__(0, -1), r"counts\[0\] is -1, expected a number in \[0, 24\]"),
    "count_large": (lambda c: c.counts.__setitem__(0, 25), r"counts\[0\] is 25, expected a number in \[0, 24\]"),
    "count_of_another_state": (lambda c: c.counts.__setitem__(0, 5), r"exp_avgs\[0\] has shape \[6\], expected 5"),
    "mask_size": (break_mask, r"masks\[0\] has dtype int32 and shape \[0\], expected 1 contiguous elements of int32"),
    "mask_dtype": (lambda c: c.lists["masks"].__setitem__(0, torch.zeros(1)), r"masks\[0\] has dtype float32"),
    "param_double": (lambda c: c.lists["params"].__setitem__(1, torch.zeros(5, dtype=FP64)), r"params\[1\] has dtype float64"),
    "state_half": (lambda c: c.lists["exp_avg_sqs"].__setitem__(0, torch.zeros(6, dtype=FP16)), r"exp_avg_sqs\[0\].*float16"),
    "shared": (share_memory, r"(params|grads)\[0\] and (params|grads)\[0\] share memory"),
    "axis": (lambda c: c.options.update(axis=2), r"axis is 2, expected a number in \[-1, 1\]"),
    "rest": (lambda c: c.options.update(rest=4), r"rest is 4"),
    "rest_scale": (lambda c: c.options.update(rest_scale=-1.0), r"rest_scale is -1"),
    "interval": (lambda c: c.options.update(interval=-1), r"interval is -1"),
    "phase": (lambda c: c.options.update(phase=2), r"phase is 2"),
    "axis_without_restart": (lambda c: c.options.update(axis=1, interval=3), r"restart is False while axis is 1"),
    "lr": (lambda c: c.options.update(lr=[-1.0]), r"lr is -1"),
    "beta": (lambda c: c.options.update(beta1=1.0), r"beta1 is 1"),
    "decay_without_mode": (lambda c: c.options.update(weight_decay=[0.1]), r"weight_decay is 0.1 while decay is 0"),
    "steps": (lambda c: setattr(c, "steps", c.steps[:-1]), r"steps has shape \[2\], expected 3"),
    "transposed": (
        lambda c: c.lists["grads"].__setitem__(0, torch.zeros(4, 6).t()),
        r"grads\[0\] has strides \[1, 6\], expected \[4, 1\]",
    ),
}


def subset_to_break(device: str) -> SubsetCall:
    return make_subset("adam", [TensorCase((6, 4)), TensorCase((5,), FP32, BF16)], device=device)


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(backend, name):
    if backend.device != "cpu":
        pytest.skip("the checks are the same code")
    break_it, pattern = REFUSED[name]
    call = subset_to_break(backend.device)
    break_it(call)
    before = {name: tensor.clone() for name, tensor in call.tensors().items()}
    with pytest.raises(RuntimeError) as caught:
        call.run(backend)
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert f"{backend.namespace}::adam_subset_" in str(caught.value)
    assert all(bit_equal(t, before[name]) for name, t in call.tensors().items())


@pytest.mark.parametrize("axis", [COLUMNS, ROWS])
def test_columns_and_rows_need_row_major_memory(backend, axis):
    call = make_subset("adam", [replace(TensorCase((20, 33)), layout="transposed")], device=backend.device, axis=axis)
    with pytest.raises(RuntimeError, match=r"params\[0\] has strides \[1, 20\], expected a contiguous tensor"):
        call.run(backend)


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_opcheck(rule):
    call = make_subset(rule, [TensorCase((33, 5)), TensorCase(()), TensorCase((300,), BF16, BF16)])
    tensors = [call.lists[name] for name in ("params", "grads", *call.stored, "masks")]
    arguments = {"counts": call.counts, **call.hypers, **call.options}
    torch.library.opcheck(BACKENDS["cpu"].op(f"{rule}_subset_"), (*tensors, call.steps), arguments)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compile(compiler):
    """One graph without breaks, the same bits, and inputs that are mutated in place."""
    plain = make_subset("adam", [TensorCase((33, 5)), TensorCase((300,), BF16, BF16)], rest=2)
    traced = plain.clone()

    def run(params, grads, moments, squares, masks, steps):
        options = {"counts": plain.counts, **plain.options}
        torch.ops.momentum.adam_subset_(params, grads, moments, squares, masks, steps, **options)
        return [p * 2 for p in params]

    names = ("params", "grads", *plain.stored, "masks")
    expected = run(*(plain.lists[name] for name in names), plain.steps)
    torch._dynamo.reset()
    got = torch.compile(run, backend=compiler, fullgraph=True)(*(traced.lists[name] for name in names), traced.steps)
    assert all(map(bit_equal, got, expected))
    assert all(bit_equal(t, traced.tensors()[name]) for name, t in plain.tensors().items())


def test_export():
    call = make_subset("adam", [TensorCase((33, 5))])
    names = ("params", "grads", *call.stored, "masks")
    options = {"counts": call.counts, **call.options}

    class Step(torch.nn.Module):
        def forward(self, params, grads, moments, squares, masks, steps):
            torch.ops.momentum.adam_subset_(params, grads, moments, squares, masks, steps, **options)
            return [p * 2 for p in params]

    twin = call.clone()
    program = torch.export.export(Step(), (*(call.lists[name] for name in names), call.steps))
    assert any("momentum.adam_subset_" in str(node.target) for node in program.graph.nodes)
    got = program.module()(*(call.lists[name] for name in names), call.steps)
    assert all(map(bit_equal, got, Step()(*(twin.lists[name] for name in names), twin.steps)))
