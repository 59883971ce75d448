"""Training with quantised states beside float32: within bounds that follow from the tables, and learning at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from momentum import optim
from momentum.quant import FORMATS, StateFormat
from momentum.reference import quant
from optim.quantised import KINDS

NUMEL = 8192


def half_gap(chosen: StateFormat, x: torch.Tensor) -> torch.Tensor:
    """Return how far numbers in [-1, 1] may be from what they are stored as: half of the gap around them, or a clipped end."""
    numbers, _ = quant.usable(chosen.map)
    nearest = (x.unsqueeze(-1) - numbers).abs().amin(-1)
    above = torch.searchsorted(numbers, x).clamp(1, numbers.numel() - 1)
    return torch.maximum(nearest, (numbers[above] - numbers[above - 1]) / 2)


@pytest.mark.parametrize("steps", [50, 500])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_float32_but_for_half_gaps(kind, steps):
    """With a constant gradient the parameter is where float32 is, but for an error derived from the tables.

    A moment divided by its block's largest is then the constant x = g / max g (its square for v); the largest is stored
    exactly. Each step moves the stored number towards x and rounds it. Rounding to nearest is monotone and leaves stored
    numbers where they are, so the result lies between the stored number and the nearest one to x: an error that is at most half
    a gap stays so. With relative errors a of m and b of v the update is off by at most a factor (1 + a) / sqrt(1 - b).
    """
    lr = 1e-3
    generator = torch.Generator().manual_seed(4)
    grad = 0.5 + 0.3 * torch.rand(NUMEL, generator=generator)
    grad *= torch.where(torch.rand(NUMEL, generator=generator) < 0.5, -1, 1)
    grad[::64] = 1.0  # the largest of every block is positive: the signed map of 4 bits has no -1

    def run(**options):
        param = nn.Parameter(torch.zeros(NUMEL))
        optimizer = optim.AdamW([param], lr=lr, weight_decay=0.0, **options)
        for _ in range(steps):
            param.grad = grad
            optimizer.step()
        return param.detach().double()

    exact, quantised = run(), run(state_format=kind)
    signed, unsigned = FORMATS[kind]
    x = grad.double()
    a = half_gap(signed, x) / x.abs()
    b = half_gap(unsigned, x.square()) / x.square()
    off = torch.maximum((1 + a) / (1 - b).sqrt() - 1, 1 - (1 - a) / (1 + b).sqrt())
    # The roundings of float32 arithmetic: some 50 in each step.
    bound = steps * lr * (off + 50 * steps * 2.0**-24)
    assert ((quantised - exact).abs() <= bound).all()
    assert off.max() < {"int4": 0.45, "int8": 0.04, "fp8": 0.12}[kind]  # the bound says something
    assert (quantised != exact).any()


LEARN = {
    "AdamW": (optim.AdamW, {"lr": 0.02, "weight_decay": 0.0}),
    "SPAM": (optim.SPAM, {"lr": 0.02}),
    "StableSPAM": (optim.StableSPAM, {"lr": 0.02}),
    "Lion": (optim.Lion, {"lr": 0.02}),
    "SGD": (optim.SGD, {"lr": 0.05, "momentum": 0.9}),
}


def learn(name: str, steps: int = 500, **options) -> float:
    """Return what is left of the loss |p - target|^2 after steps with a rate that falls to zero."""
    make, own = LEARN[name]
    target = torch.randn(NUMEL, generator=torch.Generator().manual_seed(0))
    param = nn.Parameter(torch.zeros(NUMEL))
    optimizer = make([param], **own, **options)
    for step in range(steps):
        param.grad = param.detach() - target
        optimizer.param_groups[0]["lr"] = own["lr"] * (1 - step / steps)
        optimizer.step()
    return ((param.detach() - target).square().sum() / target.square().sum()).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEARN)
def test_learning(name, kind):
    """Each element can travel 5 of the at most 4 deviations to its target: three quarters of the loss must be gone.

    An update has its float32 sign and size but where a moment is small beside its block's largest; those elements have the
    smallest distances left to go and so the smallest share of the loss.
    """
    assert learn(name, state_format="fp32") < 0.01
    assert learn(name, state_format=kind) < 0.25


@pytest.mark.parametrize("name", ["AdamW", "Lion"])
def test_learning_with_stochastic_codes(name):
    """Unbiased codes of 4 bits do not lose the small changes that nearest ones do."""
    chosen = {"exp_avg": StateFormat("dynamic4", rounding="stochastic")}
    if name == "AdamW":
        chosen["exp_avg_sq"] = StateFormat("linear4", rounding="stochastic")
    assert learn(name, state_format=chosen) < learn(name, state_format="int4")


def test_24_bit_parameters_follow_float32():
    """1000 steps of 2^-13 from 1: bfloat16 stays where it is, with eight more bits the sum is exact to 2^-16 a step."""
    steps, lr = 1000, 2.0**-13

    def run(dtype, **options):
        param = nn.Parameter(torch.ones(NUMEL, dtype=dtype))
        optimizer = optim.AdamW4bit([param], lr=lr, weight_decay=0.0, **options)
        for _ in range(steps):
            param.grad = -torch.ones_like(param)
            optimizer.step()
        return param.detach().double(), optimizer.state[param]

    wide, _ = run(torch.float32)
    stuck, _ = run(torch.bfloat16)
    narrow, state = run(torch.bfloat16, compensation="low_bits")
    joined = (narrow.to(torch.bfloat16).view(torch.int16).int() << 16) + (state["low_bits"].int() << 8)
    joined = joined.view(torch.float32).double()
    assert (stuck == 1).all()
    assert ((joined - wide).abs() <= steps * 2.0**-17).all()  # half the distance of 24-bit numbers in [1, 2), each step
    assert (wide - 1 > 4 * steps * 2.0**-17).all()
