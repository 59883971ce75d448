"""SAM-GS against its float64 reference: both branches, all dtypes and sizes; odd norms, states, launches, what is refused."""

from __future__ import annotations

import doctest
import math
import re

import pytest
import torch
from torch import nn

import momentum.samgs
from momentum import _ops
from momentum.gradients import SAMGS
from momentum.reference import SamgsState, samgs
from ops import emulator
from ops.cases import EDGES
from tolerances import TOTAL, UNIT, assert_stored, bit_equal

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SIZES = (*EDGES, 20_001)
# An average: its coefficients, two products, their sum (5) a step, relative to the average of magnitudes. A norm is the root
# of a total (TOTAL / 2), their quotient has twice that, and S moves by as much; b goes as 1 / sqrt(v), and v as (1 - S)^2. A
# task's part besides: weights and beta as arithmetic type, |m|, products (8), and the sum over tasks.
STEPS = 3


@pytest.fixture(autouse=True)
def chosen(request):
    if "backend" not in request.fixturenames:
        yield
        return
    backend = request.getfixturevalue("backend")
    backend.op("samgs_")  # loads the kernels
    with _ops.namespace(backend.namespace):
        yield


def make(tasks, dtypes=DTYPES, device="cpu", offset=0, seed=0, spread=1.0):
    """Return for each task gradients of all edge sizes, ``offset`` elements off their alignment."""
    generator = torch.Generator().manual_seed(seed)

    def one(numel, dtype, size):
        return (size * torch.randn(numel + offset, generator=generator)).to(device, dtype)[offset:]

    given = [(numel, dtype) for numel in SIZES for dtype in dtypes]
    return [[one(numel, dtype, spread**task) for numel, dtype in given] for task in range(tasks)]


def joined(grads):
    return torch.stack([torch.cat([g.double().flatten().cpu() for g in members]) for members in grads])


@pytest.mark.parametrize("tasks", [2, 3, 8, 9])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("offset", [0, 1])
def test_parity(backend, tasks, gamma, offset):
    """Over three steps; the bound is relative to the sum of the magnitudes of the tasks' parts."""
    surgery = SAMGS(gamma=gamma)
    state = SamgsState(torch.zeros_like(joined(make(tasks))), torch.tensor(0.0).double(), 0)
    sizes, nearest = torch.zeros_like(state.exp_avgs), 1.0
    for step in range(STEPS):
        grads = make(tasks, device=backend.device, offset=offset, seed=step, spread=1.5)
        outs = surgery.combine(grads)
        flat = joined(grads)
        combined, similarity, state = samgs(flat, state, 0.9, 0.99, gamma)
        torch.testing.assert_close(surgery.similarity.cpu(), similarity, rtol=0, atol=TOTAL * UNIT[torch.float32])
        sizes = 0.9 * sizes + 0.1 * flat.abs()
        nearest = min(nearest, float(1 - similarity))
        if gamma == 0:
            factor = flat.abs() / (1 - 0.9**state.step) / (state.v / (1 - 0.99**state.step)).sqrt()
            errors = (TOTAL / nearest + 8 + tasks) * state.exp_avgs.abs() + 5 * state.step * sizes
        else:
            norms = flat.norm(dim=1, keepdim=True)
            factor, errors = flat.abs() * norms.mean() / norms, torch.tensor(TOTAL + 8.0 + tasks)
        bound = UNIT[torch.float32] * tasks * (factor * errors).sum(0)
        place = 0
        for out, grad in zip(outs, grads[0], strict=True):
            n = grad.numel()
            assert out.dtype == grad.dtype
            exact, allowed = combined[place : place + n], bound[place : place + n]
            assert_stored(out, exact, allowed, lambda x, d=out.dtype: x.to(d), f"{out.dtype} {n} step {step}")
            place += n


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("tasks", [2, 8, 9, 64])
def test_float64(backend, gamma, tasks):
    """Of float64 alone everything is exact to float64, 64 tasks included."""
    surgery = SAMGS(gamma=gamma, beta1=0.5, beta2=0.0)
    shapes = [(5, 7), (300,), ()]
    generator = torch.Generator().manual_seed(3)
    state = None
    for _ in range(2):
        grads = [
            [torch.randn(s, generator=generator, dtype=torch.float64).to(backend.device) for s in shapes] for _ in range(tasks)
        ]
        flat = joined(grads)
        state = state or SamgsState(torch.zeros_like(flat), torch.tensor(0.0).double(), 0)
        combined, similarity, state = samgs(flat, state, 0.5, 0.0, gamma)
        outs = torch.cat([out.cpu().flatten() for out in surgery.combine(grads)])
        torch.testing.assert_close(outs, combined, rtol=1e-9, atol=1e-9 * combined.abs().max().item())
        torch.testing.assert_close(surgery.similarity.cpu(), similarity, rtol=1e-13, atol=0)


