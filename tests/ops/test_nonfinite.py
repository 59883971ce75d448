"""NaN and Inf: they propagate as in the reference, stay where they are, and with found_inf nothing is written."""

from __future__ import annotations

import pytest
import torch

from momentum.enums import Cautious, DecayMode, Residual
from ops.call import check, make_call
from ops.cases import dtype_mixes, mixed_few
from rules import RULES, VARIANTS, first
from tolerances import bit_equal

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("rule", "variant"), VARIANTS, ids=map("-".join, VARIANTS))
@pytest.mark.parametrize("cautious", [0, Cautious.MASK])
def test_propagation(backend, rule, variant, cautious):
    """Every non-finite result is the reference's, and so is every finite one."""
    rule = RULES[rule]
    call = make_call(rule, rule.variants[variant], mixed_few(), device=backend.device, seed=6, cautious=cautious)
    for i, grad in enumerate(call.lists["grads"]):
        for k, bad in enumerate((NAN, INF, -INF)):
            if grad.numel() > 20 * k + i:
                grad.view(-1)[20 * k + i] = bad
    before = call.clone()
    call.run(backend)
    check(before, call)


@pytest.mark.parametrize("rule", RULES)
def test_a_bad_tensor_spoils_no_other(backend, rule):
    rule = RULES[rule]
    variant = first(rule)
    clean = make_call(rule, variant, mixed_few(), device=backend.device, cautious=Cautious.RESCALED)
    dirty = clean.clone()
    dirty.lists["grads"][0].fill_(NAN)
    clean.run(backend)
    dirty.run(backend)
    assert dirty.lists["params"][0].isnan().all()
    for name in clean.lists:
        assert all(map(bit_equal, clean.lists[name][1:], dirty.lists[name][1:])), name


@pytest.mark.parametrize(("rule", "variant"), VARIANTS, ids=map("-".join, VARIANTS))
@pytest.mark.parametrize("residual", [0, Residual.KAHAN, Residual.MASTER])
def test_found_inf_writes_nothing(backend, rule, variant, residual):
    rule = RULES[rule]
    call = make_call(
        rule,
        rule.variants[variant],
        dtype_mixes()[residual::11],
        device=backend.device,
        residual=residual,
        ema=True,
        ema_decay=0.9,
        decay=DecayMode.DECOUPLED,
        cautious=Cautious.RESCALED,
        rounding=1 if residual != Residual.KAHAN else 0,
        grad_scale=torch.tensor(1024.0),
        found_inf=torch.tensor(1.0),
    )
    for grad in call.lists["grads"]:
        grad.fill_(INF)
    before = call.clone()
    call.run(backend)
    for (name, old), new in zip(before.tensors().items(), call.tensors().values(), strict=True):
        assert bit_equal(old, new), name
