"""QZO: noise, moves and steps against the float64 reference; nothing drifts; states resume; what is refused."""

from __future__ import annotations

import doctest
import hashlib
import math
import re

import pytest
import torch

from momentum import _ops, reference, zeroth_order
from momentum.zeroth_order import QZO
from ops import emulator
from ops.cases import EDGES
from tolerances import NORMAL, UNIT, assert_stored, bit_equal

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SEED, STEP = 2**62 + 12345, 7
# SHA-256 of the bits of 2^20 float32 numbers of SEED and STEP, wherever they are drawn.
DIGEST = "3078cafa16a3308549d809e099ca12e3d832c91388e48a79d8aba05cf0a97d35"


@pytest.fixture(autouse=True)
def chosen(request):
    if "backend" not in request.fixturenames:
        yield
        return
    backend = request.getfixturevalue("backend")
    backend.op("zo_update_")  # loads the kernels
    with _ops.namespace(backend.namespace):
        yield


def make(device="cpu", offset=0):
    generator = torch.Generator().manual_seed(0)

    def one(numel, dtype):
        return (torch.rand(numel + offset, generator=generator) + 0.5).to(device, dtype)[offset:]

    params = [one(numel, dtype) for numel in (*EDGES, 20_001) for dtype in DTYPES]
    return [*params, one(24, torch.float32).view(2, 3, 4).permute(2, 0, 1), one(1, torch.float32)[0]]


def noise_of(params):
    """Return the noise in the order of memory, as drawn."""
    return [reference.normal(SEED, i, STEP, p.numel()) for i, p in enumerate(params)]


def in_memory(tensor):
    """Return the elements in the order of memory."""
    return tensor.as_strided((tensor.numel(),), (1,)).cpu()


def drawn(device, numel, dtype=torch.float32, offset=0, seed=SEED, step=STEP):
    """Return the noise itself, on the CPU."""
    z = torch.zeros(numel + offset, dtype=dtype, device=device)[offset:]
    _ops.call("zo_perturb_", [z], [torch.empty_like(z)], [], size=1.0, save=True, seed=seed, step=step)
    return z.cpu()


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_noise(backend, offset):
    """Near the reference; the same bits on every backend and processor, at any alignment and in every dtype."""
    z = drawn(backend.device, 2**20, offset=offset)
    exact = reference.normal(SEED, 0, STEP, 2**20)
    assert ((z.double() - exact).abs() <= NORMAL * UNIT[torch.float32] * exact.abs() + 1e-15).all()  # pi / 2 is none in float64
    assert hashlib.sha256(z.numpy().tobytes()).hexdigest() == DIGEST
    for dtype in DTYPES:
        assert bit_equal(drawn(backend.device, 777, dtype, offset), z[:777].to(dtype))


def perturbed(start, change):
    """Return the bound on the error of start + change: the noise, and one rounding of the sum."""
    return UNIT[torch.float32] * ((NORMAL + 1) * change.abs() + start.abs())


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_perturbation(backend, offset):
    params = make(backend.device, offset)
    old = [p.clone() for p in params]
    originals = [torch.empty_like(p) for p in params]
    backend.op("zo_perturb_")(params, originals, [], size=0.25, save=True, seed=SEED, step=STEP)
    for p, q, p0, z in zip(params, originals, old, noise_of(params), strict=True):
        assert bit_equal(q, p0)
        start = in_memory(p0).double()
        bound = perturbed(start, 0.25 * z)
        assert_stored(in_memory(p), start + 0.25 * z, bound, lambda x, d=p.dtype: x.to(d), f"{p.dtype} {tuple(p.shape)}")
    backend.op("zo_perturb_")(params, originals, [], size=-0.25, save=False, seed=SEED, step=STEP)
    for p, q, z in zip(params, originals, noise_of(params), strict=True):
        start = in_memory(q).double()
        bound = perturbed(start, 0.25 * z)
        assert_stored(in_memory(p), start - 0.25 * z, bound, lambda x, d=p.dtype: x.to(d), f"{p.dtype} {tuple(p.shape)}")


