"""What single optimizers do beyond their step: Adan clips and restarts, Sophia estimates, Lion-K stays in its box."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from momentum import optim
from momentum.optim import _formats
from momentum.reference import apply_step, sgd_sai, signal_to_noise
from optim.cases import Gradients, assert_same_bits, make_params, snapshot, train


def test_adan_clips_by_the_global_norm():
    """As torch clips before the step, over groups and dtypes; the gradients themselves stay."""
    params, twins = make_params(torch.float64), make_params(torch.float64)
    ours = optim.Adan([{"params": params[:2]}, {"params": params[2:], "lr": 0.1}], max_grad_norm=2.0)
    theirs = optim.Adan([{"params": twins[:2]}, {"params": twins[2:], "lr": 0.1}])
    gradients, same = Gradients(), Gradients()
    for step in range(5):
        gradients.fill(params)
        same.fill(twins)
        if step == 3:  # below the norm that is clipped
            for p in [*params, *twins]:
                p.grad *= 0.01
        kept = [p.grad.clone() for p in params]
        ours.step()
        assert all(torch.equal(p.grad, grad) for p, grad in zip(params, kept, strict=True))
        torch.nn.utils.clip_grad_norm_(twins, 2.0)
        theirs.step()
        # The factor is a float32, and torch adds 1e-6 to the norm, of about 8.
        for p, q in zip(params, twins, strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=5 * 0.1 * (step + 1) * 2.0**-20)


def test_adan_clips_what_a_scaler_scaled():
    params, twins = make_params(), make_params()
    ours, theirs = optim.Adan(params, max_grad_norm=1.0), optim.Adan(twins, max_grad_norm=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.tensor(1.0))
    Gradients().fill(params)
    Gradients().fill(twins)
    for p in params:
        p.grad *= 1024
    scaler.step(ours)
    theirs.step()
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-8)
    assert not hasattr(ours, "grad_scale")
    with pytest.raises(RuntimeError, match="max_grad_norm must be 0"):
        ours.step_param(params[0])


def test_adan_without_gradients():
    optimizer = optim.Adan(make_params(), max_grad_norm=1.0)
    optimizer.step()
    assert not optimizer.state


def test_adan_restart_is_a_new_optimizer():
    params = make_params()
    optimizer = optim.Adan(params)
    gradients = Gradients()
    train(optimizer, params, 3, gradients)
    optimizer.restart()
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    fresh, same = optim.Adan(twins), Gradients(9)
    train(optimizer, params, 3, Gradients(9))
    train(fresh, twins, 3, same)
    assert_same_bits(snapshot(optimizer), snapshot(fresh))


def test_adan_modes_that_contradict():
    with pytest.raises(ValueError, match="no_prox=True contradicts"):
        optim.Adan(make_params(), no_prox=True, weight_decay_mode="prox")
    with pytest.raises(TypeError, match="no_prox must be True or False"):
        optim.Adan(make_params(), no_prox=1)


BOXES = [
    {},
    {"kernel": "soft", "threshold": 0.5},
    {"kernel": "huber", "threshold": 0.5},
    {"kernel": "top_k", "density": 0.2},
    {"kernel": "top_k", "k": 40},
]


@pytest.mark.parametrize("kernel", BOXES)
def test_lion_stays_in_its_box(kernel):
    param = nn.Parameter(torch.linspace(-0.25, 0.25, 99))
    optimizer = optim.Lion([param], lr=0.1, weight_decay=4.0, **kernel)
    gradients = Gradients()
    for _ in range(100):
        train(optimizer, [param], 1, gradients)
        assert param.detach().abs().max() <= 0.25 * (1 + 100 * 2.0**-23)


def test_sophia_g_averages_squares():
    """Of float32 gradients that a scaler multiplied, for parameters that were stepped and not."""
    params = make_params()
    optimizer = optim.SophiaG(params, betas=(0.9, torch.tensor(0.75)))
    train(optimizer, params[:3], 2, Gradients())
    expected = [torch.zeros_like(p) for p in params]
    gradients = Gradients(5)
    for _ in range(3):
        gradients.fill(params)
        params[1].grad = None
        expected = [h if p.grad is None else 0.75 * h + 0.25 * p.grad**2 for p, h in zip(params, expected, strict=True)]
        for p in params:
            if p.grad is not None:
                p.grad *= 8
        optimizer.update_hessian(grad_scale=torch.tensor(8.0))
    for i, (p, h) in enumerate(zip(params, expected, strict=True)):
        assert int(optimizer.state[p]["step"]) == (2 if i < 3 else 0)
        torch.testing.assert_close(optimizer.state[p]["hessian"], h, rtol=1e-6, atol=0)
    train(optimizer, params, 1, gradients)


def test_sophia_g_draws_labels_from_the_model():
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0])
    logits = shares.log().expand(20, 1000, 4).to(torch.bfloat16)
    labels = optim.SophiaG.sampled_labels(logits, torch.Generator().manual_seed(1))
    assert labels.shape == (20, 1000)
    found = torch.bincount(labels.flatten(), minlength=4) / labels.numel()
    # Five standard deviations of a share of 20,000 draws, and the rounding of the logits to 8 bits.
    assert (found - shares).abs().max() < 5 * (0.25 / 20_000) ** 0.5 + 2.0**-8
    assert found[3] == 0


def test_sophia_h_finds_the_diagonal():
    """Of a quadratic whose Hessian is diagonal one Rademacher probe tells it exactly; a linear loss has none."""
    curvature = torch.tensor([4.0, 0.5, -1.0])
    param, idle = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    optimizer = optim.SophiaH([param, idle], betas=(0.9, 0.75), probe="rademacher")
    optimizer.update_hessian((curvature * param.square()).sum() / 2)
    torch.testing.assert_close(optimizer.state[param]["hessian"], 0.25 * curvature, rtol=1e-6, atol=0)
    assert not optimizer.state.get(idle)
    assert param.grad is None
    optimizer.update_hessian(param.sum())
    torch.testing.assert_close(optimizer.state[param]["hessian"], 0.75 * 0.25 * curvature, rtol=1e-6, atol=0)
    with pytest.raises(RuntimeError, match="depends on no parameter"):
        optimizer.update_hessian(torch.ones((), requires_grad=True) * 2)


def test_sophia_h_is_unbiased():
    """The mean of Gaussian estimates of a dense Hessian is its diagonal: each varies by 2 |row|^2."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    hessian = root @ root.T
    param = nn.Parameter(torch.zeros(6, dtype=torch.float64))
    optimizer = optim.SophiaH([param], betas=(0.9, 0.0))
    count, total = 2000, torch.zeros(6, dtype=torch.float64)
    for _ in range(count):
        optimizer.update_hessian(param @ hessian @ param / 2, generator)
        total += optimizer.state[param]["hessian"]
    deviation = (2 * hessian.square().sum(1) / count).sqrt()
    assert ((total / count - hessian.diagonal()).abs() < 5 * deviation).all()