def test_equalised_gradients_have_the_mean_norm():
    """Closed form: of orthogonal gradients the result's norm is T^1.5 times the mean."""
    grads = [[torch.eye(4)[i] * 10.0**i] for i in range(4)]
    (out,) = SAMGS(gamma=2.0).combine(grads)
    torch.testing.assert_close(out, torch.full((4,), 4 * 1111 / 4.0))


def test_zero_norms(backend):
    zero, one = torch.zeros(3, device=backend.device), torch.ones(3, device=backend.device)
    surgery = SAMGS(gamma=0.5)
    (out,) = surgery.combine([[zero], [one]])
    assert surgery.similarity == 0
    torch.testing.assert_close(out, one)  # mean norm is half, two tasks
    (out,) = surgery.combine([[zero], [zero]])
    assert surgery.similarity == 1
    assert (out == 0).all()


def test_nan_shows(backend):
    bad = torch.tensor([math.nan, 1.0], device=backend.device)
    (out,) = SAMGS().combine([[bad], [torch.ones(2, device=backend.device)]])
    assert out.isnan().all()


def test_layouts_are_kept(backend):
    grads = [[torch.randn(4, 6, device=backend.device).t()] for _ in range(2)]
    (out,) = SAMGS(gamma=2.0).combine(grads)
    assert out.stride() == grads[0][0].stride()
    (plain,) = SAMGS(gamma=2.0).combine([[g.contiguous() for g in members] for members in grads])
    torch.testing.assert_close(out.contiguous(), plain, rtol=2 * TOTAL * UNIT[torch.float32], atol=1e-6)


@pytest.mark.parametrize("order", ["reverse", "permuted"])
def test_orders_of_threads(order):
    emulator.library()
    with _ops.namespace("momentum_emulated"):
        for tasks in (3, 12):
            plain = SAMGS().combine(make(tasks))
            with emulator.order(order, 3):
                assert all(map(bit_equal, SAMGS().combine(make(tasks)), plain))


@pytest.mark.parametrize(("tasks", "count"), [(3, 100), (3, 400), (20, 10), (20, 100)])
def test_launches(tasks, count):
    """Norms, decision, map; long tables are on the device after the first call."""
    grads = [[torch.ones(5) for _ in range(count)] for _ in range(tasks)]
    emulator.library()
    with _ops.namespace("momentum_emulated"):
        surgery = SAMGS()
        outs = surgery.combine(grads)
        kept = outs  # so that the next call's results lie elsewhere
        with emulator.launches() as counted:
            outs = surgery.combine(grads)
    # New results mean a new table where it is too long for the parameters: 32 KB of it in a launch.
    entry = 8 * (2 * (8 if tasks <= 8 else 64) + 8)
    inline = count * entry < 32_000
    assert (
        counted[0] == 3 if inline else 3 < counted[0] <= 3 + math.ceil(count * entry / 30_000) + math.ceil(tasks * count / 400)
    )
    assert all(bit_equal(out, outs[0]) for out in outs)
    assert len(kept) == count


def test_threads():
    plain = SAMGS().combine(make(3))
    torch.set_num_threads(3)
    try:
        assert all(map(bit_equal, SAMGS().combine(make(3)), plain))
    finally:
        torch.set_num_threads(1)