def test_distribution():
    """The distribution function within 3.3 / sqrt(n) of the normal one (Kolmogorov: 1e-9), as many beyond 4 as there should be,
    none beyond what 24 bits can give."""
    n = 2**22
    z = drawn("cpu", n, seed=1).double().sort().values
    assert (torch.special.ndtr(z) - (torch.arange(n) + 0.5) / n).abs().max() < 3.3 / n**0.5
    for beyond in (3, 4, 4.5):
        expected = n * math.erfc(beyond / 2**0.5)
        assert abs(int((z.abs() > beyond).sum()) - expected) < 5 * expected**0.5
    assert z.abs().max() <= (48 * math.log(2)) ** 0.5


def test_noise_is_normal():
    """Mean, variance and kurtosis of 200,000 numbers within five of their standard errors; no two tensors and steps agree."""
    n = 200_000
    numbers = []
    for step in (0, 1):
        zeros = [torch.zeros(n), torch.zeros(n)]
        torch.ops.momentum.zo_perturb_(zeros, [torch.empty(n), torch.empty(n)], [], size=1.0, save=True, seed=3, step=step)
        numbers += zeros
    for z in numbers:
        z = z.double()
        assert abs(z.mean()) < 5 / n**0.5
        assert abs(z.square().mean() - 1) < 5 * (2 / n) ** 0.5
        assert abs(z.pow(4).mean() - 3) < 5 * (96 / n) ** 0.5
        assert abs((z[0::2] * z[1::2]).mean()) < 5 / (n / 2) ** 0.5
    for i in range(4):
        for j in range(i):
            assert abs((numbers[i] * numbers[j]).double().mean()) < 5 / n**0.5


