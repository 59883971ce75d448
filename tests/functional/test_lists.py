"""extrapolate_ and reset_state_: all dtypes and edges at once, launches, tracers, and what is refused."""

from __future__ import annotations

import math
import re

import pytest
import torch

from momentum import _ops, reference
from momentum.functional import extrapolate_, reset_state_
from ops import emulator
from ops.cases import EDGES
from tolerances import UNIT, assert_stored, bit_equal

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@pytest.fixture(autouse=True)
def chosen(request):
    if "backend" not in request.fixturenames:
        yield
        return
    backend = request.getfixturevalue("backend")
    backend.op("extrapolate_")  # loads the kernels
    with _ops.namespace(backend.namespace):
        yield


def make(device="cpu", offset=0, seed=0):
    """Return params and previous of all edge sizes and pairs of dtypes, ``offset`` elements off their alignment."""
    generator = torch.Generator().manual_seed(seed)

    def one(numel, dtype):
        memory = torch.randn(numel + offset, generator=generator, dtype=torch.float64)
        return memory.to(device, dtype)[offset:]

    params, previous = [], []
    for i, numel in enumerate((*EDGES, 20_000)):
        for dtype in DTYPES:
            other = torch.float64 if dtype == torch.float64 else DTYPES[i % 3]
            params.append(one(numel, dtype))
            previous.append(one(numel, other))
    params.append(torch.randn(6, 8, 2, generator=generator).to(device).permute(2, 0, 1))
    previous.append(torch.randn(6, 8, 2, generator=generator).to(device).permute(2, 0, 1))
    params.append(torch.tensor(3.0, device=device))
    previous.append(torch.tensor(2.0, device=device))
    return params, previous


@pytest.mark.parametrize("roll", [True, False])
@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("alpha", [0.9, -0.25, 0.0])
def test_extrapolation(backend, alpha, offset, roll):
    """Conversion of alpha, difference, product, sum: four roundings, then that of the dtype."""
    params, previous = make(backend.device, offset)
    old = [p.clone() for p in params], [q.clone() for q in previous]
    extrapolate_(params, previous, alpha, roll=roll)
    for p, q, p0, q0 in zip(params, previous, *old, strict=True):
        exact = reference.extrapolate(p0.double(), q0.double(), alpha).cpu()
        magnitude = p0.double().abs() + abs(alpha) * (p0.double().abs() + q0.double().abs())
        unit = UNIT[torch.float64 if p.dtype == torch.float64 else torch.float32]
        assert_stored(p, exact, 4 * unit * magnitude.cpu(), lambda x, d=p.dtype: x.to(d), f"{p.dtype} {tuple(p.shape)}")
        assert bit_equal(q, p0.to(q.dtype) if roll else q0)
        assert alpha != 0 or bit_equal(p, p0)


def test_two_rounds_are_nesterovs():
    """With the proximal point as gradient step this is Nesterov's method: compared with its textbook form."""
    curvature = torch.tensor([1.0, 0.05], dtype=torch.float64)
    theta = torch.tensor([1.0, 1.0], dtype=torch.float64)
    previous, y, x = theta.clone(), theta.clone(), theta.clone()
    for _ in range(30):
        theta -= 0.9 * curvature * theta
        extrapolate_([theta], [previous], 0.7)
        x_new = y - 0.9 * curvature * y
        y, x = x_new + 0.7 * (x_new - x), x_new
    torch.testing.assert_close(theta, y, rtol=1e-13, atol=0)


def test_not_finite(backend):
    params = torch.tensor([math.nan, math.inf, 1.0, 1.0, math.inf], device=backend.device)
    previous = torch.tensor([1.0, 1.0, math.nan, math.inf, math.inf], device=backend.device)
    extrapolate_([params], [previous], 0.5)
    assert params.isnan().tolist() == [True, False, True, False, True]
    assert params[1] == math.inf
    assert params[3] == -math.inf


def make_states(device):
    dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn)
    states = []
    for dtype in dtypes:
        for numel in (0, 1, 3, 15, 16, 17, 255, 4097, 70_000):
            for offset in (0, 1, 5):
                memory = torch.full((numel + offset + 40,), 1, dtype=torch.uint8).to(dtype).to(device)
                states.append((memory, memory[offset : offset + numel]))
    return states


def test_reset(backend):
    """Exactly the elements become zero, of any dtype, at any address; nothing beside them."""
    made = make_states(backend.device)
    steps = [torch.tensor(4.0, device=backend.device) for _ in range(3)]
    reset_state_([state for _, state in made], steps)
    for memory, state in made:
        assert (state.float() == 0).all()
        offset = state.storage_offset()
        assert (memory[:offset].float() == 1).all()
        assert (memory[offset + state.numel() :].float() == 1).all()
    assert all(step == 0 for step in steps)


def test_reset_may_keep_the_step(backend):
    state, step = torch.ones(5, device=backend.device), torch.tensor(4.0, device=backend.device)
    reset_state_([state], [step], keep_step=True)
    assert (state == 0).all()
    assert step == 4
    reset_state_([], [step])
    assert step == 0
    reset_state_([])
    extrapolate_([], [], 0.5)


