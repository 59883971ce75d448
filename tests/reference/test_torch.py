"""The references of Adam, AdamW and SGD against torch.optim, option by option.

Both sides work in float64. One step of each makes fewer than 16 roundings, each magnified at most by the 40 steps:
40 * 16 * 2^-53 is below 1e-13.
"""

from __future__ import annotations

import pytest
import torch

from momentum.enums import DecayMode
from momentum.reference import adam, sgd
from reference.trajectory import SHAPES, assert_same_path, with_class, with_reference

STEPS = 40
TOLERANCE = 1e-13
MOMENTS = {"exp_avg": None, "exp_avg_sq": None}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(shape, amsgrad, maximize, weight_decay, decoupled):
    make = torch.optim.AdamW if decoupled else torch.optim.Adam
    theirs = with_class(
        lambda params: make(
            params,
            lr=0.02,
            betas=(0.8, 0.95),
            eps=1e-3,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
            foreach=False,
        ),
        shape,
        STEPS,
    )
    states = {**MOMENTS, **({"max_exp_avg_sq": None} if amsgrad else {})}
    options = {
        "lr": 0.02,
        "beta1": 0.8,
        "beta2": 0.95,
        "eps": 1e-3,
        "weight_decay": weight_decay,
        "decay": DecayMode.DECOUPLED if decoupled else DecayMode.L2,
        "maximize": maximize,
    }
    assert_same_path(with_reference(adam, states, shape, STEPS, options), theirs, TOLERANCE)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "hypers",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.2},
        {"momentum": 0.9, "nesterov": True},
    ],
    ids=lambda hypers: "-".join(hypers) or "plain",
)
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_sgd(shape, hypers, maximize, weight_decay):
    theirs = with_class(
        lambda params: torch.optim.SGD(params, lr=0.02, weight_decay=weight_decay, maximize=maximize, foreach=False, **hypers),
        shape,
        STEPS,
    )
    states = {"momentum_buffer": None} if hypers else {}
    options = {
        "lr": 0.02,
        "weight_decay": weight_decay,
        "decay": DecayMode.L2,
        "maximize": maximize,
        **hypers,
    }
    assert_same_path(with_reference(sgd, states, shape, STEPS, options), theirs, TOLERANCE)