@pytest.mark.parametrize("name", ["SophiaG", "SophiaH"])
def test_sophia_learns_with_its_estimate(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3))
    x = torch.randn(96, 2)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    optimizer = getattr(optim, name)(
        model.parameters(), lr=0.02, weight_decay=0.0, **({"batch_size": 96} if name == "SophiaG" else {})
    )
    losses = []
    for step in range(1, 101):
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if optimizer.hessian_due(step) and name == "SophiaG":
            optimizer.zero_grad()
            logits = model(x)
            cross_entropy(logits, optimizer.sampled_labels(logits)).backward()
            optimizer.update_hessian()
        elif optimizer.hessian_due(step):
            optimizer.update_hessian(cross_entropy(model(x), y))
    assert losses[-1] < 0.3 * losses[0]
    assert any(state["hessian"].any() for state in optimizer.state.values())


def test_hessian_due():
    optimizer = optim.SophiaG(make_params(), update_interval=3)
    assert [step for step in range(1, 9) if optimizer.hessian_due(step)] == [1, 4, 7]
    assert optim.SophiaH(make_params(), update_interval=1).hessian_due(5)


@pytest.mark.parametrize("official", [False, True])
def test_sgd_sai_measures_the_first_gradient(official):
    params = [*make_params(torch.float64), nn.Parameter(torch.ones(4, dtype=torch.float64))]
    compat = "official" if official else "intended"
    optimizer = optim.SGDSaI(params, compat=compat, eps=1e-3, weight_decay=0.1, weight_decay_mode="l2")
    Gradients().fill(params)
    params[-1].grad = torch.zeros(4, dtype=torch.float64)
    late = params[1].grad
    params[1].grad = None
    expected = [signal_to_noise(p.grad, eps=1e-3, official=official) if p.grad is not None else None for p in params]
    optimizer.step()
    params[1].grad = late
    expected[1] = signal_to_noise(late, eps=1e-3, official=official)
    for p in params:
        p.grad = p.grad * 3 + 1
    params[1].grad = late
    optimizer.step()
    for p, ratio in zip(params, expected, strict=True):
        if p.numel():
            torch.testing.assert_close(optimizer.state[p]["scalars"], ratio.float().reshape(1), rtol=1e-6, atol=0)


