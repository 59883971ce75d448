"""SPAM with sparse momentum: the update of chosen entries, the draws, and what the states take."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn

from momentum import _direct, _ops, optim
from momentum.optim._plan import stream_seed
from momentum.reference import apply_step, spam
from momentum.reference.subset import draw_units
from optim.cases import SHAPES, Gradients, assert_same_bits, make_params, snapshot, train
from tolerances import ROUNDINGS, UNIT

OPTIONS = {"reset_interval": 9, "warmup_steps": 5, "accumulation_steps": 3, "threshold": 2.0}
LARGE = [(40, 33), (5, 7), (3, 2, 2), (33,), (), (0, 4)]


def sparse(params, **options):
    return optim.SPAM(params, **{"density": 0.25, "weight_decay": 0.1, "lr": 0.01, **OPTIONS, **options})


def chosen(param, mask):
    """Return which entries a stored mask names."""
    if mask.numel() == 0:
        return torch.full(param.shape, param.ndim < 2)
    bits = (mask[:, None].long() >> torch.arange(32)) & 1
    return bits.flatten()[: param.numel()].bool().reshape(param.shape)


def official(grad, state, step, *, beta1=0.9, beta2=0.999, eps=1e-6):
    """The published code's step of the entries it chose, as far as the weights go; it decays a copy, so nothing."""
    interval, warmup, wait, threshold = (
        OPTIONS["reset_interval"],
        *(OPTIONS[n] for n in ("warmup_steps", "accumulation_steps", "threshold")),
    )
    m, v = state["exp_avg"], state["exp_avg_sq"]
    since = step % interval
    if since == 0:
        m, v = 0 * m, 0 * v
    if step >= wait and since >= wait:
        spike = grad * grad > threshold * v
        grad = torch.where(spike, grad.sign() * (threshold * v).sqrt(), grad)
    m, v = beta1 * m + (1 - beta1) * grad, beta2 * v + (1 - beta2) * grad * grad
    death = 0.99 * (1 + math.cos(math.pi * since / (warmup + 1))) / 2 if step >= interval and since < warmup else 0.0
    size = math.sqrt(1 - beta2**step) / (1 - beta1**step)
    return (1 - death) * size * m / (v.sqrt() + eps), {"exp_avg": m, "exp_avg_sq": v}


