"""What all steps share around the rule: every option on every rule, against the reference."""

from __future__ import annotations

import pytest
import torch

from momentum.enums import Cautious, DecayMode, Perpendicular, Residual
from ops.call import check, make_call
from ops.cases import mixed_few
from rules import RULES, VARIANTS

COUNT = len(mixed_few())
BETAS = ("adam", "lion", "adabelief", "diffgrad", "adan", "spam", "stable_spam")
"""Rules whose beta1 and beta2 may be tensors."""


def scalar(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(value, dtype=dtype)


OPTIONS = {
    **{f"decay_{mode.name.lower()}": {"decay": mode, "weight_decay": [0.3 * (mode > 0)]} for mode in DecayMode},
    "lr_decoupled_max_lr": {"decay": DecayMode.LR_DECOUPLED, "weight_decay": [0.05], "max_lr": 0.02},
    "l2_per_tensor": {"decay": DecayMode.L2, "weight_decay": [0.1 * (i % 3) for i in range(COUNT)]},
    "maximize": {"maximize": True, "decay": DecayMode.L2, "weight_decay": [0.1]},
    "cautious": {"cautious": Cautious.MASK, "decay": DecayMode.DECOUPLED, "weight_decay": [0.1]},
    "cautious_rescaled": {"cautious": Cautious.RESCALED, "maximize": True},
    "cautious_rescaled_l2": {
        "cautious": Cautious.RESCALED,
        "decay": DecayMode.L2,
        "weight_decay": [0.1],
        "grad_scale": scalar(8.0),
    },
    "perpendicular": {"perpendicular": Perpendicular.RENORMALIZED, "decay": DecayMode.DECOUPLED, "weight_decay": [0.1]},
    "projected_l2": {
        "perpendicular": Perpendicular.PROJECTED,
        "decay": DecayMode.L2,
        "weight_decay": [0.1],
        "maximize": True,
        "grad_scale": scalar(8.0),
    },
    "perpendicular_cautious_master": {
        "perpendicular": Perpendicular.RENORMALIZED,
        "cautious": Cautious.RESCALED,
        "residual": Residual.MASTER,
    },
    "grad_scale": {"grad_scale": scalar(3.0), "found_inf": scalar(0.0)},
    "lr_tensor": {"lr_tensor": scalar(0.02), "lr": [99.0]},
    "lr_tensor_per_tensor": {
        "lr_tensor": torch.linspace(0.001, 0.02, COUNT, dtype=torch.float64),
        "weight_decay_tensor": torch.linspace(0.0, 0.5, COUNT),
        "decay": DecayMode.DECOUPLED,
    },
    "ema": {"ema": True, "ema_decay": 0.95},
    "kahan": {"residual": Residual.KAHAN, "decay": DecayMode.DECOUPLED, "weight_decay": [0.1]},
    "master": {"residual": Residual.MASTER, "decay": DecayMode.L2, "weight_decay": [0.1]},
    "stochastic": {"rounding": 1, "seeds": [2**40 + 12345]},
    "master_stochastic": {
        "residual": Residual.MASTER,
        "rounding": 1,
        "seeds": list(range(7, 7 + COUNT)),
        "ema": True,
        "ema_decay": 0.5,
    },
    "master_cautious_l2": {
        "residual": Residual.MASTER,
        "cautious": Cautious.RESCALED,
        "decay": DecayMode.L2,
        "weight_decay": [0.1],
    },
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("rule", RULES)
def test_option(backend, rule, option):
    rule = RULES[rule]
    for variant in list(rule.variants.values())[-2:]:
        call = make_call(rule, variant, mixed_few(), device=backend.device, seed=3, **OPTIONS[option])
        before = call.clone()
        call.run(backend)
        check(before, call)


@pytest.mark.parametrize(("rule", "variant"), [v for v in VARIANTS if v[0] in BETAS])
def test_beta_tensors(backend, rule, variant):
    rule = RULES[rule]
    options = {"beta1_tensor": scalar(0.8), "beta2_tensor": scalar(0.95, torch.float64)}
    call = make_call(rule, rule.variants[variant], mixed_few(), device=backend.device, seed=4, **options)
    before = call.clone()
    call.run(backend)
    check(before, call)
