"""Every class in float64 against the float64 references, over resets, warm-ups and decay."""

from __future__ import annotations

import pytest
import torch

from momentum import optim, reference
from momentum.enums import DecayMode
from optim.cases import Gradients, make_params, scale
from tolerances import ROUNDINGS, UNIT

STEPS = 40
D = DecayMode.DECOUPLED
SHAPES = [(7, 5), (3, 2, 2), (6, 1)]


SPAM = {"reset_interval": 9, "warmup_steps": 5, "accumulation_steps": 3, "threshold": 2.0}
STABLE = {"reset_interval": 9, "total_steps": 30}
CASES = {
    "Adam": (lambda p, **o: optim.Adam(p, **o), reference.adam, {}, DecayMode.L2, "adam"),
    "Adam-prox": (lambda p, **o: optim.Adam(p, weight_decay_mode="prox", **o), reference.adam, {}, DecayMode.PROX, "adam"),
    "AdamW": (lambda p, **o: optim.AdamW(p, **o), reference.adam, {}, D, "adam"),
    "SGD": (lambda p, **o: optim.SGD(p, momentum=0.9, **o), reference.sgd, {"momentum": 0.9}, DecayMode.L2, "sgd"),
    "Lion": (lambda p, **o: optim.Lion(p, **o), reference.lion, {"beta2": 0.99}, D, "lion"),
    "Lion-huber": (
        lambda p, **o: optim.Lion(p, kernel="huber", threshold=0.5, **o),
        reference.lion,
        {"threshold": 0.5, "huber": True},
        D,
        "lion",
    ),
    "Lion-top-k": (
        lambda p, **o: optim.Lion(p, kernel="top_k", k=4, **o),
        reference.lion_top_k,
        {"count": 4},
        D,
        "lion_top_k",
    ),
    "Lion-l2": (
        lambda p, **o: optim.Lion(p, kernel="l2", **o),
        reference.normalized,
        {"momentum": 0.99, "mix": 0.9 / 0.99},
        D,
        "normalized",
    ),
    "Lion-column": (
        lambda p, **o: optim.Lion(p, kernel="column", **o),
        reference.scale,
        {"momentum": 0.99, "mix": 0.9 / 0.99, "axis": 0, "l2": True, "eps": 1e-12},
        D,
        "scale",
    ),
    "NormalizedSGD": (lambda p, **o: optim.NormalizedSGD(p, **o), reference.normalized, {}, D, "normalized"),
    "AMSGD": (lambda p, **o: optim.AMSGD(p, **o), reference.adaptive_memory, {}, D, "adaptive_memory"),
    "AMAdamW": (lambda p, **o: optim.AMAdamW(p, pull=0.5, **o), reference.adaptive_memory, {"pull": 0.5}, D, "adaptive_memory"),
    "AdamP": (lambda p, **o: optim.AdamP(p, delta=2.0, **o), reference.adamp, {"delta": 2.0}, D, "adamp"),
    "SGDP": (
        lambda p, **o: optim.SGDP(p, momentum=0.9, delta=2.0, project_momentum=True, **o),
        reference.sgdp,
        {"momentum": 0.9, "delta": 2.0, "project_momentum": True},
        D,
        "sgdp",
    ),
    "AdamW-orthograd": (lambda p, **o: optim.AdamW(p, orthograd=True, **o), reference.adam, {"perpendicular": 2}, D, "adam"),
    "SGD-projected": (
        lambda p, **o: optim.SGD(p, momentum=0.9, orthograd="projected", **o),
        reference.sgd,
        {"momentum": 0.9, "perpendicular": 1},
        DecayMode.L2,
        "sgd",
    ),
    "AdaBelief": (lambda p, **o: optim.AdaBelief(p, **o), reference.adabelief, {}, D, "adabelief"),
    "AdaBelief-amsgrad": (
        lambda p, **o: optim.AdaBelief(p, amsgrad=True, rectify=False, **o),
        reference.adabelief,
        {"rectify": False},
        D,
        "adabelief",
    ),
    "DiffGrad": (lambda p, **o: optim.DiffGrad(p, **o), reference.diffgrad, {}, DecayMode.L2, "diffgrad"),
    "Adan": (lambda p, **o: optim.Adan(p, **o), reference.adan, {}, DecayMode.PROX, "adan"),
    "Adan-no-prox": (lambda p, **o: optim.Adan(p, no_prox=True, **o), reference.adan, {}, D, "adan"),
    "SophiaG": (lambda p, **o: optim.SophiaG(p, **o), reference.sophia, {"scale": 0.04 * 5120}, D, "sophia"),
    "SPAM": (lambda p, **o: optim.SPAM(p, **SPAM, **o), reference.spam, SPAM, DecayMode.DECOUPLED_AFTER, "spam"),
    "SPAM-official": (
        lambda p, **o: optim.SPAM(p, compat="official", **SPAM, **o),
        reference.spam,
        {**SPAM, "guard_zero_v": False},
        DecayMode.DECOUPLED_AFTER,
        "spam",
    ),
    "StableSPAM": (lambda p, **o: optim.StableSPAM(p, **STABLE, **o), reference.stable_spam, STABLE, D, "stable_spam"),
    "StableSPAM-official": (
        lambda p, **o: optim.StableSPAM(p, compat="official", gammas=(None, 0.9, 0.99), **STABLE, **o),
        reference.stable_spam,
        {**STABLE, "official": True, "gamma1": 0.9, "theta": 0.99},
        D,
        "stable_spam",
    ),
    "SCALE-row": (scale, reference.scale, {"axis": 1}, D, "scale"),
    "SCALE-column": (lambda p, **o: scale(p, normalize="column", **o), reference.scale, {"axis": 0}, D, "scale"),
    "SCALE-momentum-l2": (
        lambda p, **o: scale(p, momentum=0.8, norm="l2", **o),
        reference.scale,
        {"axis": 1, "l2": True, "momentum": 0.8},
        D,
        "scale",
    ),
    "SCALE-adamw": (
        lambda p, **o: optim.SCALE(p, normalize=None, **o),
        reference.spam,
        {"eps": 1e-8, "threshold": 0.0, "reset_interval": 0},
        D,
        "spam",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_path_is_the_references(name):
    make, rule, hypers, decay, op = CASES[name]
    lr, weight_decay = 0.01, 0.1
    params = make_params(torch.float64, SHAPES)
    optimizer = make(params, lr=lr, weight_decay=weight_decay)
    exact = [p.detach().clone() for p in params]
    states: list[dict] | None = None
    gradients = Gradients()
    for step in range(1, STEPS + 1):
        gradients.fill(params)
        optimizer.step()
        if states is None:  # the states that the class keeps, as they were before the step
            states = [
                {k: torch.zeros_like(v, dtype=torch.float64) for k, v in optimizer.state[p].items() if k != "step"}
                for p in params
            ]
        for i, p in enumerate(params):
            exact[i], states[i] = reference.apply_step(
                rule, exact[i], p.grad, states[i], step, lr=lr, weight_decay=weight_decay, decay=decay, **hypers
            )
    # Each step rounds like its op (UNIT covers the float32 scalars of Stable-SPAM), relative to the parameter or the
    # update; updates are bounded by a few lr, and their sum by the parameter's size here.
    unit = UNIT[torch.float32] if rule is reference.stable_spam else UNIT[torch.float64]
    for p, value in zip(params, exact, strict=True):
        assert int(optimizer.state[p]["step"]) == STEPS
        torch.testing.assert_close(
            p.detach(), value, rtol=0, atol=STEPS * ROUNDINGS[op].total * unit * value.abs().max().item()
        )
