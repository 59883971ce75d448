"""The references of Adan, AdaBelief, diffGrad and Sophia against pytorch_optimizer; Lion-K and rectification in closed form.

Both sides work in float64 and make fewer than 32 roundings a step: 60 steps stay below 60 * 32 * 2^-53 < 1e-12.
"""

from __future__ import annotations

import math

import pytest
import torch

from momentum.enums import DecayMode
from momentum.reference import (
    adabelief,
    adan,
    adaptive_memory,
    apply_step,
    diffgrad,
    hessian_ema,
    lion,
    normalized,
    scale,
    sgd_sai,
    signal_to_noise,
    sophia,
)
from momentum.reference.adabelief import effective_length
from momentum.reference.adaptive_memory import memory_weight
from reference.trajectory import SHAPES, assert_same_path, gradients, with_class, with_reference

pytorch_optimizer = pytest.importorskip("pytorch_optimizer")

STEPS = 60
TOLERANCE = 1e-12
BETAS = {"beta1": 0.85, "beta2": 0.97}
COMMON = {"lr": 0.01, "weight_decay": 0.3}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("no_prox", [False, True])
def test_adan(shape, no_prox):
    """Not with ``maximize``, under which theirs takes the first change of the gradient for twice the gradient."""
    theirs = with_class(
        lambda params: pytorch_optimizer.Adan(
            params, betas=(0.9, 0.8, 0.97), eps=1e-4, weight_decouple=no_prox, foreach=False, **COMMON
        ),
        shape,
        STEPS,
    )
    decay = DecayMode.DECOUPLED if no_prox else DecayMode.PROX
    hypers = {"beta1": 0.9, "beta2": 0.8, "beta3": 0.97, "eps": 1e-4}
    states = dict.fromkeys(("exp_avg", "exp_avg_diff", "exp_avg_sq", "neg_pre_grad"))
    ours = with_reference(adan, states, shape, STEPS, {**COMMON, **hypers, "decay": decay})
    assert_same_path(ours, theirs, TOLERANCE)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("theirs", "ours", "states"),
    [
        ({"rectify": True, "degenerated_to_sgd": True}, {}, ()),
        ({"rectify": True, "degenerated_to_sgd": False}, {"degenerated_to_sgd": False}, ()),
        ({"rectify": False}, {"rectify": False}, ()),
        ({"rectify": False, "ams_bound": True}, {"rectify": False}, ("max_exp_avg_var",)),
    ],
    ids=["rectify", "waiting", "plain", "amsgrad"],
)
def test_adabelief(shape, theirs, ours, states):
    """With both kinds of steps of a rectified run: at beta2 = 0.97 the first five are not rectified."""
    their_path = with_class(
        lambda params: pytorch_optimizer.AdaBelief(
            params, betas=(0.85, 0.97), eps=1e-6, weight_decouple=True, foreach=False, **COMMON, **theirs
        ),
        shape,
        STEPS,
    )
    options = {**COMMON, **BETAS, "eps": 1e-6, "decay": DecayMode.DECOUPLED, **ours}
    our_path = with_reference(adabelief, dict.fromkeys(("exp_avg", "exp_avg_var", *states)), shape, STEPS, options)
    assert_same_path(our_path, their_path, TOLERANCE)


def test_effective_length():
    """RAdam's rho: below 5 for five steps at beta2 = 0.999, and 1999 in the end."""
    assert [effective_length(0.999, step) >= 5 for step in range(4, 8)] == [False, False, True, True]
    assert effective_length(0.999, 10**5) == pytest.approx(1999)
    assert effective_length(0.0, 3) == 1.0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_diffgrad(shape):
    """Theirs adds 1e-15 inside the root, which moves a root near 1 by less than 1e-15 of it, and one near 0 by 3e-8."""
    theirs = with_class(
        lambda params: pytorch_optimizer.DiffGrad(
            params, betas=(0.85, 0.97), eps=1e-4, weight_decouple=False, foreach=False, **COMMON
        ),
        shape,
        STEPS,
    )
    options = {**COMMON, **BETAS, "eps": 1e-4, "decay": DecayMode.L2}
    ours = with_reference(diffgrad, dict.fromkeys(("exp_avg", "exp_avg_sq", "previous_grad")), shape, STEPS, options)
    assert_same_path(ours, theirs, 1e-8)


def test_diffgrad_friction():
    """One half where the gradient stays, one where it jumps."""
    grad = torch.tensor([2.0, 2.0]).double()
    state = {"exp_avg": grad, "exp_avg_sq": grad * grad, "previous_grad": torch.tensor([2.0, 1e3]).double()}
    update, new = diffgrad(grad, state, 10**6, eps=0.0)
    torch.testing.assert_close(update, torch.tensor([0.5, 1.0]).double(), rtol=1e-13, atol=0)
    assert torch.equal(new["previous_grad"], grad)


