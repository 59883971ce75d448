"""Bad input is refused with a sentence that says what is wrong, and nothing is written."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from momentum import optim
from optim.cases import CASES, CLASSES, Gradients, assert_same_bits, make_params, snapshot, train

COMMON = [
    ({"lr": -1.0}, ValueError, "lr must be in"),
    ({"lr": math.nan}, ValueError, "lr must be in"),
    ({"lr": math.inf}, ValueError, "lr must be in"),
    ({"lr": "fast"}, TypeError, "lr must be a number"),
    ({"lr": torch.tensor([0.1, 0.2])}, ValueError, "lr as a tensor must hold one"),
    ({"lr": torch.tensor(1)}, ValueError, "lr as a tensor must hold one floating point"),
    ({"lr": torch.tensor(-0.1)}, ValueError, "lr must be in"),
    ({"weight_decay": -1.0}, ValueError, "weight_decay must be in"),
    ({"weight_decay": math.nan}, ValueError, "weight_decay must be in"),
    ({"weight_decay_mode": "strong"}, ValueError, "weight_decay_mode must be one of 'l2'"),
    ({"maximize": 1}, TypeError, "maximize must be True or False"),
    ({"cautious": "very"}, ValueError, "cautious must be one of"),
    ({"orthograd": "very"}, ValueError, "orthograd must be one of False, True"),
    ({"compensation": "dollars"}, ValueError, "compensation must be one of"),
    ({"rounding": "up"}, ValueError, "rounding must be one of"),
    ({"compensation": "kahan", "rounding": "stochastic"}, ValueError, "exclude each other"),
    ({"ema_decay": 1.0}, ValueError, "ema_decay must be in"),
    ({"ema_decay": -0.1}, ValueError, "ema_decay must be in"),
    ({"seed": -1}, ValueError, "seed must be in"),
    ({"seed": 0.5}, TypeError, "seed must be an integer"),
    ({"state_format": torch.int8}, ValueError, "state_format must be one of"),
    ({"state_format": {"speed": torch.float32}}, ValueError, "unknown state 'speed'"),
    ({"max_lr": -1.0}, ValueError, "max_lr must be in"),
    ({"weight_decay_mode": "lr_decoupled", "max_lr": 0.0}, ValueError, "positive max_lr"),
    ({"speed": 3}, TypeError, "unexpected keyword argument 'speed'"),
]
BETAS = [
    ({"betas": (1.0, 0.9)}, ValueError, r"betas\[0\] must be in \[0, 1\)"),
    ({"betas": (0.9, -0.1)}, ValueError, r"betas\[1\] must be in"),
    ({"betas": (0.9, math.nan)}, ValueError, r"betas\[1\] must be in"),
    ({"betas": 0.9}, ValueError, "betas must be a pair"),
    ({"betas": (0.9, 0.9, 0.9)}, ValueError, "betas must be a pair"),
]
TORCH = [
    ({"foreach": True}, ValueError, "foreach=True"),
    ({"fused": False}, ValueError, "fused=False"),
    ({"differentiable": True}, ValueError, "differentiable=True"),
]
ADAM = [*BETAS, ({"eps": -1.0}, ValueError, "eps must be in"), ({"eps": math.nan}, ValueError, "eps must be in")]
OWN = {
    "Adam": [
        *ADAM,
        *TORCH,
        ({"amsgrad": "yes"}, TypeError, "amsgrad must be True or False"),
        ({"capturable": "yes"}, TypeError, "capturable must be True or False"),
        ({"decoupled_weight_decay": True, "weight_decay_mode": "l2"}, ValueError, "contradicts"),
    ],
    "AdamW": [*ADAM, *TORCH],
    "SGD-momentum": [
        *TORCH,
        ({"momentum": -0.1}, ValueError, "momentum must be in"),
        ({"dampening": math.nan}, ValueError, "dampening must be in"),
        ({"nesterov": True, "dampening": 0.1}, ValueError, "nesterov=True needs"),
        ({"nesterov": True, "momentum": 0.0, "dampening": 0.0}, ValueError, "nesterov=True needs"),
    ],
    "Lion": [
        *BETAS,
        ({"kernel": "cubic"}, ValueError, "kernel must be one of 'sign'"),
        ({"kernel": "soft", "threshold": -1.0}, ValueError, "threshold must be in"),
        ({"threshold": 0.5}, ValueError, "kernel='sign' has no threshold"),
        ({"density": 0.5}, ValueError, "kernel='sign' has neither density nor k"),
        ({"kernel": "top_k"}, ValueError, "needs either density or k, got density=None and k=None"),
        ({"kernel": "top_k", "density": 0.5, "k": 3}, ValueError, "needs either density or k"),
        ({"kernel": "top_k", "density": 0.0}, ValueError, r"density must be in \(0, 1\]"),
        ({"kernel": "top_k", "density": 1.5}, ValueError, "density must be in"),
        ({"kernel": "top_k", "density": torch.tensor(0.5)}, TypeError, "density must be a number"),
        ({"kernel": "top_k", "k": 0}, ValueError, "k must be in"),
        ({"kernel": "top_k", "k": 2.0}, TypeError, "k must be an integer"),
        ({"kernel": "row", "betas": (torch.tensor(0.9), 0.9)}, ValueError, "betas must be numbers where kernel is 'row'"),
        ({"kernel": "l2", "betas": (0.9, 0.0)}, ValueError, r"betas\[1\] must be positive"),
    ],
    "NormalizedSGD": [
        ({"momentum": 1.0}, ValueError, "momentum must be in"),
        ({"momentum": torch.tensor(0.5)}, TypeError, "momentum must be a number"),
        ({"eps": -1.0}, ValueError, "eps must be in"),
        ({"nesterov": 1}, TypeError, "nesterov must be True or False"),
        ({"scope": "group"}, ValueError, "scope must be one of 'tensor', 'all'"),
    ],
    "AMAdamW": [
        ({"pull": -0.1}, ValueError, "pull must be in"),
        ({"beta2": 1.0}, ValueError, "beta2 must be in"),
        ({"eps": -1.0}, ValueError, "eps must be in"),
    ],
    "AdamP": [
        *ADAM,
        ({"delta": -0.1}, ValueError, "delta must be in"),
        ({"wd_ratio": math.nan}, ValueError, "wd_ratio must be in"),
        ({"nesterov": 1}, TypeError, "nesterov must be True or False"),
    ],
    "SGDP": [
        ({"momentum": 1.0}, ValueError, "momentum must be in"),
        ({"momentum": torch.tensor(0.5)}, TypeError, "momentum must be a number"),
        ({"dampening": math.nan}, ValueError, "dampening must be in"),
        ({"eps": -1.0}, ValueError, "eps must be in"),
        ({"delta": -0.1}, ValueError, "delta must be in"),
        ({"project_momentum": "yes"}, TypeError, "project_momentum must be True or False"),
        ({"project_momentum": True}, ValueError, "project_momentum=True has no effect"),
    ],
    "AdamW-orthograd": ADAM,
    "SGDSaI": [
        ({"momentum": 1.0}, ValueError, "momentum must be in"),
        ({"eps": math.nan}, ValueError, "eps must be in"),
        ({"compat": "best"}, ValueError, "compat must be one of"),
    ],
    "AdaBelief": [
        *ADAM,
        *[({name: 1}, TypeError, f"{name} must be True or False") for name in ("amsgrad", "rectify", "degenerated_to_sgd")],
    ],
    "DiffGrad": ADAM,
    "Adan": [
        ({"betas": (0.9, 0.9)}, ValueError, "betas must be three numbers"),
        ({"max_grad_norm": -1.0}, ValueError, "max_grad_norm must be in"),
        ({"betas": (0.9, 0.9, 1.0)}, ValueError, r"betas\[2\] must be in"),
        ({"eps": -1.0}, ValueError, "eps must be in"),
    ],
    "SophiaG": [
        *ADAM,
        ({"rho": -0.1}, ValueError, "rho must be in"),
        ({"batch_size": math.inf}, ValueError, "batch_size must be in"),
        ({"update_interval": 0}, ValueError, "update_interval must be in"),
    ],
    "SophiaH": [
        *ADAM,
        ({"gamma": -0.1}, ValueError, "gamma must be in"),
        ({"probe": "uniform"}, ValueError, "probe must be one of 'gaussian'"),
    ],
    "SPAM": [
        *ADAM,
        ({"threshold": -1.0}, ValueError, "threshold must be in"),
        ({"reset_interval": -1}, ValueError, "reset_interval must be in"),
        ({"warmup_steps": 1.5}, TypeError, "warmup_steps must be an integer"),
        ({"accumulation_steps": -2}, ValueError, "accumulation_steps must be in"),
        ({"compat": "best"}, ValueError, "compat must be one of"),
        ({"guard_zero_v": 0}, TypeError, "guard_zero_v must be True or False"),
    ],
    "StableSPAM": [
        *ADAM,
        ({"gammas": (0.7, 0.9)}, ValueError, "gammas must be three numbers"),
        ({"gammas": (0.7, 1.0, 0.9)}, ValueError, r"gammas\[1\] must be in"),
        ({"gammas": (None, 0.9, 0.9), "betas": (torch.tensor(0.9), 0.9)}, ValueError, r"gammas\[0\] must be a number"),
        ({"total_steps": 0}, ValueError, "total_steps must be in"),
        ({"eta_min": 1.5}, ValueError, "eta_min must be in"),
        ({"reset_interval": -1}, ValueError, "reset_interval must be in"),
        ({"compat": "best"}, ValueError, "compat must be one of"),
    ],
    "SCALE-momentum": [
        ({"normalize": "diagonal"}, ValueError, "normalize must be one of"),
        ({"norm": "max"}, ValueError, "norm must be one of"),
        ({"eps": -1.0}, ValueError, "eps must be in"),
    ],
}
OPTIONS = [(name, *bad) for name in CLASSES for bad in [*COMMON, *OWN[name]]]


def make(name, params, **options):
    if name == "SCALE-momentum":
        return optim.SCALE(params, momentum=0.9, **{"norm": "l2", **options})
    return CASES[name].make(params, **options)


@pytest.mark.parametrize(("name", "options", "error", "message"), OPTIONS)
def test_option_is_refused_at_construction(name, options, error, message):
    with pytest.raises(error, match=message):
        make(name, make_params(shapes=[(3, 2)]), **options)


@pytest.mark.parametrize(("name", "options", "error", "message"), OPTIONS)
def test_option_is_refused_in_a_group_and_at_the_next_step(name, options, error, message):
    if "speed" in options or "decoupled_weight_decay" in options:
        pytest.skip("a group may hold entries of others")
    params = make_params(shapes=[(3, 2), (2, 2)])
    optimizer = make(name, params[:1])
    train(optimizer, params[:1], 2, Gradients())
    before = snapshot(optimizer)
    with pytest.raises(error, match=message):
        optimizer.add_param_group({"params": params[1:], **options})
    assert len(optimizer.param_groups) == 1
    own = dict(optimizer.param_groups[0])
    optimizer.param_groups[0].update(options)
    with pytest.raises(error, match=message):
        optimizer.step()
    assert_same_bits(before, snapshot(optimizer))
    optimizer.param_groups[0].update(own)
    optimizer.step()


@pytest.mark.parametrize("name", CLASSES)
def test_empty_list_and_not_a_list(name):
    with pytest.raises(ValueError, match="empty parameter list"):
        make(name, [])
    with pytest.raises(TypeError, match="iterable"):
        make(name, torch.ones(3, 2))
    with pytest.raises(TypeError, match="sets"):
        make(name, [{"params": {torch.ones(2, 2)}}])
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        make(name, [3])


@pytest.mark.parametrize("name", CLASSES)
def test_parameter_twice(name):
    param = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match="more than once"):
        make(name, [param, param])
    with pytest.raises(ValueError, match="more than one parameter group"):
        make(name, [{"params": [param]}, {"params": [param]}])


@pytest.mark.parametrize("name", CLASSES)
def test_complex_parameter(name):
    with pytest.raises(ValueError, match="does not support complex"):
        make(name, [nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))])


@pytest.mark.parametrize("name", CLASSES)
def test_non_leaf(name):
    with pytest.raises(ValueError, match="non-leaf"):
        make(name, [torch.ones(2, 2, requires_grad=True) * 2])


def test_scale_needs_matrices():
    with pytest.raises(ValueError, match="fewer than two dimensions"):
        optim.SCALE([nn.Parameter(torch.ones(3))])
    with pytest.raises(ValueError, match="fewer than two dimensions"):
        optim.SCALE(nn.Parameter(torch.ones(3)) for _ in range(2))


def sparse_grad(params):
    params[1].grad = torch.ones(4, 3).to_sparse()


def other_shape(params):
    with torch.no_grad():
        params[1].data = torch.ones(5, 3)


def other_strides(params):
    params[1].grad = torch.ones(3, 4).t()


def integer_param(params):
    params[1].grad = None
    params[1].requires_grad_(False)
    params[1].data = torch.ones(4, 3, dtype=torch.int32)
    params[1].grad = torch.ones(4, 3, dtype=torch.int32)


def shared_memory(params):
    params[1].data = params[0].data


def grad_is_param(params):
    params[1].grad = params[1].data


def expanded_param(params):
    params[1].data = torch.ones(1, 3).expand(4, 3)


def strided_param(params):
    params[1].data = torch.ones(4, 6)[:, ::2]


DAMAGES = {
    sparse_grad: "gradient of parameter 1 is sparse",
    other_shape: "shape",
    other_strides: "strides",
    integer_param: "dtype",
    shared_memory: "memory|overlap",
    grad_is_param: "memory|overlap",
    expanded_param: "strides|overlap",
    strided_param: "strides|gaps",
}


@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", CLASSES)
def test_tensor_that_does_not_fit(name, damage, first):
    if damage is other_shape and first:
        pytest.skip("no state that the new shape contradicts")
    params = make_params(shapes=[(4, 3)] * 3)
    optimizer = make(name, params, ema_decay=0.9)
    if not first:
        train(optimizer, params, 1, Gradients())
    Gradients(3).fill(params)
    damage(params)
    before = snapshot(optimizer)
    with pytest.raises((RuntimeError, ValueError), match=DAMAGES[damage]):
        optimizer.step()
    assert_same_bits(before, snapshot(optimizer))
    good = make_params(shapes=[(4, 3)] * 3)
    for p, other in zip(params, good, strict=True):
        p.grad = None
        p.data = other.data
        p.requires_grad_(True)
    train(optimizer, params, 1, Gradients())


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("wrong", [torch.zeros(2), torch.zeros(4, 3, dtype=torch.int64), torch.zeros(3, 4).t()])
def test_state_that_does_not_fit(name, wrong):
    params = make_params(shapes=[(4, 3)] * 2)
    optimizer = make(name, params)
    train(optimizer, params, 2, Gradients())
    state = optimizer.state[params[1]]
    key = next(key for key in state if key not in ("step", "scalars"))
    good, state[key] = state[key], wrong
    before = [p.detach().clone() for p in params]
    with pytest.raises(RuntimeError, match=r"\[1\] has (shape|dtype|strides)"):
        optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    state[key] = good
    optimizer.step()


def test_state_that_is_not_a_tensor():
    params = make_params(shapes=[(4, 3)])
    optimizer = optim.AdamW(params)
    train(optimizer, params, 1, Gradients())
    optimizer.state[params[0]]["exp_avg"] = 3.0
    with pytest.raises((RuntimeError, TypeError)):
        optimizer.step()


@pytest.mark.parametrize("name", CLASSES)
def test_ops_refuse_to_mutate_in_grad_mode(name):
    """The layer under the classes, called without no_grad, does not touch what autograd has to follow."""
    from momentum import _ops

    params = make_params(shapes=[(4, 3)])
    optimizer = make(name, params)
    called = []

    def in_grad_mode(*args, **options):
        called.append(1)
        with torch.enable_grad():
            original(*args, **options)

    original, _ops.step_ = _ops.step_, in_grad_mode
    try:
        Gradients().fill(params)
        before = params[0].detach().clone()
        with pytest.raises(RuntimeError, match=r"torch\.no_grad"):
            optimizer.step()
    finally:
        _ops.step_ = original
    assert called
    assert torch.equal(params[0], before)


def test_nan_and_inf_propagate_as_in_torch():
    def run(make):
        params = make_params()
        optimizer = make(params)
        Gradients().fill(params)
        params[0].grad[0, 0] = math.nan
        params[1].grad[0] = math.inf
        optimizer.step()
        return params

    for ours, theirs in zip(run(optim.AdamW), run(torch.optim.AdamW), strict=True):
        assert torch.equal(ours.isnan(), theirs.isnan())
        torch.testing.assert_close(ours, theirs, equal_nan=True)
