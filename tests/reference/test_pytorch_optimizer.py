"""The references of Lion, SPAM and Stable-SPAM against pytorch_optimizer, where the two mean the same.

Both sides work in float64 and make fewer than 32 roundings a step: 60 steps stay below 60 * 32 * 2^-53 < 1e-12.
"""

from __future__ import annotations

import pytest
import torch

from momentum.enums import DecayMode
from momentum.reference import lion, spam, stable_spam
from momentum.reference.spam import warmup
from reference.trajectory import SHAPES, assert_same_path, with_class, with_reference

pytorch_optimizer = pytest.importorskip("pytorch_optimizer")

STEPS = 60
TOLERANCE = 1e-12
MOMENTS = {"exp_avg": None, "exp_avg_sq": None}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("maximize", [False, True])
def test_lion(shape, maximize):
    theirs = with_class(
        lambda params: pytorch_optimizer.Lion(
            params,
            lr=0.01,
            betas=(0.85, 0.97),
            weight_decay=0.3,
            maximize=maximize,
            foreach=False,
        ),
        shape,
        STEPS,
    )
    options = {
        "lr": 0.01,
        "beta1": 0.85,
        "beta2": 0.97,
        "weight_decay": 0.3,
        "decay": DecayMode.DECOUPLED,
        "maximize": maximize,
    }
    ours = with_reference(lion, {"exp_avg": None}, shape, STEPS, options)
    assert_same_path(ours, theirs, TOLERANCE)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("maximize", [False, True])
def test_spam(shape, maximize):
    """Spikes are cut from step 8 on; the moments are reset at steps 30 and 60.

    Without warm-up, because theirs is one step ahead of the official code (test_spam_warmup has ours).
    """
    theirs = with_class(
        lambda params: pytorch_optimizer.SPAM(
            params,
            lr=0.01,
            betas=(0.85, 0.97),
            weight_decay=0.3,
            warmup_epoch=0,
            threshold=20,
            grad_accu_steps=8,
            update_proj_gap=30,
            eps=1e-3,
            maximize=maximize,
            foreach=False,
        ),
        shape,
        STEPS,
    )
    options = {
        "lr": 0.01,
        "beta1": 0.85,
        "beta2": 0.97,
        "eps": 1e-3,
        "weight_decay": 0.3,
        "decay": DecayMode.DECOUPLED_AFTER,
        "maximize": maximize,
        "threshold": 20.0,
        "reset_interval": 30,
        "warmup_steps": 0,
        "accumulation_steps": 8,
        "guard_zero_v": False,
    }
    assert_same_path(with_reference(spam, MOMENTS, shape, STEPS, options), theirs, TOLERANCE)


def test_spam_warmup():
    """The official schedule is 1 - D, D an annealing of 0.99 to 0 over warmup_steps + 1 by torch's scheduler."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.99)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 150 + 1)
    assert warmup(499, 500, 150) == 1.0
    for step in range(500, 650):
        assert warmup(step, 500, 150) == pytest.approx(1 - annealing.get_last_lr()[0], abs=1e-13)
        optimizer.step()
        annealing.step()
    assert warmup(650, 500, 150) == warmup(999, 500, 150) == 1.0
    assert warmup(1000, 500, 150) == pytest.approx(0.01)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("maximize", [False, True])
def test_stable_spam(shape, maximize):
    """The moments are reset at steps 25 and 50."""
    theirs = with_class(
        lambda params: pytorch_optimizer.StableSPAM(
            params,
            lr=0.01,
            betas=(0.85, 0.97),
            weight_decay=0.3,
            gamma1=0.75,
            gamma2=0.9,
            theta=0.98,
            update_proj_gap=25,
            eps=1e-4,
            maximize=maximize,
            foreach=False,
        ),
        shape,
        STEPS,
    )
    options = {
        "lr": 0.01,
        "beta1": 0.85,
        "beta2": 0.97,
        "eps": 1e-4,
        "weight_decay": 0.3,
        "decay": DecayMode.DECOUPLED,
        "maximize": maximize,
        "gamma1": 0.75,
        "gamma2": 0.9,
        "theta": 0.98,
        "reset_interval": 25,
    }
    states = {**MOMENTS, "scalars": (3,)}
    assert_same_path(with_reference(stable_spam, states, shape, STEPS, options), theirs, TOLERANCE)
