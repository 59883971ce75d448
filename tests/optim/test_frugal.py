"""FRUGAL: active and inactive entries against the published code's formulas, choices, blocks, states."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from backends import BACKENDS
from momentum import _direct, _ops, optim
from momentum.optim.frugal import active_blocks
from optim.cases import Gradients, assert_same_bits, make_params, snapshot, train
from optim.test_sparse_spam import chosen
from tolerances import ROUNDINGS, UNIT

SHAPES = [(40, 33), (9, 300), (3, 2, 2), (33,), (), (0, 4), (300, 9)]
GAP = 4
PROJECTORS = ("columns", "rows", "random")
STATES = {"adam": ("exp_avg", "exp_avg_sq"), "lion": ("exp_avg",), "sgd": ("momentum_buffer",)}


def frugal(params, **options):
    return optim.FRUGAL(params, **{"lr": 0.01, "update_gap": GAP, "weight_decay": 0.1, **options})


def active_entries(p, state, projector):
    """Return the entries of ``p`` that the stored mask names, as the matrix dim 0 by the rest."""
    rows = p.shape[0] if p.ndim else 1
    units = {"columns": p.numel() // max(rows, 1), "rows": rows, "random": p.numel()}[projector]
    mask = chosen(torch.empty(units, 1), state["mask"]).flatten() if p.ndim > 1 else torch.ones(units, dtype=torch.bool)
    if projector == "random":
        return mask.reshape(p.shape)
    unit = mask if projector == "columns" else mask[:, None]
    return unit.expand(rows, p.numel() // max(rows, 1)).reshape(p.shape) if p.numel() else mask.new_zeros(p.shape)


def published(kind, grad, state, step):
    """Return the published code's direction for active entries, at ``step`` since the choice, and the new states."""
    if kind == "adam":
        m, v = 0.9 * state[0] + 0.1 * grad, 0.999 * state[1] + 0.001 * grad * grad
        denominator = v.sqrt() / (1 - 0.999**step) ** 0.5 + 1e-8
        return m / (1 - 0.9**step) / denominator, [m, v]
    if kind == "lion":
        return (0.9 * state[0] + 0.1 * grad).sign(), [0.999 * state[0] + 0.001 * grad]
    buffer = 0.9 * state[0] + grad if step > 1 else grad
    return buffer, [buffer]


@pytest.mark.parametrize("inactive", ["sign", "sgd", None])
@pytest.mark.parametrize("active", STATES)
@pytest.mark.parametrize("projector", PROJECTORS)
def test_steps_are_those_of_the_published_code(projector, active, inactive):
    """Over three choices: all are decayed, active entries restart with each choice, the rest has no memory."""
    params = make_params(shapes=SHAPES)
    optimizer = frugal(params, projector=projector, active=active, inactive=inactive, inactive_lr_scale=0.5)
    gradients = Gradients()
    choices = set()
    for t in range(3 * GAP):
        gradients.fill(params)
        before = [(p.detach().double(), copy.deepcopy(optimizer.state.get(p))) for p in params]
        optimizer.step()
        for p, (old, state) in zip(params, before, strict=True):
            after, grad = optimizer.state[p], p.grad.double()
            here = active_entries(p, after, projector)
            expected = {"sign": grad.sign(), "sgd": grad, None: 0 * grad}[inactive] * 0.5
            if t % GAP == 0:
                state = {name: torch.zeros_like(after[name]) for name in STATES[active]}
                choices.add(here.numpy().tobytes())
            moments = [state[name].double().flatten() for name in STATES[active]]
            expected[here], moments = published(active, grad[here], moments, t % GAP + 1)
            value = old * (1 - 0.01 * 0.1) - 0.01 * expected
            unit = ROUNDINGS[active].total * UNIT[torch.float32]
            torch.testing.assert_close(p.detach().double(), value, rtol=unit, atol=unit)
            for name, moment in zip(STATES[active], moments, strict=True):
                torch.testing.assert_close(after[name].double().flatten(), moment, rtol=unit, atol=unit)
    assert len(choices) >= 3 * 2  # at least the large tensors choose anew each time


@pytest.mark.parametrize("projector", PROJECTORS)
def test_states_take_what_the_density_says(projector):
    p = nn.Parameter(torch.randn(400, 1000))
    optimizer = optim.FRUGAL([p], projector=projector, density=0.25)
    p.grad = torch.randn_like(p)
    optimizer.step()
    shapes = {"columns": (400, 250), "rows": (100, 1000), "random": (100_000,)}
    assert optimizer.state[p]["exp_avg"].shape == shapes[projector]
    held = sum(t.untyped_storage().nbytes() for name, t in optimizer.state[p].items() if name not in ("step", "mask"))
    assert held == 8 * p.numel() // 4
    assert optimizer.state[p]["mask"].nbytes <= p.numel() // 8