@pytest.mark.parametrize("compat", ["intended", "official"])
def test_path_is_that_of_the_algorithm(compat):
    """Over three draws, step by step, from the states as they were before: entries that are not chosen keep their bits."""
    params = make_params(shapes=LARGE)
    optimizer = sparse(params, compat=compat)
    gradients = Gradients()
    for step in range(1, 29):
        gradients.fill(params)
        before = [(p.detach().clone(), copy.deepcopy(optimizer.state.get(p))) for p in params]
        optimizer.step()
        for number, (p, (old, state)) in enumerate(zip(params, before, strict=True)):
            after = optimizer.state[p]
            here = chosen(p, after["mask"])
            if 0 < here.sum() < p.numel():
                period = step // OPTIONS["reset_interval"]
                assert torch.equal(here.flatten(), draw_units(p.numel(), p.numel() // 4, stream_seed(0, number), period))
            assert torch.equal(p[~here], old[~here])
            if state is None or step % OPTIONS["reset_interval"] == 0:
                state = {name: torch.zeros_like(after[name]) for name in ("exp_avg", "exp_avg_sq")}
            state = {name: state[name].double() for name in ("exp_avg", "exp_avg_sq")}
            inputs = old[here].double(), p.grad[here].double(), state, step
            if compat == "official":
                value, state = apply_step(official, *inputs, lr=0.01)
            else:
                value, state = apply_step(spam, *inputs, lr=0.01, weight_decay=0.1, decay=5, **OPTIONS)
            unit = ROUNDINGS["spam"].total * UNIT[torch.float32]
            # The parameter, and a step of at most about 3 lr / sqrt(1 - beta2) when a gradient meets an empty moment.
            torch.testing.assert_close(p[here].double(), value, rtol=unit, atol=unit)
            for name, moment in state.items():
                torch.testing.assert_close(after[name].double(), moment.reshape(after[name].shape), rtol=unit, atol=unit)


def test_every_entry_is_stepped_in_the_end():
    """Four draws of a quarter leave about 0.75^4 untouched; a hundred leave none of 35 * 40, but for one chance in 10^9."""
    p = nn.Parameter(torch.zeros(35, 40))
    optimizer = sparse([p], reset_interval=1, warmup_steps=0, accumulation_steps=0)
    for _ in range(100):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert (p != 0).all()


def test_states_take_what_the_density_says():
    """Measured: 8 bytes for each chosen entry and a bit for each, less than a word of rounding."""
    p = nn.Parameter(torch.randn(1000, 1001))
    optimizer = optim.SPAM([p], density=0.25)
    p.grad = torch.randn_like(p)
    optimizer.step()
    held = sum(t.untyped_storage().nbytes() for name, t in optimizer.state[p].items() if name != "step")
    assert held == pytest.approx(p.numel() * (8 * 0.25 + 1 / 8), abs=16)


def test_one_call_a_step(monkeypatch):
    calls = []
    step = _ops.step_subset_
    monkeypatch.setattr(_ops, "step_subset_", lambda name, *a, **o: (calls.append(name), step(name, *a, **o)))
    params = make_params(shapes=LARGE * 5)
    with _direct.disabled():  # a repeated step calls nothing of Python's
        train(sparse(params), params, 10, Gradients())
    assert calls == ["spam_subset"] * 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_round_trip_in_the_middle_of_training(dtype):
    """Bit for bit, over a draw, with mixed groups."""

    def make(params, lr):
        return sparse([{"params": params[:3]}, {"params": params[3:], "density": 1.0}], lr=lr)

    params = make_params(dtype, LARGE + SHAPES)
    optimizer, gradients = make(params, 0.01), Gradients()
    train(optimizer, params, 5, gradients)
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    resumed = make(twins, 0.9)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    stream = copy.deepcopy(gradients)
    train(optimizer, params, 9, gradients)
    train(resumed, twins, 9, stream)
    assert_same_bits(snapshot(optimizer), snapshot(resumed))
    assert optimizer.state[params[0]]["exp_avg"].shape == (330,)
    assert optimizer.state[params[0]]["exp_avg"].dtype == torch.float32
    assert optimizer.state[params[-2]]["exp_avg"].shape == params[-2].shape


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies(duplicate):
    params = make_params(shapes=LARGE)
    optimizer, gradients = sparse(params), Gradients()
    train(optimizer, params, 5, gradients)
    twin = duplicate(optimizer)
    stream = copy.deepcopy(gradients)
    train(optimizer, params, 6, gradients)
    train(twin, [p for group in twin.param_groups for p in group["params"]], 6, stream)
    assert_same_bits(snapshot(optimizer), snapshot(twin))


def test_groups_step_as_they_would_alone():
    """A dense group and a sparse one in one optimizer; draws depend on a parameter's place among all."""
    together, first, second = (make_params(shapes=LARGE) for _ in range(3))
    both = sparse([{"params": together[:3]}, {"params": together[3:], "density": 1.0}])
    apart = sparse(first[:3]), sparse(second[3:], density=1.0)
    gradients = [Gradients() for _ in range(3)]
    for _ in range(12):
        for params, stream in zip((together, first, second), gradients, strict=True):
            stream.fill(params)
        for optimizer in (both, *apart):
            optimizer.step()
    for a, b in zip(together, [*first[:3], *second[3:]], strict=True):
        assert torch.equal(a, b)


def test_chosen_entries_step_as_with_dense_momentum():
    """Until the next draw, when entries that were not chosen before are still where they were."""
    dense, full = make_params(shapes=LARGE), make_params(shapes=LARGE)
    optimizers = sparse(dense, density=1.0), sparse(full, density=0.9)
    train(optimizers[0], dense, OPTIONS["reset_interval"] - 1, Gradients())
    train(optimizers[1], full, OPTIONS["reset_interval"] - 1, Gradients())
    assert "mask" not in optimizers[0].state[dense[0]]
    for a, b in zip(dense, full, strict=True):
        here = torch.ones(a.shape, dtype=torch.bool) if a.ndim < 2 else chosen(b, optimizers[1].state[b]["mask"])
        torch.testing.assert_close(a[here], b[here], rtol=1e-5, atol=1e-6)


def test_late_frozen_and_empty_parameters():
    params = make_params(shapes=[(8, 8), (8, 8), (0,)])
    optimizer = sparse(params[:2])
    params[0].grad = torch.ones(8, 8)
    optimizer.step()
    assert params[1] not in optimizer.state
    optimizer.add_param_group({"params": params[2:], "density": 0.5})
    train(optimizer, params, 3, Gradients())
    assert [int(optimizer.state[p]["step"]) for p in params] == [4, 3, 3]


def test_step_param():
    whole, single = make_params(shapes=LARGE), make_params(shapes=LARGE)
    first, second = sparse(whole), sparse(single)
    train(first, whole, 3, Gradients())
    gradients = Gradients()
    for _ in range(3):
        gradients.fill(single)
        for p in single:
            second.step_param(p)
    assert_same_bits(snapshot(first), snapshot(second))


def test_training_falls():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 5))
    x, y = torch.randn(200, 20), torch.randint(5, (200,))
    optimizer = optim.SPAM(model.parameters(), lr=0.01, density=0.25, reset_interval=25, warmup_steps=5)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", ["cpu", "emulated", "cuda"])
