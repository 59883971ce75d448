"""Options that change what a step does or keeps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from momentum import optim
from optim.cases import BETAS, CASES, CLASSES, Gradients, assert_same_bits, make_params, snapshot, train


def path(make, steps=6, dtype=torch.float32, **options):
    params = make_params(dtype)
    optimizer = make(params, **options)
    train(optimizer, params, steps, Gradients())
    return [p.detach() for p in params], optimizer


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("tensor", [torch.tensor(0.0625), torch.tensor([0.0625]), torch.tensor(0.0625, dtype=torch.float64)])
@pytest.mark.parametrize("name", CLASSES)
def test_rates_as_tensors(name, tensor):
    """0.0625 is exact in every format, so the numbers of the step are the same."""
    make = CASES[name].make
    numbers, _ = path(make, lr=0.0625, weight_decay=0.0625)
    tensors, _ = path(make, lr=tensor, weight_decay=tensor.clone())
    assert_equal(numbers, tensors)


@pytest.mark.parametrize("name", BETAS)
def test_betas_as_tensors(name):
    make = CASES[name].make
    numbers, _ = path(make, betas=(0.75, 0.875))
    tensors, _ = path(make, betas=(torch.tensor(0.75), torch.tensor(0.875)))
    assert_equal(numbers, tensors)


def test_tensors_are_read_at_every_step():
    lr, beta1, decay = torch.tensor(0.5), torch.tensor(0.5), torch.tensor(0.0)
    params, twins = make_params(), make_params()
    tensors = optim.AdamW(params, lr=lr, betas=(beta1, torch.tensor(0.75)), weight_decay=decay)
    numbers = optim.AdamW(twins, lr=0.5, betas=(0.5, 0.75), weight_decay=0.0)
    ours, theirs = Gradients(), Gradients()
    for step in range(4):
        lr.fill_(0.5**step)
        beta1.fill_(0.5**step / 2)
        decay.fill_(step / 4)
        numbers.param_groups[0].update(lr=0.5**step, betas=(0.5**step / 2, 0.75), weight_decay=step / 4)
        train(tensors, params, 1, ours)
        train(numbers, twins, 1, theirs)
    assert_equal(params, twins)


def test_groups_with_their_own_tensors():
    """Different tensors in one call are put together by tensor."""
    params, twins = make_params(), make_params()
    rates = [0.5, 0.25, 0.125, 0.5, 0.25, 0.125]
    ours = optim.AdamW([{"params": p, "lr": torch.tensor(rate)} for p, rate in zip(params, rates, strict=True)])
    theirs = optim.AdamW([{"params": p, "lr": rate} for p, rate in zip(twins, rates, strict=True)])
    train(ours, params, 3, Gradients())
    train(theirs, twins, 3, Gradients())
    assert_equal(params, twins)


@pytest.mark.parametrize("scheduler", ["StepLR", "CosineAnnealingLR", "OneCycleLR", "LambdaLR"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_schedulers(scheduler, as_tensor):
    """The path is torch's under the same scheduler; OneCycleLR moves the betas too."""
    arguments = {
        "StepLR": {"step_size": 2, "gamma": 0.5},
        "CosineAnnealingLR": {"T_max": 5},
        "OneCycleLR": {"max_lr": 0.1, "total_steps": 10},
        "LambdaLR": {"lr_lambda": lambda step: 1 / (1 + step)},
    }[scheduler]

    def run(make, **options):
        params = make_params()
        optimizer = make(params, lr=torch.tensor(0.1) if as_tensor else 0.1, **options)
        schedule = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **arguments)
        gradients = Gradients()
        for _ in range(6):
            train(optimizer, params, 1, gradients)
            schedule.step()
        return params

    for ours, theirs in zip(run(optim.AdamW), run(torch.optim.AdamW, foreach=False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_state_dtypes(name):
    _, optimizer = path(CASES[name].make, state_format=torch.bfloat16)
    for param, state in optimizer.state.items():
        for key, value in state.items():
            if key not in ("step", "scalars"):
                assert value.dtype == torch.bfloat16, key
                assert value.shape == param.shape
    _, optimizer = path(CASES[name].make, dtype=torch.float64)
    assert {v.dtype for s in optimizer.state.values() for k, v in s.items() if k not in ("step", "scalars")} <= {torch.float64}


def test_state_dtype_by_name():
    _, optimizer = path(
        optim.AdamW, dtype=torch.bfloat16, state_format={"exp_avg": torch.bfloat16, "ema": torch.bfloat16}, ema_decay=0.5
    )
    for state in optimizer.state.values():
        dtypes = {name: value.dtype for name, value in state.items()}
        assert dtypes == {
            "exp_avg": torch.bfloat16,
            "exp_avg_sq": torch.float32,
            "ema": torch.bfloat16,
            "step": torch.float32,
        }


# SGDSaI's ratio has no noise here, and the gradient lies along the weights, which is what the others leave out.
UNMOVED = ("SGDSaI", "AdamP", "SGDP", "AdamW-orthograd")


@pytest.mark.parametrize("compensation", ["kahan", "master"])
@pytest.mark.parametrize("name", [name for name in CLASSES if name not in UNMOVED])
def test_compensated_bfloat16_follows_float32(name, compensation):
    """300 steps too small for bfloat16: plain rounding stands still, a compensated parameter moves as float32 does."""
    make = CASES[name].make

    def run(dtype, **options):
        params = [nn.Parameter(torch.ones(4, 3, dtype=dtype))]
        optimizer = make(params, lr=2e-5 if name == "NormalizedSGD" else 1e-5, weight_decay=0.0, **options)
        for _ in range(300):
            params[0].grad = torch.ones_like(params[0])
            optimizer.step()
        return params[0].detach().double(), optimizer.state[params[0]]

    exact, _ = run(torch.float32)
    stuck, _ = run(torch.bfloat16)
    moved, state = run(torch.bfloat16, compensation=compensation)
    assert torch.equal(stuck, torch.ones(4, 3).double())
    if compensation == "master":
        assert torch.equal(state["master_param"].double(), exact)
        assert torch.equal(moved, exact.bfloat16().double())
    else:
        # What is kept is at most half an ulp of the parameter, 2^-9, and itself rounded to 8 bits at every step.
        assert (moved + state["compensation"].double() - exact).abs().max() <= 300 * 2.0**-18
        assert (1 - exact).min() > 300 * 2.0**-18


def test_master_param_is_the_float32_path():
    params = make_params(torch.bfloat16)
    twins = [nn.Parameter(p.detach().float()) for p in params]
    ours, theirs = optim.AdamW(params, compensation="master", lr=0.01), optim.AdamW(twins, lr=0.01)
    gradients = Gradients()
    for _ in range(10):
        gradients.fill(params)
        for p, twin in zip(params, twins, strict=True):
            twin.grad = p.grad.float()
        ours.step()
        theirs.step()
    for p, twin in zip(params, twins, strict=True):
        assert torch.equal(ours.state[p]["master_param"], twin)
        assert torch.equal(p, twin.bfloat16())


def test_stochastic_rounding_is_unbiased_and_seeded():
    def run(seed):
        param = nn.Parameter(torch.ones(20_000, dtype=torch.bfloat16))
        optimizer = optim.SGD([param], lr=2.0**-10, rounding="stochastic", seed=seed)
        param.grad = torch.ones_like(param)
        optimizer.step()
        return param.detach()

    # 1 - 2^-10 lies three quarters of the way from 1 - 2^-8 to 1: 5 standard deviations of the mean of 20,000 draws.
    moved = (run(0) != 1).double().mean().item()
    assert abs(moved - 0.25) < 5 * (0.25 * 0.75 / 20_000) ** 0.5
    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_every_parameter_and_step_draws_its_own_bits():
    params = [nn.Parameter(torch.ones(1000, dtype=torch.bfloat16)) for _ in range(2)]
    optimizer = optim.SGD(params, lr=2.0**-9, rounding="stochastic")
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    first = params[0].detach().clone()
    assert not torch.equal(params[0], params[1])
    with torch.no_grad():
        params[0].fill_(1)
    optimizer.step()
    assert not torch.equal(params[0], first)


def test_random_streams_do_not_depend_on_who_else_steps():
    def run(frozen):
        params = make_params(torch.bfloat16)
        optimizer = optim.AdamW(params, rounding="stochastic")
        Gradients().fill(params)
        if frozen:
            params[0].grad = None
        optimizer.step()
        return params[1:]

    assert_equal(run(False), run(True))


@pytest.mark.parametrize("mode", ["mask", "rescaled"])
@pytest.mark.parametrize("name", CLASSES)
def test_cautious(name, mode):
    """After a step along g and one along -g, nothing may move against the gradient."""
    make = CASES[name].make
    param = nn.Parameter(torch.zeros(6, 4))
    optimizer = make([param], cautious=mode, weight_decay=0.0, lr=0.01)
    for step in range(4):
        grad = torch.ones(6, 4)
        grad[:, : step % 4] *= -1
        param.grad = grad
        before = param.detach().clone()
        optimizer.step()
        assert ((before - param.detach()) * grad >= 0).all()
    plain, _ = path(make)
    masked, _ = path(make, cautious=mode)
    assert any(not torch.equal(a, b) for a, b in zip(plain, masked, strict=True))


def test_cautious_true_is_mask():
    a, _ = path(optim.AdamW, cautious=True)
    b, _ = path(optim.AdamW, cautious="mask")
    assert_equal(a, b)


@pytest.mark.parametrize("mode", ["decoupled", "lr_decoupled", "prox", "decoupled_after"])
def test_weight_decay_modes_without_a_gradient(mode):
    """With a zero gradient nothing but the decay is left."""
    param = nn.Parameter(torch.full((5,), 2.0, dtype=torch.float64))
    optimizer = optim.SGD([param], lr=0.5, weight_decay=0.25, weight_decay_mode=mode)
    optimizer.param_groups[0]["lr"] = 0.125
    param.grad = torch.zeros_like(param)
    optimizer.step()
    factor = {"decoupled": 1 - 0.125 * 0.25, "lr_decoupled": 1 - 0.25 * 0.25, "prox": 1 / (1 + 0.125 * 0.25)}
    expected = 2 * factor.get(mode, factor["decoupled"])
    torch.testing.assert_close(param.detach(), torch.full((5,), expected, dtype=torch.float64))


def test_lr_decoupled_remembers_the_lr_before_warm_up():
    param = nn.Parameter(torch.ones(2))
    optimizer = optim.AdamW([param], lr=0.5, weight_decay_mode="lr_decoupled")
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.01)
    assert optimizer.param_groups[0]["max_lr"] == 0.5


@pytest.mark.parametrize("name", CLASSES)
def test_ema(name):
    """The state follows ema = d ema + (1 - d) p from the parameter before the first step on."""
    params = make_params(torch.float64)
    optimizer = CASES[name].make(params, ema_decay=0.75)
    expected = [p.detach().clone() for p in params]
    gradients = Gradients()
    for _ in range(5):
        train(optimizer, params, 1, gradients)
        expected = [0.75 * e + 0.25 * p.detach() for e, p in zip(expected, params, strict=True)]
    for p, value in zip(params, expected, strict=True):
        torch.testing.assert_close(optimizer.state[p]["ema"], value, rtol=1e-14, atol=1e-15)


def test_swap_ema():
    params = make_params(torch.bfloat16)
    optimizer = optim.AdamW(params, ema_decay=0.5, lr=0.1)
    train(optimizer, params, 3, Gradients())
    before = snapshot(optimizer)
    with optimizer.swap_ema():
        for p, ema in zip(params, optimizer.ema_params(), strict=True):
            assert ema.dtype == torch.float32
            assert torch.equal(p, ema.bfloat16())
        with pytest.raises(RuntimeError, match="inside swap_ema"):
            optimizer.step()
        with pytest.raises(RuntimeError, match="inside swap_ema"), optimizer.swap_ema():
            pass
    assert_same_bits(before, snapshot(optimizer))
    train(optimizer, params, 1, Gradients())


def test_swap_ema_restores_after_an_error():
    params = make_params()
    optimizer = optim.AdamW(params, ema_decay=0.5, lr=0.1)
    train(optimizer, params, 3, Gradients())
    before = snapshot(optimizer)
    with pytest.raises(KeyError), optimizer.swap_ema():
        raise KeyError
    assert_same_bits(before, snapshot(optimizer))


def test_ema_params_of_what_was_never_stepped():
    params = make_params(shapes=[(3,)])
    optimizer = optim.AdamW(params, ema_decay=0.5)
    assert torch.equal(next(optimizer.ema_params()), params[0])
    with optimizer.swap_ema():
        pass


@pytest.mark.parametrize("name", CLASSES)
def test_grad_scaler(name):
    """A power of two as the scale: unscaling is exact, and the gradient keeps its scale."""
    make = CASES[name].make
    params, twins = make_params(), make_params()
    scaled, plain = make(params), make(twins)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    ours, theirs = Gradients(), Gradients()
    for _ in range(5):
        ours.fill(params)
        theirs.fill(twins)
        scale = scaler.scale(torch.tensor(1.0)).item()
        for p in params:
            p.grad *= scale
        kept = [p.grad.clone() for p in params]
        scaler.step(scaled)
        scaler.update()
        plain.step()
        assert_equal(kept, [p.grad for p in params])
    assert_same_bits(snapshot(scaled), snapshot(plain))


@pytest.mark.parametrize("name", CLASSES)
def test_grad_scaler_skips_overflow(name):
    params = make_params()
    optimizer = CASES[name].make(params, ema_decay=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    train(optimizer, params, 2, Gradients())
    before = snapshot(optimizer)
    Gradients(3).fill(params)
    params[0].grad[0, 0] = float("inf")
    scaler.scale(torch.tensor(1.0))
    scaler.step(optimizer)
    scaler.update()
    assert_same_bits(before, snapshot(optimizer))
    assert scaler.get_scale() == 2.0


def test_grad_scaler_after_unscale_and_clipping():
    params, twins = make_params(), make_params()
    ours, theirs = optim.AdamW(params), optim.AdamW(twins)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    Gradients().fill(params)
    Gradients().fill(twins)
    scaler.scale(torch.tensor(1.0))
    for p in params:
        p.grad *= 8
    scaler.unscale_(ours)
    torch.nn.utils.clip_grad_norm_(params, 0.5)
    torch.nn.utils.clip_grad_norm_(twins, 0.5)
    scaler.step(ours)
    theirs.step()
    assert_equal(params, twins)