def test_state_resumes():
    surgery = SAMGS()
    for seed in range(2):
        surgery.combine(make(2, seed=seed))
    resumed = SAMGS()
    resumed.load_state_dict(surgery.state_dict())
    assert all(map(bit_equal, surgery.combine(make(2, seed=9)), resumed.combine(make(2, seed=9))))
    empty = SAMGS()
    empty.load_state_dict(SAMGS().state_dict())
    assert all(map(bit_equal, empty.combine(make(2)), SAMGS().combine(make(2))))


def test_backward():
    """Heads get the plain gradients, the trunk the combined ones, on top of what was there."""
    torch.manual_seed(0)
    trunk, heads = nn.Linear(5, 4), [nn.Linear(4, 1) for _ in range(3)]
    unused = nn.Parameter(torch.ones(2))
    inputs = torch.randn(7, 5)
    shared = [*trunk.parameters(), unused]

    def losses():
        return [(10**i * head(trunk(inputs).tanh())).square().mean() for i, head in enumerate(heads)]

    grads = [[*torch.autograd.grad(loss, list(trunk.parameters())), torch.zeros(2)] for loss in losses()]
    plain = torch.autograd.grad(sum(losses()), [head.weight for head in heads])
    expected = SAMGS().combine(grads)
    trunk.weight.grad = torch.ones_like(trunk.weight)
    SAMGS().backward(losses(), shared)
    torch.testing.assert_close(trunk.weight.grad, 1 + expected[0])
    torch.testing.assert_close(trunk.bias.grad, expected[1])
    assert (unused.grad == 0).all()
    for head, grad in zip(heads, plain, strict=True):
        torch.testing.assert_close(head.weight.grad, grad)


def test_unequal_tasks_learn_together():
    """Two regressions, one scaled by 1000, on shared weights: equalised, the small one is solved too in a few steps of SGD."""
    torch.manual_seed(0)
    inputs = torch.randn(64, 8)
    goals = [torch.randn(8, 1), torch.randn(8, 1)]
    masks = [torch.arange(8)[:, None] < 4, torch.arange(8)[:, None] >= 4]

    def train(combine):
        w = nn.Parameter(torch.zeros(8, 1))
        for _ in range(200):
            losses = [
                scale * (inputs @ ((w - goal) * mask)).square().mean()
                for scale, goal, mask in zip((1000.0, 1.0), goals, masks, strict=True)
            ]
            w.grad = None
            combine(losses, w)
            with torch.no_grad():
                w -= 2e-4 * w.grad
        return losses[1].item()

    summed = train(lambda losses, w: sum(losses).backward())
    surgery = SAMGS(gamma=2.0)
    assert train(lambda losses, w: surgery.backward(losses, [w])) < summed / 5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beta1": 1.0}, "beta1 must be"), ({"beta2": -0.1}, "beta2 must be"), ({"gamma": math.nan}, "gamma must be a finite")],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        SAMGS(**options)


def test_refused_gradients():
    one = torch.ones(3)
    with pytest.raises(ValueError, match="grads has 1 tasks, expected 2 to 64"):
        SAMGS().combine([[one]])
    with pytest.raises(ValueError, match="task 1 has 2 gradients, task 0 1"):
        SAMGS().combine([[one], [one, one]])
    with pytest.raises(RuntimeError, match=r"grads\[1\]\[0\] is torch.float16.*expected torch.float32"):
        SAMGS().combine([[one], [one.half()]])
    with pytest.raises(RuntimeError, match=r"grads\[1\]\[0\].*\(4,\).*expected torch.float32, \(3,\)"):
        SAMGS().combine([[one], [torch.ones(4)]])
    surgery = SAMGS()
    surgery.combine([[one], [one]])
    before = [t.clone() for t in surgery.state_dict()["exp_avgs"]], surgery.state_dict()["state"].clone()
    with pytest.raises(RuntimeError, match=r"its average is torch.float32, \(3,\)"):
        surgery.combine([[torch.ones(4)], [torch.ones(4)]])
    with pytest.raises(ValueError, match="grads has 3 gradients in all, 2 were given before"):
        surgery.combine([[one], [one], [one]])
    assert all(map(bit_equal, surgery.state_dict()["exp_avgs"], before[0]))
    assert bit_equal(surgery.state_dict()["state"], before[1])