def test_entries_that_stay_active_may_keep_their_states():
    p = nn.Parameter(torch.zeros(50, 50))
    optimizer = frugal([p], projector="random", density=0.5, reset_statistics=False, lr=0.0)
    p.grad = torch.full_like(p, 2.0)
    for _ in range(GAP):
        optimizer.step()
    before = active_entries(p, optimizer.state[p], "random")
    optimizer.step()
    after = active_entries(p, optimizer.state[p], "random")
    moments = torch.zeros(50, 50)
    moments[after] = optimizer.state[p]["exp_avg"]
    assert (before & after).any()
    assert (after & ~before).any()
    # 2 (1 - 0.9^t): five steps for those that stayed, one for the others.
    torch.testing.assert_close(moments[before & after], torch.full_like(moments[before & after], 2 * (1 - 0.9**5)))
    torch.testing.assert_close(moments[after & ~before], torch.full_like(moments[after & ~before], 0.2))


ORDERS = {
    # Of 8 tensors, 2 active: what the published code goes through, wrapping around.
    "ascending": [{0, 1}, {2, 3}, {4, 5}, {6, 7}, {0, 1}],
    "descending": [{7, 6}, {5, 4}, {3, 2}, {1, 0}, {7, 6}],
    "mirror": [{0, 7}, {1, 6}, {2, 5}, {3, 4}, {0, 7}],
}


@pytest.mark.parametrize("order", ORDERS)
def test_order_of_blocks(order):
    params = make_params(shapes=[(6, 4)] * 8)
    optimizer = frugal(params, projector="block", block_order=order)
    seen = []
    for t in range(5 * GAP):
        train(optimizer, params, 1, Gradients(t))
        active = {i for i, p in enumerate(params) if optimizer.state[p]["exp_avg"].numel()}
        assert active == active_blocks(optimizer.param_groups[0])
        if t % GAP == 0:
            seen.append(active)
    assert seen == ORDERS[order]


def test_blocks_at_random():
    params = make_params(shapes=[(3,)] * 10)
    group = frugal(params, projector="block", density=0.3).param_groups[0]
    choices = [active_blocks({**group, "block_step": 1 + GAP * period}) for period in range(200)]
    assert {len(choice) for choice in choices} == {3}
    times = [sum(i in choice for choice in choices) for i in range(10)]
    # 60 on average, by a binomial of variance 42: six of its deviations.
    assert all(abs(count - 60) < 6 * 42**0.5 for count in times)


def test_active_blocks_step_as_adamw_and_free_their_states():
    params, twins = make_params(shapes=[(6, 4), (5,), (), (9, 2)]), make_params(shapes=[(6, 4), (5,), (), (9, 2)])
    optimizer = frugal(params, projector="block", block_order="ascending", inactive_lr_scale=0.25)
    gradients, same = Gradients(), Gradients()
    unit = ROUNDINGS["adam"].total * UNIT[torch.float32]
    for period in range(5):
        adam = torch.optim.AdamW([twins[period % 4]], lr=0.01, weight_decay=0.1)
        for _ in range(GAP):
            gradients.fill(params)
            same.fill(twins)
            optimizer.step()
            adam.step()
            for i, twin in enumerate(twins):
                if i != period % 4:
                    twin.data = twin.data * (1 - 0.001) - 0.01 * 0.25 * twin.grad.sign()
        for i, p in enumerate(params):
            assert optimizer.state[p]["exp_avg"].numel() == (p.numel() if i == period % 4 else 0)
        for p, twin in zip(params, twins, strict=True):
            torch.testing.assert_close(p, twin, rtol=0, atol=GAP * (period + 1) * 4 * unit)


