"""What AdamP, SGDP and perpendicular gradients are for: the norm of weights whose scale does not matter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from momentum import optim
from optim.cases import CASES, Gradients, make_params, snapshot, train


def scale_free_training(make, steps=60):
    """Train rows that a normalisation follows; return the squared norms of the rows and the losses on the way."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 12, generator=generator, dtype=torch.float64)
    target = torch.randn(64, 7, generator=generator, dtype=torch.float64)
    weight = nn.Parameter(torch.randn(7, 12, generator=generator, dtype=torch.float64))
    optimizer = make([weight])
    norms, losses = [weight.detach().square().sum(1)], []
    for _ in range(steps):
        loss = (x @ nn.functional.normalize(weight, dim=1).T - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        before = weight.detach().clone()
        optimizer.step()
        norms.append(weight.detach().square().sum(1))
        losses.append(loss.item())
        step = (weight.detach() - before).square().sum(1)
        yield before, step, norms, losses


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.AdamP(p, lr=0.02),
        lambda p: optim.AdamP(p, lr=0.02, nesterov=True),
        lambda p: optim.SGDP(p, lr=0.3, momentum=0.9),
        lambda p: optim.SGDP(p, lr=0.3, momentum=0.9, nesterov=True),
    ],
)
def test_norms_grow_by_the_step_alone(make):
    """Every step is perpendicular to its row, so squared norms add: no more growth than that, whatever the momentum."""
    losses = []
    for _, step, norms, so_far in scale_free_training(make):
        torch.testing.assert_close(norms[-1], norms[-2] + step, rtol=1e-7, atol=0)  # eps beside the norms
        losses = so_far
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("projected", "plain"),
    [
        (lambda p: optim.AdamP(p, lr=0.02), lambda p: optim.AdamW(p, lr=0.02, weight_decay=0.0)),
        (lambda p: optim.SGDP(p, lr=0.3, momentum=0.9), lambda p: optim.SGD(p, lr=0.3, momentum=0.9)),
    ],
)
def test_norms_grow_less_than_without(projected, plain):
    *_, (_, _, ours, _) = scale_free_training(projected)
    *_, (_, _, theirs, _) = scale_free_training(plain)
    growth = [(norms[-1] - norms[0]).mean() for norms in (ours, theirs)]
    assert 0 < growth[0] < 0.8 * growth[1]


def test_weight_decay_is_reduced_where_the_update_is_projected():
    """And only there. SGDP's is the one that its momentum adds up to."""
    across, along = (nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64)) for _ in range(2))
    across.grad, along.grad = torch.zeros(2, 1, 2, dtype=torch.float64)
    along.grad += along.detach()
    optimizer = optim.AdamP([across, along], lr=0.5, weight_decay=0.25, wd_ratio=0.5)
    optimizer.step()
    torch.testing.assert_close(across.detach() / torch.tensor([[3.0, 4.0]]).double(), torch.full((1, 2), 0.9375).double())
    torch.testing.assert_close(along.detach(), 0.875 * torch.tensor([[3.0, 4.0]]).double() - 0.5, rtol=1e-7, atol=0)
    param = nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    param.grad = torch.zeros(1, 2, dtype=torch.float64)
    optim.SGDP([param], lr=0.5, momentum=0.5, weight_decay=0.25, wd_ratio=0.5).step()
    torch.testing.assert_close(param.detach() / torch.tensor([[3.0, 4.0]]).double(), torch.full((1, 2), 0.875).double())


@pytest.mark.parametrize("name", ["AdamP", "SGDP", "AdamW-orthograd"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_falls(name, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.LayerNorm(32), nn.Tanh(), nn.Linear(32, 3)).to(dtype)
    x = torch.randn(64, 6).to(dtype)
    y = x[:, :3] * x[:, 3:]
    optimizer = CASES[name].make(model.parameters(), lr=0.02 if name != "SGDP" else 0.1, weight_decay=1e-3)
    losses = []
    for _ in range(80):
        loss = nn.functional.mse_loss(model(x).float(), y.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_orthograd_leaves_gradients_alone():
    params = make_params()
    optimizer = optim.AdamW(params, orthograd=True)
    Gradients().fill(params)
    kept = [p.grad.clone() for p in params]
    optimizer.step()
    assert all(torch.equal(p.grad, grad) for p, grad in zip(params, kept, strict=True))


def test_orthograd_by_group_and_switched_on_later():
    """Groups that differ in it go in calls of their own; what is switched on counts from the next step."""
    params, twins, plain = make_params(), make_params(), make_params()
    ours = optim.AdamW([{"params": params[:3]}, {"params": params[3:], "orthograd": True}])
    whole, off = optim.AdamW(twins, orthograd=True), optim.AdamW(plain)
    for optimizer, own in ((ours, params), (whole, twins), (off, plain)):
        train(optimizer, own, 3, Gradients())
    found, with_it, without = snapshot(ours), snapshot(whole), snapshot(off)
    for name, value in found.items():
        expected = without if int(name.split()[-1]) < 3 else with_it
        assert torch.equal(value, expected[name]), name
    off.param_groups[0]["orthograd"] = "projected"
    train(off, plain, 1, Gradients(2))
    assert torch.equal(plain[2], snapshot(off)["param 2"])
    before = plain[2].detach().clone()
    first = off.state[plain[2]]["exp_avg"].clone()
    train(off, plain, 1, Gradients(3))
    torch.testing.assert_close(
        off.state[plain[2]]["exp_avg"], 0.9 * first, rtol=1e-6, atol=0
    )  # one element: no gradient is left
    assert not torch.equal(before, plain[2])