def test_sophia():
    """Against pytorch_optimizer's Sophia-H, given its own estimates of the Hessian: the quadratic's diagonal, exactly."""
    curvature = torch.tensor([0.5, 3.0, 0.0, -2.0]).double()
    start = torch.tensor([1.0, -2.0, 0.3, 0.7]).double()
    param = torch.nn.Parameter(start.clone())
    theirs = pytorch_optimizer.SophiaH(
        [param], lr=0.01, betas=(0.9, 0.8), weight_decay=0.3, p=0.05, update_period=4, num_samples=1, foreach=False
    )
    ours, state = start.clone(), {"exp_avg": torch.zeros(4).double(), "hessian": torch.zeros(4).double()}
    for step in range(1, 21):
        hessian = curvature if (step - 1) % 4 == 0 else None
        param.grad = curvature * param.detach()
        theirs.step(hessian=(hessian,) if hessian is not None else None)
        if hessian is not None:
            average, _ = apply_step(
                hessian_ema,
                state["hessian"],
                curvature,
                {"probe": torch.ones(4).double()},
                step,
                lr=1 - 0.8,
                weight_decay=1.0,
                decay=DecayMode.DECOUPLED,
            )
            torch.testing.assert_close(average, 0.8 * state["hessian"] + 0.2 * curvature, rtol=1e-14, atol=0)
            state = {**state, "hessian": average}
        grad = curvature * ours
        ours, state = apply_step(
            sophia,
            ours,
            grad,
            state,
            step,
            lr=0.01,
            weight_decay=0.3,
            decay=DecayMode.DECOUPLED,
            beta1=0.9,
            clip=0.05,
            eps=1e-12,
            floor=True,
        )
        torch.testing.assert_close(ours, param.detach(), rtol=TOLERANCE, atol=TOLERANCE)


def test_gauss_newton_estimate_is_a_square():
    grad = torch.randn(5, dtype=torch.float64)
    average, _ = apply_step(hessian_ema, torch.ones(5).double(), grad, {}, 1, lr=0.25, weight_decay=1.0, decay=2, scale=3.0)
    torch.testing.assert_close(average, 0.75 + 0.25 * 3 * grad * grad, rtol=1e-14, atol=0)


@pytest.mark.parametrize("hypers", [{"threshold": 0.4}, {"threshold": 0.4, "huber": True}, {}], ids=["soft", "huber", "sign"])
def test_lion_kernels_are_gradients_of_convex_functions(hypers):
    """The kernel is the derivative of K, whose difference quotients it lies between."""
    functions = {
        "sign": lambda x: x.abs(),
        "soft": lambda x: (x.abs() - 0.4).clamp(min=0),
        "huber": lambda x: torch.where(x.abs() < 0.4, x * x / 0.8, x.abs() - 0.2),
    }
    function = functions["huber" if "huber" in hypers else "soft" if hypers else "sign"]
    x = torch.linspace(-1, 1, 41, dtype=torch.float64)
    zeros = {"exp_avg": torch.zeros_like(x)}
    kernel, _ = lion(x, zeros, 1, beta1=0.0, **hypers)
    small = 1e-7
    assert (kernel <= (function(x + small) - function(x)) / small + 1e-6).all()
    assert (kernel >= (function(x) - function(x - small)) / small - 1e-6).all()


@pytest.mark.parametrize("hypers", [{}, {"threshold": 0.5}, {"threshold": 2.0, "huber": True}], ids=["sign", "soft", "huber"])
def test_lion_stays_in_its_box(hypers):
    """|p| <= 1 / weight_decay once it holds, and from outside it is approached by the factor 1 - lr weight_decay."""
    lr, weight_decay = 0.1, 4.0
    shape = (50,)
    inside, outside = torch.linspace(-0.25, 0.25, 50).double(), torch.full(shape, 9.0).double()
    state_in = state_out = {"exp_avg": torch.zeros(shape).double()}
    for step, grad in enumerate(gradients(shape, 100), start=1):
        options = {"lr": lr, "weight_decay": weight_decay, "decay": DecayMode.DECOUPLED, **hypers}
        inside, state_in = apply_step(lion, inside, grad, state_in, step, **options)
        outside, state_out = apply_step(lion, outside, grad, state_out, step, **options)
        assert inside.abs().max() <= 1 / weight_decay * (1 + 1e-12)
        assert outside.abs().max() - 1 / weight_decay <= (1 - lr * weight_decay) ** step * (9 - 1 / weight_decay) + 1e-12
    assert math.isclose(inside.abs().max().item(), 1 / weight_decay, rel_tol=0.5)


