"""Steps with quantised states on every backend: every rule, format, size and option, against the float64 reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from momentum.enums import Cautious, DecayMode, Residual, Rounding
from ops.cases import BF16, FP16, FP32, TensorCase
from ops.quantised import SIGNED, check, quantised_call, scales_of
from ops.test_determinism import assert_same
from ops.test_parity import per_tensor
from rules import RULES, VARIANTS, first
from tolerances import bit_equal

STATEFUL = [(rule, name) for rule, name in VARIANTS if RULES[rule].stored(RULES[rule].variants[name])]


def run_and_check(backend, call, formats):
    before = call.clone()
    call.run(backend)
    check(before, call, formats)


@pytest.mark.parametrize("kind", SIGNED)
@pytest.mark.parametrize(("rule", "variant"), STATEFUL, ids=map("-".join, STATEFUL))
def test_step(backend, rule, variant, kind):
    """All sizes, dtypes, alignments and layouts, with plain states among them, in one list."""
    call, formats = quantised_call(
        RULES[rule], RULES[rule].variants[variant], kind, device=backend.device, decay=DecayMode.DECOUPLED, seeds=[11]
    )
    call.options |= per_tensor(len(call.cases))
    run_and_check(backend, call, formats)


def last(rule):
    return list(RULES[rule].variants.values())[-1]


@pytest.mark.parametrize("kind", ["int4", "int8", "stochastic"])
@pytest.mark.parametrize("rule", ["adam", "stable_spam", "scale"])
def test_trajectory(backend, rule, kind):
    """Several steps in a row: each is checked from the codes that the last one left."""
    call, formats = quantised_call(
        RULES[rule], last(rule) if rule == "scale" else first(RULES[rule]), kind, device=backend.device
    )
    for _ in range(4):
        run_and_check(backend, call, formats)


OPTIONS = {
    "kahan": {"residual": Residual.KAHAN},
    "master": {"residual": Residual.MASTER},
    "low_bits": {"residual": Residual.LOW_BITS},
    "low_bits_stochastic": {"residual": Residual.LOW_BITS, "rounding": Rounding.STOCHASTIC},
    "master_stochastic": {"residual": Residual.MASTER, "rounding": Rounding.STOCHASTIC},
    "stochastic": {"rounding": Rounding.STOCHASTIC},
    "ema": {"ema": True, "ema_decay": 0.9},
    "ema_low_bits": {"ema": True, "ema_decay": 0.9, "residual": Residual.LOW_BITS},
    "mask": {"cautious": Cautious.MASK},
    "rescaled": {"cautious": Cautious.RESCALED},
    "l2": {"decay": DecayMode.L2, "weight_decay": [0.1]},
    "maximize": {"maximize": True},
    "grad_scale": {"grad_scale": torch.tensor(8.0), "found_inf": torch.tensor(0.0)},
}


@pytest.mark.parametrize("kind", ["int4", "stochastic"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("rule", ["adam", "lion", "scale"])
def test_options(backend, rule, option, kind):
    options = {"seeds": [2**63 - 1], **OPTIONS[option]}
    variant = last("scale") if rule == "scale" else first(RULES[rule])
    call, formats = quantised_call(RULES[rule], variant, kind, device=backend.device, **options)
    run_and_check(backend, call, formats)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("residual", [Residual.NONE, Residual.LOW_BITS])
def test_overflow_writes_nothing(backend, rule, residual):
    found = torch.tensor(1.0)
    call, _ = quantised_call(RULES[rule], last(rule), "int4", device=backend.device, found_inf=found, residual=residual)
    before = call.clone()
    call.run(backend)
    assert_same(before, call)
    assert torch.equal(before.steps, call.steps)


@pytest.mark.parametrize(
    ("rule", "variant", "step"), [("sgd", "momentum", 0), ("spam", "resets", 19), ("stable_spam", "resets", 19)]
)
def test_states_that_a_step_does_not_read(backend, rule, variant, step):
    """At a first step or a reset, what was stored does not matter: scales of NaN and arbitrary codes leave no trace."""
    chosen = replace(RULES[rule].variants[variant], steps=(step,))
    cases = [TensorCase((1000,)), TensorCase((3, 77), BF16, BF16)]
    clean, formats = quantised_call(RULES[rule], chosen, "int4", cases, which=lambda name, i: True, device=backend.device)
    spoiled = clean.clone()
    for tensor in spoiled.lists["scales"]:
        tensor.fill_(torch.nan)
    for name in formats:
        for tensor in spoiled.lists[name]:
            tensor.fill_(0x3C)
    clean.run(backend)
    spoiled.run(backend)
    assert_same(clean, spoiled)
    assert all(tensor.isfinite().all() for tensor in spoiled.lists["scales"])


ENDS = (1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 95, 96, 97, 511, 512, 513, 527, 528, 543, 544, 545, 1023, 1040, 1056)


def everywhere(name, i):
    return True


@pytest.mark.parametrize("kind", ["int4", "int8", "small", "stochastic"])
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_ends(backend, dtype, kind):
    """Tensors that end anywhere in a vector, a pair of vectors, a group of codes, a block or a tile."""
    cases = [TensorCase((n,), dtype, dtype, offset=i % 2) for i, n in enumerate(ENDS)]
    call, formats = quantised_call(RULES["adam"], first(RULES["adam"]), kind, cases, which=everywhere, device=backend.device)
    run_and_check(backend, call, formats)


@pytest.mark.parametrize("kind", ["int4", "int8", "small", "stochastic"])
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_blocks_that_need_care(backend, dtype, kind):
    """Blocks of nothing but zeros, and of numbers so small that they are scaled in two steps, beside usual ones."""
    cases = [TensorCase((n,), dtype, dtype) for n in (1056, 1000)]
    call, formats = quantised_call(RULES["adam"], first(RULES["adam"]), kind, cases, which=everywhere, device=backend.device)
    for i in range(len(cases)):
        call.lists["grads"][i][:256] = 0.0
        call.lists["grads"][i][256:512] *= 1e-12
        for name, chosen in formats.items():
            scales, per_part = scales_of(call, formats, name, i), 256 // chosen.block
            scales[:per_part] = 0.0
            scales[per_part : 2 * per_part] = 1e-28
    run_and_check(backend, call, formats)
    for name in formats:
        assert (scales_of(call, formats, name, 0)[0] == 0).item()


@pytest.mark.parametrize("kind", ["int4", "int8"])
@pytest.mark.parametrize("dtype", [FP32, BF16])
def test_not_a_number_shows_in_its_block_alone(backend, dtype, kind):
    """A NaN gradient spoils its block of each state, and no other."""
    call, formats = quantised_call(
        RULES["adam"], first(RULES["adam"]), kind, [TensorCase((1000,), dtype, dtype)], which=everywhere, device=backend.device
    )
    clean = call.clone()
    call.lists["grads"][0][300] = torch.nan
    call.lists["grads"][0][303] = torch.nan
    clean.run(backend)
    call.run(backend)
    for name, chosen in formats.items():
        scales, spoiled = scales_of(call, formats, name, 0).cpu(), 300 // chosen.block
        assert scales.isnan().nonzero().tolist() == [[spoiled]]
        others = torch.arange(len(scales)) != spoiled
        assert bit_equal(scales[others], scales_of(clean, formats, name, 0).cpu()[others])
    param = call.lists["params"][0].cpu()
    others = ~param.isnan()
    assert (~others).nonzero().tolist() == [[300], [303]]
    assert bit_equal(param[others], clean.lists["params"][0].cpu()[others])
    if dtype == BF16:
        assert param[~others].view(torch.int16).tolist() == [0x7FC0, 0x7FC0]
    call.lists["grads"][0].fill_(0.5)
    call.run(backend)
    begin, block = 300 // chosen.block * chosen.block, chosen.block
    assert torch.equal(call.lists["params"][0].isnan().cpu().nonzero().flatten(), torch.arange(begin, begin + block))


LIST = [TensorCase((n,), p, p, offset=i % 4) for i, (n, p) in enumerate([(5, FP32), (4096, BF16), (257, FP16), (40_001, FP32)])]
LIST += [TensorCase((130, 257)), TensorCase((1,), BF16), TensorCase((0,)), TensorCase((3, 9001), BF16, FP32, offset=1)]


def stochastic_call(rule, device, cases=LIST, kind="stochastic"):
    options = {"cautious": Cautious.RESCALED, "rounding": 1, "seeds": list(range(len(cases)))}
    return quantised_call(RULES[rule], last(rule), kind, cases, device=device, seed=8, **options)[0]


@pytest.mark.parametrize("kind", ["int4", "stochastic"])
@pytest.mark.parametrize("rule", RULES)
def test_whatever_else_is_in_the_list(backend, rule, kind):
    together = stochastic_call(rule, backend.device, kind=kind)
    backwards, alone, again = together.clone(), together.clone(), together.clone()
    order = list(reversed(range(len(LIST))))
    together.run(backend)
    again.run(backend)
    backwards.select(order).run(backend)
    for i in order:
        alone.select([i]).run(backend)
    assert_same(together, again)
    assert_same(together, backwards)
    assert_same(together, alone)


@pytest.mark.parametrize("offset", [1, 2, 3])
@pytest.mark.parametrize("rule", RULES)
def test_alignment(backend, rule, offset):
    aligned = stochastic_call(rule, backend.device, [replace(case, offset=0) for case in LIST])
    moved = stochastic_call(rule, backend.device, [replace(case, offset=offset) for case in LIST])
    aligned.run(backend)
    moved.run(backend)
    assert_same(aligned, moved)


@pytest.mark.parametrize("rule", RULES)
def test_plain_steps(rule):
    """Without any option, as the CPU steps whole vectors of 4-bit states: at any alignment, and on any number of threads."""
    from backends import BACKENDS

    def step(cases):
        call, _ = quantised_call(RULES[rule], last(rule), "int4", cases, which=lambda name, i: True, seed=8)
        call.run(BACKENDS["cpu"])
        return call

    together = step([replace(case, offset=0) for case in LIST])
    torch.set_num_threads(3)
    try:
        moved = step([replace(case, offset=1 + i % 3) for i, case in enumerate(LIST)])
    finally:
        torch.set_num_threads(1)
    assert_same(together, moved)


@pytest.mark.parametrize("rule", RULES)
def test_threads(rule):
    """The CPU kernels on one thread and on three."""
    from backends import BACKENDS

    one = stochastic_call(rule, "cpu")
    three = one.clone()
    one.run(BACKENDS["cpu"])
    torch.set_num_threads(3)
    try:
        three.run(BACKENDS["cpu"])
    finally:
        torch.set_num_threads(1)
    assert_same(one, three)


@pytest.mark.parametrize("rule", ["adam", "lion"])
def test_shards_draw_the_words_of_the_whole(backend, rule):
    """A shard's random words are those of its elements in the whole tensor."""
    cases = [TensorCase((512,)), TensorCase((4, 64), BF16, BF16)]
    shards = [1024, 512, 512, 32, 64, 128]  # a run from element 1024 on; columns 32 to 96 of rows of 128
    call, formats = quantised_call(
        RULES[rule],
        first(RULES[rule]),
        "stochastic",
        cases,
        which=lambda name, i: True,
        device=backend.device,
        seeds=[3, 4],
        shards=shards,
    )
    run_and_check(backend, call, formats)