@pytest.mark.parametrize("projector", [*PROJECTORS, "block", None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_round_trip_in_the_middle_of_training(projector, dtype):
    """Bit for bit, over a choice; a group without a projector beside it."""

    def make(params, lr):
        return frugal([{"params": params[:4]}, {"params": params[4:], "projector": None}], projector=projector, lr=lr)

    params = make_params(dtype, SHAPES)
    optimizer, gradients = make(params, 0.01), Gradients()
    train(optimizer, params, GAP + 2, gradients)
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    resumed = make(twins, 0.9)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    stream = copy.deepcopy(gradients)
    train(optimizer, params, GAP + 1, gradients)
    train(resumed, twins, GAP + 1, stream)
    assert_same_bits(snapshot(optimizer), snapshot(resumed))


def test_without_a_projector_it_is_adamw():
    ours, theirs = make_params(shapes=SHAPES), make_params(shapes=SHAPES)
    train(frugal(ours, projector=None), ours, 10, Gradients())
    train(optim.AdamW(theirs, lr=0.01, weight_decay=0.1), theirs, 10, Gradients())
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("projector", [*PROJECTORS, "block"])
def test_training_falls(projector):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))
    x, y = torch.randn(200, 20), torch.randint(5, (200,))
    optimizer = optim.create("frugal", model, lr=0.003, projector=projector, density=0.5, update_gap=20)
    assert [group["name"] for group in optimizer.param_groups] == ["projected", "plain"]
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("projector", [*PROJECTORS, "block"])
@pytest.mark.parametrize("name", BACKENDS)
def test_backends_follow_one_path(name, projector):
    backend = BACKENDS[name]
    if backend.missing():
        pytest.skip(backend.missing())
    expected = make_params(shapes=SHAPES)
    train(frugal(expected, projector=projector), expected, 6, Gradients())
    params = [nn.Parameter(p.detach().to(backend.device)) for p in make_params(shapes=SHAPES)]
    optimizer, gradients = frugal(params, projector=projector), Gradients()
    backend.op("adam_subset_")
    with _ops.namespace(backend.namespace):
        for _ in range(6):
            sources = make_params(shapes=SHAPES)
            gradients.fill(sources)
            for p, source in zip(params, sources, strict=True):
                p.grad = source.grad.to(backend.device)
            optimizer.step()
    for got, value in zip(params, expected, strict=True):
        torch.testing.assert_close(got.cpu(), value, rtol=0, atol=6 * ROUNDINGS["adam"].total * UNIT[torch.float32] * 4)


def test_one_call_a_step(monkeypatch):
    calls = []
    step = _ops.step_subset_
    monkeypatch.setattr(_ops, "step_subset_", lambda name, *a, **o: (calls.append(name), step(name, *a, **o)))
    params = make_params(shapes=SHAPES * 5)
    with _direct.disabled():  # a repeated step calls nothing of Python's
        train(frugal(params), params, GAP + 2, Gradients())
    assert calls == ["adam_subset"] * (GAP + 2)


BAD = [
    ({"projector": "svd"}, ValueError, "projector must be one of None, 'columns', 'rows', 'random', 'block'"),
    ({"density": 1.5}, ValueError, r"density must be in \[0, 1\]"),
    ({"update_gap": 0}, ValueError, r"update_gap must be in \[1,"),
    ({"reset_statistics": 1}, TypeError, "reset_statistics must be True or False"),
    ({"reset_statistics": False}, ValueError, "reset_statistics must be True where projector is 'columns'"),
    ({"active": "adamw"}, ValueError, "active must be one of 'adam', 'lion', 'sgd'"),
    ({"inactive": "no"}, ValueError, "inactive must be one of None, 'sign', 'sgd'"),
    ({"inactive_lr_scale": -1.0}, ValueError, "inactive_lr_scale must be in"),
    ({"momentum": 1.0}, ValueError, "momentum must be in"),
    ({"block_order": "zigzag"}, ValueError, "block_order must be one of 'random'"),
    ({"projector": "block", "block_order": "mirror", "density": 0.4}, ValueError, "even number of active tensors, got 3 of 7"),
    ({"orthograd": True}, ValueError, "orthograd must be False for states of a subset, got True"),
    ({"ema_decay": 0.5}, ValueError, "ema_decay must be None for states of a subset"),
    ({"state_format": "int4"}, ValueError, "state_format must be None or 'fp32' for states of a subset"),
    ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be in"),
    ({"eps": -1.0}, ValueError, "eps must be in"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        frugal(make_params(shapes=SHAPES), **options)


def test_blocks_are_not_stepped_one_by_one():
    params = make_params(shapes=[(4, 4)] * 4)
    optimizer = frugal([{"params": params[:2], "projector": "block"}, {"params": params[2:]}])
    Gradients().fill(params)
    with pytest.raises(RuntimeError, match="step_param: the tensors of a group with projector='block'"):
        optimizer.step_param(params[0])
    optimizer.step_param(params[2])
    assert set(optimizer.state) == {params[2]}


def test_a_refused_step_changes_no_choice():
    params = make_params(shapes=[(4, 4)] * 4)
    optimizer = frugal(params, projector="block")
    Gradients().fill(params)
    params[1].grad = params[1].grad.to_sparse()
    with pytest.raises(RuntimeError, match="gradient of parameter 1 is sparse"):
        optimizer.step()
    assert optimizer.param_groups[0]["block_step"] == 0
    Gradients().fill(params)
    optimizer.step()
    assert optimizer.param_groups[0]["block_step"] == 1


def test_groups_of_a_model():
    model = nn.ModuleDict(
        {"embed": nn.Embedding(7, 4), "up": nn.Linear(4, 8), "norm": nn.LayerNorm(8), "head": nn.Linear(8, 7)}
    )
    projected, plain = optim.frugal_groups(model)
    assert [id(p) for p in projected["params"]] == [id(model["up"].weight)]
    assert len(plain["params"]) == 6
    assert plain["projector"] is None
    assert len(optim.frugal_groups(nn.LayerNorm(3))) == 1