@pytest.mark.parametrize("losses", [(2.0, 1.0), (0.3, 0.7), (5e3, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("floor", [0.9, -math.inf])
@pytest.mark.parametrize("wide", [True, False])
def test_update(backend, losses, floor, wide):
    """With noise passed in: slope and its factors, product and sum; on the GPU and the CPU alike."""
    params = make(backend.device)
    generator = torch.Generator().manual_seed(1)
    noise = [torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator)) for p in params]
    originals = [p.clone() for p in params]
    moved = [torch.zeros_like(p) for p in params]
    given = torch.tensor(losses, dtype=torch.float64 if wide else torch.float32, device=backend.device)
    backend.op("zo_update_")(moved, originals, noise, given, size=0.01, lr=0.02, clip=100.0, floor=floor)
    for p, q, z in zip(moved, originals, noise, strict=True):
        exact = reference.zeroth_order(q.double(), z.double(), tuple(given.double().tolist()), 0.01, 0.02, 100.0, floor).cpu()
        unit = UNIT[torch.float64 if p.dtype == torch.float64 else torch.float32]
        bound = 4 * unit * (q.double().abs() + 2 * z.double().abs()).cpu()
        assert_stored(p, exact, bound, lambda x, d=p.dtype: x.to(d), f"{p.dtype} {tuple(p.shape)}")
        assert (p >= torch.tensor(floor).to(p.dtype)).all()


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_step_is_the_references(backend, dtype, drawn):
    """Two groups; both losses are seen at the right places."""
    generator = torch.Generator().manual_seed(2)
    params = [torch.rand(n, generator=generator).add(1).to(backend.device, dtype) for n in (5, 33, 8)]
    start = [p.clone() for p in params]
    noise = [reference.normal(11, i, 0, p.numel()) for i, p in enumerate(params)]
    given = [] if drawn else [z.to(p.device, p.dtype) for z, p in zip(noise, params, strict=True)]
    used = noise if drawn else [z.double().cpu() for z in given]
    optimizer = QZO([{"params": params[:2]}, {"params": params[2:], "lr": 0.5}], lr=0.25, perturbation=0.125, seed=11)
    seen = []

    def closure():
        seen.append([p.clone() for p in params])
        return sum(p.double().sum() for p in params) ** 2 / 100

    first = optimizer.step(closure, noise=given)
    unit = UNIT[torch.float64 if dtype == torch.float64 and not drawn else torch.float32]
    for side, places in zip((1, -1), seen, strict=True):
        for p, p0, z in zip(places, start, used, strict=True):
            bound = unit * (p0.double().abs().cpu() + (NORMAL + 1) * 0.125 * z.abs())
            assert_stored(p, p0.double().cpu() + side * 0.125 * z, bound, lambda x: x.to(dtype), "perturbed")
    losses = [float(sum(p.double().sum() for p in places) ** 2 / 100) for places in seen]
    assert float(first) == losses[0]
    for p, p0, z, lr in zip(params, start, used, (0.25, 0.25, 0.5), strict=True):
        exact = reference.zeroth_order(p0.double().cpu(), z, tuple(losses), 0.125, lr, 100.0, 1e-7)
        slope = abs(losses[0] - losses[1]) / 0.25
        bound = unit * (p0.double().abs().cpu() + (NORMAL + 5) * lr * slope * z.abs())
        assert_stored(p, exact, bound, lambda x: x.to(dtype), "stepped")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nothing_drifts(dtype):
    """Without a slope the parameters keep their bits for ever; adding and subtracting as the official code does moves them."""
    param = (torch.rand(4096) * 0.01 + 0.001).to(dtype)
    start, added = param.clone(), param.clone()
    optimizer = QZO([param], perturbation=1e-3, floor=None)
    for step in range(20):
        optimizer.step(lambda: 1.0)
        z = reference.normal(0, 0, step, 4096).to(dtype)
        added += 1e-3 * z
        added -= 2e-3 * z
        added += 1e-3 * z
    assert bit_equal(param, start)
    assert not bit_equal(added, start)


def test_clipping_floor_and_nan(backend):
    param = torch.full((1000,), 0.5, device=backend.device)
    values = iter([1e9, 0.0])
    QZO([param], lr=1e-3, perturbation=0.01, clip=2.0).step(lambda: next(values))
    assert (param - 0.5).abs().max() < 6 * 2e-3  # |z| < 6
    values = iter([1e9, 0.0])
    QZO([param], lr=1.0, clip=math.inf, floor=1e-7).step(lambda: next(values))
    assert param.min() == torch.tensor(1e-7)
    QZO([param]).step(lambda: math.nan)
    assert param.isnan().all()


def test_a_closure_that_raises_changes_nothing():
    param = torch.rand(100)
    start = param.clone()
    calls = []

    def closure():
        calls.append(not bit_equal(param, start))
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return 1.0

    optimizer = QZO([param])
    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(closure)
    assert calls == [True, True]
    assert bit_equal(param, start)
    assert optimizer.param_groups[0]["step"] == 0


def test_a_resumed_run_is_the_same():
    def quadratic(param):
        return lambda: ((param.float() - 1) ** 2).sum()

    param = torch.full((50,), 2.0, dtype=torch.bfloat16)
    optimizer = QZO([param], lr=1e-3, perturbation=0.01, seed=4)
    for _ in range(3):
        optimizer.step(quadratic(param))
    twin = param.clone()
    resumed = QZO([twin], lr=1.0)
    resumed.load_state_dict(optimizer.state_dict())
    for _ in range(3):
        optimizer.step(quadratic(param))
        resumed.step(quadratic(twin))
    assert bit_equal(param, twin)


def test_scales_of_a_quantised_model_learn():
    """A linear layer of 4-bit codes whose scales are wrong by a factor: the loss falls to a tenth, the codes stay."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-8, 8, (8, 16), generator=generator, dtype=torch.int8)
    true = torch.rand(8, 1, generator=generator) + 0.5
    inputs = torch.randn(256, 16, generator=generator)
    targets = inputs @ (codes * true).t()
    scales = torch.nn.Parameter(torch.ones(8, 1))
    optimizer = QZO([scales], lr=2e-4, perturbation=1e-3)
    losses = [float(optimizer.step(lambda: (inputs @ (codes * scales).t() - targets).square().mean())) for _ in range(300)]
    assert losses[-1] < losses[0] / 10


def test_launches():
    params = [torch.ones(64) for _ in range(200)]
    emulator.library()
    with _ops.namespace("momentum_emulated"):
        optimizer = QZO(params)
        optimizer.step(lambda: 1.0)
        with emulator.launches() as counted:
            optimizer.step(lambda: 1.0)
        with emulator.waits() as waits:
            optimizer.step(lambda: 1.0)
    assert counted == [3]
    assert waits == [0]


@pytest.mark.parametrize("order", ["reverse", "permuted"])
def test_orders_of_threads(order):
    emulator.library()
    with _ops.namespace("momentum_emulated"):
        plain, other = make(), make()
        QZO(plain).step(lambda: plain[0].numel() + 1.0)
        with emulator.order(order, 3):
            QZO(other).step(lambda: other[0].numel() + 1.0)
    assert all(map(bit_equal, plain, other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be a finite number >= 0, got -1.0"),
        ({"lr": math.nan}, "lr must be"),
        ({"perturbation": 0.0}, "perturbation must be a finite number > 0, got 0.0"),
        ({"clip": 0.0}, "clip must be a number > 0, or infinity, got 0.0"),
        ({"clip": math.nan}, "clip must be"),
        ({"floor": math.inf}, "floor must be None or a finite number, got inf"),
        ({"seed": -1}, r"seed must be an integer in \[0, 2\*\*63\), got -1"),
        ({"seed": 0.5}, "seed must be"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        QZO([torch.ones(3)], **options)


ONES = torch.ones(12)
GOOD = {"params": [ONES[:4]], "originals": [ONES[4:8]], "noise": [ONES[8:]], "losses": torch.ones(2)}
REFUSED = {
    "originals_length": ({"originals": []}, "originals has length 0, expected 1"),
    "originals_dtype": (
        {"originals": [ONES[4:8].half()]},
        r"originals\[0\] has dtype float16, expected float32 like params\[0\]",
    ),
    "originals_memory": ({"originals": [ONES[3:7]]}, r"params\[0\] and originals\[0\] share memory"),
    "noise_length": ({"noise": [ONES[8:], ONES[8:]]}, "noise has length 2, expected 1"),
    "noise_shape": ({"noise": [ONES[8:10]]}, r"noise\[0\] has shape \[2\], expected \[4\]"),
    "noise_dtype": ({"noise": [ONES[8:].double()]}, r"noise\[0\] has dtype float64"),
    "losses_shape": ({"losses": torch.ones(3)}, r"losses has shape \[3\], expected 2"),
    "losses_dtype": ({"losses": torch.ones(2).half()}, "losses has dtype float16, expected float32"),
    "size": ({"size": 0.0}, "size is 0"),
    "clip": ({"clip": math.nan}, "clip is nan, expected a number > 0"),
    "floor": ({"floor": math.nan}, "floor is nan"),
    "lr": ({"lr": -1.0}, "lr is -1"),
    "step": ({"step": -1}, "step is -1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(backend, case):
    changes, pattern = REFUSED[case]
    call = {**GOOD, "size": 0.1, "lr": 0.1, "clip": 1.0, "floor": 0.0, **changes}
    tensors = [call.pop(name) for name in GOOD]
    with pytest.raises(RuntimeError) as caught:
        backend.op("zo_update_")(*tensors, **call)
    assert re.search(f"{backend.namespace}::zo_update_: {pattern}", str(caught.value)), str(caught.value)
    assert (ONES == 1).all()


def test_refused_noise():
    with pytest.raises(ValueError, match="noise has length 1, expected 2"):
        QZO([torch.ones(3), torch.ones(2)]).step(lambda: 1.0, noise=[torch.ones(3)])


def test_opcheck():
    params, originals = [torch.ones(5), torch.ones(3, 2)], [torch.zeros(5), torch.zeros(3, 2)]
    moves = {"size": 0.1, "save": True, "seed": 3}
    torch.library.opcheck(torch.ops.momentum.zo_perturb_.default, (params, originals, []), moves)
    update = {"size": 0.1, "lr": 0.1, "clip": 1.0, "floor": 0.0}
    torch.library.opcheck(torch.ops.momentum.zo_update_.default, (params, originals, [], torch.ones(2)), update)


def test_examples_in_docstrings():
    result = doctest.testmod(zeroth_order)
    assert result.failed == 0
    assert result.attempted