def test_sgd_sai():
    """Against pytorch_optimizer's SGDSaI, whose momentum starts at 0 where the authors' starts at the gradient."""
    shape = (16, 12)
    first = next(gradients(shape, 1))
    param = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    theirs = pytorch_optimizer.SGDSaI([param], lr=0.01, momentum=0.9, weight_decay=0.3, eps=1e-4)
    ours, state = torch.zeros(shape, dtype=torch.float64), {"momentum_buffer": torch.zeros(shape).double()}
    state["scalars"] = signal_to_noise(first, eps=1e-4).reshape(1)
    for step, grad in enumerate(gradients(shape, 20), start=1):
        param.grad = grad.clone()
        if step == 2:  # from here on with the same momentum
            theirs.state[param]["momentum_buffer"] = first.clone()
            with torch.no_grad():
                param.copy_(ours)
        theirs.step()
        ours, state = apply_step(
            sgd_sai, ours, grad, state, step, lr=0.01, weight_decay=0.3, decay=DecayMode.DECOUPLED, momentum=0.9
        )
        if step > 1:
            torch.testing.assert_close(ours, param.detach(), rtol=1e-11, atol=1e-11)


def test_signal_to_noise():
    grad = torch.tensor([1.0, 2.0, 3.0, 6.0]).double()
    assert signal_to_noise(grad, eps=0.0).item() == pytest.approx((50 / (14 / 3)) ** 0.5)
    one = torch.tensor([0.5]).double()
    assert signal_to_noise(one).item() == 1.0
    assert signal_to_noise(one, eps=1e-3, official=True).item() == pytest.approx(500.0)
    assert signal_to_noise(torch.zeros(3).double()).item() == 1.0
    assert signal_to_noise(torch.zeros(3).double(), official=True).item() == 0.0


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_norm_kernels_of_lion(axis):
    """mix makes of the new momentum what Lion takes of the old one; a unit tensor or unit lines; and in the ball."""
    beta1, beta2 = 0.9, 0.96
    shape = (6, 4)
    old = {"exp_avg": torch.randn(shape, dtype=torch.float64)}
    grad = torch.randn(shape, dtype=torch.float64)
    hypers = {"momentum": beta2, "mix": beta1 / beta2}
    rule, more = (normalized, {}) if axis is None else (scale, {"axis": axis, "l2": True})
    update, new = rule(grad, old, 1, **hypers, **more)
    mixed = beta1 * old["exp_avg"] + (1 - beta1) * grad
    norm = mixed.norm() if axis is None else mixed.norm(dim=axis, keepdim=True)
    torch.testing.assert_close(update, mixed / norm, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(new["exp_avg"], beta2 * old["exp_avg"] + (1 - beta2) * grad, rtol=1e-14, atol=1e-14)
    param, state = torch.zeros(shape).double(), {"exp_avg": torch.zeros(shape).double()}
    for step, noise in enumerate(gradients(shape, 60), start=1):
        options = {"lr": 0.2, "weight_decay": 2.0, "decay": DecayMode.DECOUPLED, **hypers, **more}
        param, state = apply_step(rule, param, noise, state, step, **options)
        assert (param.norm() if axis is None else param.norm(dim=axis)).max() <= 0.5 * (1 + 1e-12)


@pytest.mark.parametrize("pull", [0.0, 0.3, 2.0])
def test_memory_weight_maximises_the_dual(pull):
    """The step that the dual's best beta gives is the best step of the model: a check by brute force over beta."""
    lr = 0.7
    betas = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        grad, memory, inverse = torch.randn(3, 5, generator=generator, dtype=torch.float64)
        memory, inverse = memory * 2.0 ** (seed % 5 - 2), inverse.exp()

        def model(y, grad=grad, memory=memory, inverse=inverse):
            plane = torch.maximum(y @ grad, y @ memory)
            centre = lr * memory * inverse
            return plane + ((y * y / inverse).sum(-1) + pull * ((y + centre) ** 2 / inverse).sum(-1)) / (2 * lr)

        steps = -lr * inverse * ((betas[:, None] + pull) * memory + (1 - betas[:, None]) * grad) / (1 + pull)
        best = model(steps).min()
        beta = memory_weight(grad, memory, inverse, pull)
        found = -lr * inverse * ((beta + pull) * memory + (1 - beta) * grad) / (1 + pull)
        assert model(found) <= best + 1e-12
        noise = 1e-3 * torch.randn(200, 5, generator=generator, dtype=torch.float64)
        assert (model(found + noise) >= model(found) - 1e-12).all()


def test_adaptive_memory_starts_at_the_gradient():
    grad = torch.randn(5, dtype=torch.float64)
    state = {"memory": torch.full((5,), 9.0).double()}
    update, new = adaptive_memory(grad, state, 1)
    assert torch.equal(update, grad)
    same, _ = adaptive_memory(grad, new, 2)
    torch.testing.assert_close(same, grad, rtol=1e-14, atol=0)