def test_backends_follow_one_path(name, request):
    from backends import BACKENDS

    backend = BACKENDS[name]
    if backend.missing():
        pytest.skip(backend.missing())
    expected = make_params(shapes=LARGE)
    train(sparse(expected), expected, 12, Gradients())
    params = [nn.Parameter(p.detach().to(backend.device)) for p in make_params(shapes=LARGE)]
    optimizer, gradients = sparse(params), Gradients()
    backend.op("spam_subset_")
    with _ops.namespace(backend.namespace):
        for _ in range(12):
            sources = make_params(shapes=LARGE)
            gradients.fill(sources)
            for p, source in zip(params, sources, strict=True):
                p.grad = source.grad.to(backend.device)
            optimizer.step()
    for got, value in zip(params, expected, strict=True):
        torch.testing.assert_close(got.cpu(), value, rtol=0, atol=12 * ROUNDINGS["spam"].total * UNIT[torch.float32] * 4)


BAD = [
    ({"density": -0.1}, ValueError, r"density must be in \[0, 1\], got -0.1"),
    ({"density": 1.5}, ValueError, r"density must be in \[0, 1\], got 1.5"),
    ({"density": "half"}, TypeError, "density must be a number"),
    ({"ema_decay": 0.9}, ValueError, "ema_decay must be None for states of a subset, got 0.9"),
    ({"compensation": "kahan"}, ValueError, "compensation must be None for states of a subset"),
    ({"rounding": "stochastic"}, ValueError, "rounding must be 'nearest' for states of a subset"),
    ({"state_format": "int8"}, ValueError, "state_format must be None or 'fp32' for states of a subset"),
    ({"orthograd": True}, ValueError, "orthograd must be False for states of a subset, got True"),
    ({"cautious": "rescaled"}, ValueError, "cautious must be False or True for states of a subset"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        sparse(make_params(), **options)


def test_double_precision_is_refused():
    params = [nn.Parameter(torch.ones(4, 4, dtype=torch.float64))]
    optimizer = sparse(params)
    params[0].grad = torch.ones_like(params[0])
    with pytest.raises(RuntimeError, match=r"spam_subset_: params\[0\] has dtype float64, expected float32"):
        optimizer.step()
    assert not optimizer.state
    assert torch.equal(params[0], torch.ones(4, 4, dtype=torch.float64))


def test_states_that_do_not_fit_are_refused():
    params = make_params(shapes=LARGE)
    optimizer = sparse(params)
    train(optimizer, params, 2, Gradients())
    saved = optimizer.state_dict()

    def load(change):
        broken = copy.deepcopy(saved)
        change(broken["state"][0])
        sparse(make_params(shapes=LARGE)).load_state_dict(broken)

    for change, message in (
        (lambda s: s.pop("mask"), "lacks the state 'mask'"),
        (lambda s: s.update(exp_avg=torch.zeros(3)), r"parameter 0 .* state 'exp_avg' has shape \(3,\)"),
        (lambda s: s.update(mask=s["mask"].long()), r"state 'mask' has shape \(42,\) and dtype torch.int64"),
        (lambda s: s.update(more=1), "unknown state 'more'"),
        (lambda s: s.update(mask=torch.full_like(s["mask"], -1)), "state 'mask' is no choice of 330 of 1320 elements"),
    ):
        with pytest.raises(ValueError, match=message):
            load(change)
    dense = optim.SPAM(make_params(shapes=LARGE))
    train(dense, dense.param_groups[0]["params"], 1, Gradients())
    broken = dense.state_dict()
    broken["param_groups"][0]["density"] = 0.25
    with pytest.raises(ValueError, match=r"lacks the state 'mask'.*density 1"):
        sparse(make_params(shapes=LARGE)).load_state_dict(broken)
