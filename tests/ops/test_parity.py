"""Every rule on every backend against the float64 reference: dtype mixes, sizes, alignments and layouts in one list."""

from __future__ import annotations

import pytest

from momentum.enums import DecayMode
from ops.call import check, make_call
from ops.cases import dtype_mixes, layouts, sizes
from rules import RULES, VARIANTS, first


def per_tensor(n: int) -> dict[str, list[float]]:
    """Return learning rates and decays that differ between tensors, as parameter groups make them."""
    return {"lr": [0.01 * (1 + i % 5) for i in range(n)], "weight_decay": [0.1 * (i % 3) for i in range(n)]}


@pytest.mark.parametrize(("rule", "variant"), VARIANTS, ids=map("-".join, VARIANTS))
def test_dtype_mixes(backend, rule, variant):
    rule = RULES[rule]
    cases = dtype_mixes()
    if not rule.lines:
        cases += layouts()
    call = make_call(
        rule, rule.variants[variant], cases, device=backend.device, decay=DecayMode.DECOUPLED, **per_tensor(len(cases))
    )
    before = call.clone()
    call.run(backend)
    check(before, call)


@pytest.mark.parametrize("rule", RULES)
def test_edge_sizes(backend, rule):
    rule = RULES[rule]
    call = make_call(rule, first(rule), sizes(), device=backend.device, seed=1, ema=True, ema_decay=0.9)
    before = call.clone()
    call.run(backend)
    check(before, call)


@pytest.mark.parametrize("rule", RULES)
def test_trajectory(backend, rule):
    """Several steps in a row: each is checked from the state that the last one left."""
    rule = RULES[rule]
    call = make_call(rule, first(rule), dtype_mixes()[::9], device=backend.device, seed=2)
    for _ in range(3):
        before = call.clone()
        call.run(backend)
        check(before, call)