def test_sgd_sai_follows_its_reference():
    params = make_params(torch.float64, [(7, 5), (3, 2, 2), (9,)])
    exact, states = [p.detach().clone() for p in params], None
    optimizer = optim.SGDSaI(params, lr=0.01, weight_decay=0.1)
    gradients = Gradients()
    for step in range(1, 31):
        gradients.fill(params)
        states = states or [
            {"momentum_buffer": torch.zeros_like(p.grad), "scalars": signal_to_noise(p.grad).reshape(1)} for p in params
        ]
        optimizer.step()
        for i, p in enumerate(params):
            exact[i], states[i] = apply_step(sgd_sai, exact[i], p.grad, states[i], step, lr=0.01, weight_decay=0.1, decay=2)
    for p, value in zip(params, exact, strict=True):
        torch.testing.assert_close(p.detach(), value, rtol=0, atol=30 * 30 * 2.0**-24 * value.abs().max().item())


def test_sgd_sai_under_a_scaler_that_overflows_first():
    """The ratio is that of the first gradient that was used, unscaled."""
    params, twins = make_params(), make_params()
    ours, theirs = optim.SGDSaI(params), optim.SGDSaI(twins)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.tensor(1.0))
    Gradients(7).fill(params)
    params[0].grad[0, 0] = float("inf")
    scaler.step(ours)
    scaler.update()
    gradients, same = Gradients(), Gradients()
    for _ in range(3):
        gradients.fill(params)
        for p in params:
            p.grad *= 512
        scaler.scale(torch.tensor(1.0))
        scaler.step(ours)
        scaler.update()
        train(theirs, twins, 1, same)
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(ours.state[p]["scalars"], theirs.state[q]["scalars"], rtol=1e-6, atol=0)
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_sgd_sai_first_step_that_is_refused():
    params = make_params(shapes=[(3, 4), (4, 3)])
    optimizer = optim.SGDSaI(params)
    Gradients().fill(params)
    params[1].grad = params[1].grad.to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("kernel", ["l2", "row", "column"])
def test_lion_stays_in_its_ball(kernel):
    param = nn.Parameter(torch.zeros(8, 5))
    optimizer = optim.Lion([param], lr=0.1, weight_decay=4.0, kernel=kernel)
    gradients = Gradients()
    dims = {"l2": (0, 1), "row": 1, "column": 0}[kernel]
    for _ in range(60):
        train(optimizer, [param], 1, gradients)
        assert param.detach().norm(dim=dims).max() <= 0.25 * (1 + 60 * 2.0**-22)


@pytest.mark.parametrize("compat", ["intended", "official"])
def test_spam_moves_no_further_than_the_clipped_step(compat):
    """A gradient 1000 times too large steps as one at the limit does, the moments included."""
    spiked, limited = (nn.Parameter(torch.ones(50, dtype=torch.float64)) for _ in range(2))
    optimizers = [optim.SPAM([p], threshold=5000.0, compat=compat, lr=0.1) for p in (spiked, limited)]
    generator = torch.Generator().manual_seed(0)
    for step in range(60):
        grad = torch.randn(50, generator=generator, dtype=torch.float64)
        for p, optimizer in zip((spiked, limited), optimizers, strict=True):
            p.grad = grad.clone()
            if step == 40:
                limit = (5000 * optimizer.state[p]["exp_avg_sq"]).sqrt()
                assert (limit > grad.abs()).all()
                p.grad[::3] = (1000 * limit if p is spiked else limit)[::3]
            optimizer.step()
        if step >= 40:
            torch.testing.assert_close(spiked.detach(), limited.detach(), rtol=1e-12, atol=1e-12)


def test_sophia_averages_a_quantised_estimate():
    """Within the step of its format, of which an 8-bit block of 256 has 255 levels over twice its largest value or fewer."""
    params, twins = make_params(shapes=[(80, 70)]), make_params(shapes=[(80, 70)])
    ours, theirs = optim.SophiaG(params, state_format="int8"), optim.SophiaG(twins)
    gradients, same = Gradients(), Gradients()
    for _ in range(3):
        gradients.fill(params)
        same.fill(twins)
        ours.step()
        theirs.step()
        ours.update_hessian()
        theirs.update_hessian()
    exact = theirs.state[twins[0]]["hessian"]
    kept = _formats.dequantised(ours.state[params[0]], params[0], "hessian")
    assert (kept - exact).abs().max() <= 3 * 2.0**-6 * exact.max()
    assert ours.state[params[0]]["hessian"].dtype == torch.uint8


def test_adan_restart_of_quantised_states():
    params = make_params(shapes=[(80, 70)])
    optimizer = optim.Adan(params, state_format="int8")
    train(optimizer, params, 2, Gradients())
    optimizer.restart()
    for name in ("exp_avg", "exp_avg_diff", "exp_avg_sq"):
        assert not _formats.dequantised(optimizer.state[params[0]], params[0], name).any()