WEIGHTS = {"squares": torch.ones(4).double(), "state": torch.zeros(2).double(), "weights": torch.zeros(4).double()}
REFUSED_WEIGHTS = {
    "tasks": ({"tasks": 1}, r"tasks is 1, expected a number in \[2, 64\]"),
    "shape": ({"tasks": 3}, r"squares has shape \[4\], expected as many numbers for each of 3 tasks"),
    "dtype": ({"squares": torch.ones(4)}, "squares has dtype float32, expected float64"),
    "state": ({"state": torch.zeros(3).double()}, r"state has shape \[3\], expected 2"),
    "weights": ({"weights": torch.zeros(3).double()}, r"weights has shape \[3\], expected 4"),
    "memory": ({"squares": WEIGHTS["weights"]}, "squares and weights share memory|weights and squares share memory"),
    "beta1": ({"beta1": 1.0}, "beta1 is 1"),
    "gamma": ({"gamma": -1.0}, "gamma is -1"),
}
ONES = torch.ones(20)
COMBINED = {
    "outs": [ONES[:3]],
    "exp_avgs": [ONES[3:6], ONES[6:9]],
    "grads": [ONES[9:12], ONES[12:15]],
    "weights": torch.zeros(4).double(),
}
REFUSED_COMBINED = {
    "lengths": ({"grads": [ONES[9:12]]}, "grads has length 1, expected 2"),
    "averages": ({"exp_avgs": [ONES[3:6]]}, "exp_avgs has length 1, expected 2"),
    "average_dtype": ({"exp_avgs": [ONES[3:6].half(), ONES[6:9]]}, r"exp_avgs\[0\] has dtype float16, expected float32"),
    "grad_dtype": (
        {"grads": [ONES[9:12], ONES[12:15].half()]},
        r"grads\[1\] has dtype float16, expected float32 like grads\[0\]",
    ),
    "grad_shape": ({"grads": [ONES[9:12], ONES[12:16]]}, r"grads\[1\] has shape \[4\].*expected \[3\]"),
    "memory": ({"outs": [ONES[9:12]]}, "share memory"),
    "gaps": ({"outs": [ONES[:6:2]]}, r"outs\[0\] has shape \[3\] and strides \[2\]"),
    "weights": ({"weights": torch.zeros(5).double()}, r"weights has shape \[5\], expected 4"),
}


@pytest.mark.parametrize(
    ("op", "good", "changes", "pattern"),
    [
        *(pytest.param("samgs_weights_", WEIGHTS, *case, id=f"weights-{name}") for name, case in REFUSED_WEIGHTS.items()),
        *(pytest.param("samgs_", COMBINED, *case, id=f"combine-{name}") for name, case in REFUSED_COMBINED.items()),
    ],
)
def test_refused(backend, op, good, changes, pattern):
    options = {"tasks": 2, "beta1": 0.9} | ({"beta2": 0.99, "gamma": 0.1} if op == "samgs_weights_" else {})
    call = {**good, **options, **changes}
    with pytest.raises(RuntimeError) as caught:
        backend.op(op)(*(call[name] for name in good), **{name: call[name] for name in options})
    assert re.search(f"{backend.namespace}::{op}: .*({pattern})", str(caught.value)), str(caught.value)
    assert (ONES == 1).all()
    assert (WEIGHTS["state"] == 0).all()


def test_opcheck():
    squares, state, weights = (torch.ones(n, dtype=torch.float64) for n in (4, 2, 4))
    decide = {"tasks": 2, "beta1": 0.9, "beta2": 0.99, "gamma": 0.1}
    torch.library.opcheck(torch.ops.momentum.samgs_weights_.default, (squares, state, weights), decide)
    lists = [torch.ones(3)], [torch.zeros(3), torch.zeros(3)], [torch.ones(3), torch.ones(3)]
    torch.library.opcheck(torch.ops.momentum.samgs_.default, (*lists, weights), {"tasks": 2, "beta1": 0.9})


def test_examples_in_docstrings():
    result = doctest.testmod(momentum.samgs)
    assert result.failed == 0
    assert result.attempted