@pytest.mark.parametrize("order", ["reverse", "permuted"])
def test_orders_of_threads(order):
    emulator.library()
    with _ops.namespace("momentum_emulated"):
        plain, other = make(), make()
        extrapolate_(*plain, 0.5)
        with emulator.order(order, 3):
            extrapolate_(*other, 0.5)
        for side in (0, 1):
            assert all(map(bit_equal, plain[side], other[side]))


@pytest.mark.parametrize("count", [1, 300, 4000])
def test_launches(count):
    """One launch; a list too long for the parameters of one goes to the device first, by launches of its own, once."""
    tensors = [torch.ones(3) for _ in range(count)], [torch.zeros(3) for _ in range(count)]
    emulator.library()
    with _ops.namespace("momentum_emulated"):
        extrapolate_(*tensors, 1.0)
        reset_state_(tensors[1])
        with emulator.launches() as counted:
            extrapolate_(*tensors, 1.0)
        with emulator.launches() as cleared:
            reset_state_(tensors[1])
    assert counted == cleared == [1]
    assert all((p == 4).all() for p in tensors[0])
    assert all((q == 0).all() for q in tensors[1])


def test_threads():
    plain, other = make(), make()
    extrapolate_(*plain, 0.5)
    torch.set_num_threads(3)
    try:
        extrapolate_(*other, 0.5)
        reset_state_(plain[0])
    finally:
        torch.set_num_threads(1)
    assert all(map(bit_equal, plain[1], other[1]))
    assert all((p == 0).all() for p in plain[0])


ONES = torch.ones(12)
REFUSED = {
    "length": ([ONES[:4]], [], "previous has length 0, expected 1"),
    "shape": ([ONES[:4]], [ONES[5:8]], r"previous\[0\] has shape \[3\], expected \[4\]"),
    "strides": ([ONES.view(3, 4)], [torch.ones(4, 3).t()], r"previous\[0\] has strides"),
    "gaps": ([ONES[::2]], [ONES[1::2]], r"params\[0\] has shape \[6\] and strides \[2\]"),
    "int": ([ONES[:4].long()], [ONES[4:8]], r"params\[0\] has dtype int64"),
    "float64": ([ONES[:4]], [ONES[4:8].double()], r"previous\[0\] has dtype float64.*float64 params only"),
    "memory": ([ONES[:4]], [ONES[3:7]], r"params\[0\] and previous\[0\] share memory"),
    "twice": ([ONES[:4], ONES[:4]], [ONES[4:8], ONES[8:12]], r"params\[\d\] and params\[\d\] share memory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(backend, case):
    params, previous, pattern = REFUSED[case]
    with pytest.raises(RuntimeError) as caught:
        backend.op("extrapolate_")(params, previous, alpha=0.5)
    assert re.search(f"{backend.namespace}::extrapolate_: {pattern}", str(caught.value)), str(caught.value)
    assert (ONES == 1).all()


def test_refused_numbers_and_states(backend):
    for alpha in (math.nan, math.inf):
        with pytest.raises(RuntimeError, match="alpha is"):
            extrapolate_([ONES[:4].clone()], [ONES[4:8].clone()], alpha)
    with pytest.raises(RuntimeError, match=r"states\[1\] has shape \[6\] and strides \[2\]"):
        backend.op("reset_state_")([ONES[:1], ONES[::2]], [])
    with pytest.raises(RuntimeError, match=r"states\[0\] and steps\[0\] share memory"):
        backend.op("reset_state_")([ONES[:4]], [ONES[3]])
    assert (ONES == 1).all()


def test_autograd_is_respected():
    param, previous = torch.ones(3, requires_grad=True), torch.zeros(3)
    with pytest.raises(RuntimeError, match="momentum::extrapolate_ writes in place"):
        extrapolate_([param], [previous], 0.5)
    with pytest.raises(RuntimeError, match="momentum::reset_state_ writes in place"):
        reset_state_([param])
    loss = (param * param).sum()
    with torch.no_grad():
        extrapolate_([param], [previous], 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_opcheck():
    params, previous = [torch.ones(5), torch.ones(3, 2)], [torch.zeros(5), torch.zeros(3, 2)]
    torch.library.opcheck(torch.ops.momentum.extrapolate_.default, (params, previous), {"alpha": 0.5})
    torch.library.opcheck(torch.ops.momentum.reset_state_.default, (params, previous), {"keep_step": True})


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile(compiler):
    def both(params, previous):
        torch.ops.momentum.extrapolate_(params, previous, alpha=0.5)
        torch.ops.momentum.reset_state_(previous, [])
        return params[0] * 2

    eager, traced = make(), make()
    expected = both(*eager)
    torch._dynamo.reset()
    assert bit_equal(torch.compile(both, backend=compiler, fullgraph=True)(*traced), expected)
    assert all(map(bit_equal, eager[0], traced[0]))
    assert all((q == 0).all() for q in traced[1])
