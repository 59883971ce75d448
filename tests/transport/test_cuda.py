"""The CUDA kernels, under the emulator or on a GPU, against the CPU kernels."""

from __future__ import annotations

import pytest
import torch

from momentum import _ops, ot
from ops.emulator import launches, multiprocessors, order
from transport.problems import assignment, points, simplex

METHODS = ["sinkhorn", "sns", "auto"]


@pytest.fixture(params=["emulated", "cuda"])
def device(request):
    """Yield the device for the tensors, with the ops of that backend behind `ot.solve`."""
    from backends import BACKENDS

    chosen = request.config.getoption("backend")
    if chosen and request.param not in chosen:
        pytest.skip("not asked for")
    backend = BACKENDS[request.param]
    if backend.missing():
        pytest.skip(backend.missing())
    backend.op("ot_solve")
    with _ops.namespace(backend.namespace):
        yield backend.device


def on_cpu(*arguments, **options):
    with _ops.namespace("momentum"):
        return ot.solve(*arguments, **options)


def there(device, *arguments, **options):
    moved = [x.to(device) if isinstance(x, torch.Tensor) else x for x in arguments]
    return ot.solve(*moved, **options)


def assert_agree(got, expected, tol, reg):
    """Two solutions with errors up to tol: near the optimum values differ by the square, potentials by the error itself."""
    assert got.status.tolist() == expected.status.tolist()
    torch.testing.assert_close(got.value.cpu(), expected.value, rtol=0, atol=10 * tol * reg)
    torch.testing.assert_close(got.plan().cpu(), expected.plan(), rtol=0, atol=4 * tol)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1), (31, 32), (64, 64), (70, 33), (20, 300), (300, 20)])
def test_double(device, method, shape):
    problem = points(*shape, 0.02, 1)
    arguments = (problem.cost, problem.a, problem.b, problem.reg)
    options = {"method": method, "tol": 1e-10}
    assert_agree(there(device, *arguments, **options), on_cpu(*arguments, **options), 1e-10, problem.reg)


@pytest.mark.parametrize("method", ["sns", "auto"])
def test_hard(device, method):
    for problem in (assignment(60, 1 / 1000, 1), points(90, 90, 1 / 3000, 1), points(64, 200, 1 / 1000, 2)):
        arguments = (problem.cost, problem.a, problem.b, problem.reg)
        got = there(device, *arguments, method=method, tol=1e-11)
        assert got.status == ot.Status.CONVERGED
        assert got.error <= 1e-11
        assert_agree(got, on_cpu(*arguments, tol=1e-11), 1e-11, problem.reg)


@pytest.mark.parametrize("reg", [0.02, 0.002, 0.0002])
def test_single_reaches_its_floor_at_any_temperature(device, reg):
    """Exponents are formed in double, so the error does not grow with 1 / reg as that of float potentials would."""
    problem = points(60, 60, reg, 1)
    cost = problem.cost.float()
    got = there(device, cost, problem.a, problem.b, reg, method="sns", tol=3e-7)
    assert got.status == ot.Status.CONVERGED
    plan = there(device, cost, problem.a, problem.b, reg, method="sns", tol=3e-7).plan().cpu()
    error = (plan.sum(1) - problem.a).abs().sum() + (plan.sum(0) - problem.b).abs().sum()
    assert error <= 6e-7
    torch.testing.assert_close(got.value.cpu(), on_cpu(cost, problem.a, problem.b, reg).value, rtol=0, atol=1e-6 * reg)


def test_single_says_when_it_can_do_no_more(device):
    problem = points(40, 40, 0.01, 1)
    got = there(device, problem.cost.float(), problem.a, problem.b, 0.01, tol=1e-13)
    assert got.status == ot.Status.PRECISION_FLOOR
    assert got.error < 2e-6


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points(device, metric, dtype):
    x, y = torch.rand(40, 3, dtype=dtype), torch.rand(50, 3, dtype=dtype)
    got = ot.solve(ot.Points(x.to(device), y.to(device), metric), reg=0.02, tol=1e-6)
    assert_agree(got, on_cpu(ot.Points(x, y, metric), reg=0.02, tol=1e-6), 1e-6, 0.02)


def test_batch_is_its_problems_in_one_launch(device):
    problems = [points(24, 31, 1, seed) for seed in range(9)]
    cost, a, b = (torch.stack([getattr(p, name) for p in problems]).to(device) for name in ("cost", "a", "b"))
    reg = [0.5, 0.1, 0.05, 0.02, 0.01, 0.005, 0.3, 0.2, 0.15]
    with launches() as counted:
        whole = ot.solve(cost, a, b, reg)
    assert device != "cpu" or counted == [1]
    for k in (0, 4, 8):
        one = ot.solve(cost[k], a[k], b[k], reg[k])
        for name in ("value", "f", "g", "error", "status", "sweeps", "newton", "cg"):
            assert torch.equal(getattr(whole, name)[k], getattr(one, name)), name
    shared = ot.solve(cost[0], a, b, 0.05)
    assert torch.equal(shared.f[3], ot.solve(cost[0], a[3], b[3], 0.05).f)


@pytest.mark.parametrize("schedule", [("reverse", 0), ("permuted", 1), ("permuted", 7)])
def test_schedules_do_not_change_bits(device, schedule):
    if device != "cpu":
        pytest.skip("the emulator's alone")
    problem = points(50, 70, 0.004, 1)
    plain = problem.solve(method="sns")
    batch = torch.stack([problem.cost] * 5)
    with order(*schedule), multiprocessors(2):
        other = problem.solve(method="sns")
        several = ot.solve(batch, problem.a, problem.b, problem.reg, method="sns")
    assert torch.equal(plain.f, other.f)
    assert torch.equal(plain.g, several.g[4])
    assert torch.equal(plain.value, several.value[2])


def test_full_lists_raise_the_threshold(device):
    """At a high temperature every entry counts, and a line has room for 128: more is dropped, and the steps still ascend."""
    problem = points(200, 200, 0.2, 1)
    got = there(device, problem.cost, problem.a, problem.b, 0.2, method="sns", tol=1e-11)
    assert got.status == ot.Status.CONVERGED
    assert_agree(got, on_cpu(problem.cost, problem.a, problem.b, 0.2, tol=1e-11), 1e-11, 0.2)


def test_statuses(device):
    inf, nan = float("inf"), float("nan")
    cost = torch.stack([points(8, 9, 1, seed).cost for seed in range(6)])
    a, b = simplex(8, 1).repeat(6, 1), simplex(9, 2).repeat(6, 1)
    cost[0, 3] = inf
    cost[1, :, 2] = inf
    cost[2, 1, 1] = nan
    a[3, 0] = -1
    a[4, 2], b[4, 3] = 0, 0
    cost[4, 2], cost[4, :, 3] = nan, -inf  # without mass, never looked at
    a[4], b[4] = a[4] / a[4].sum(), b[4] / b[4].sum()
    cost[5, 0, 0] = inf
    got = there(device, cost, a, b, 0.05)
    assert got.status.tolist() == [3, 3, 4, 4, 0, 0]
    assert got.f.isfinite().all()
    expected = on_cpu(cost, a, b, 0.05)
    assert got.status.tolist() == expected.status.tolist()
    torch.testing.assert_close(got.plan()[4:].cpu(), expected.plan()[4:], rtol=0, atol=4e-9)


def test_gradients_reach_the_device(device):
    x = torch.rand(12, 2, device=device, requires_grad=True)
    y = torch.rand(10, 2, device=device)
    ot.solve(ot.Points(x, y), reg=0.1).value.backward()
    expected = x.detach().cpu().requires_grad_()
    on_cpu(ot.Points(expected, y.cpu()), reg=0.1).value.backward()
    torch.testing.assert_close(x.grad.cpu(), expected.grad, rtol=1e-4, atol=1e-6)


LARGE = {
    "square": lambda: points(515, 513, 0.01, 1),
    "wide": lambda: points(240, 1100, 0.005, 1),
    "high": lambda: points(1100, 240, 0.005, 1),
    "assignment": lambda: assignment(520, 1 / 1000, 1),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_problems_take_the_whole_device(device, name):
    problem = LARGE[name]()
    arguments = (problem.cost, problem.a, problem.b, problem.reg)
    got = there(device, *arguments, method="sns", tol=1e-7)
    assert got.newton > 0
    assert_agree(got, on_cpu(*arguments, method="sns", tol=1e-7), 1e-7, problem.reg)


def test_conjugate_gradients_take_the_whole_device(device):
    """Three launches a step, over blocks of 32 lines: as many as were needed, and a share that found nothing to do."""
    if device != "cpu":
        pytest.skip("the emulator's alone")
    problem = LARGE["wide"]()
    with launches() as counted:
        result = problem.solve(method="sns", tol=1e-7)
    steps = int(result.newton + result.rejected)
    others = 20 * (steps + int(result.sweeps) + 5)
    assert steps > 0
    assert 3 * int(result.cg) < counted[0] < 3 * (1.25 * int(result.cg) + 16 * steps + 96) + others


def test_too_few_steps_of_conjugate_gradients_are_made_up_for(device):
    """More than the first Newton step launches: its direction is cut short, the next ones get more."""
    problem = assignment(520, 1e-4, 2)
    arguments = (problem.cost, problem.a, problem.b, problem.reg)
    got = there(device, *arguments, method="sns", tol=1e-3)
    assert got.status == ot.Status.CONVERGED
    assert got.cg > 96
    assert_agree(got, on_cpu(*arguments, method="sns", tol=1e-3), 1e-3, problem.reg)


def test_large_in_single_precision_and_of_points(device):
    problem = points(520, 520, 0.05, 1)
    cost = problem.cost.float()
    got = there(device, cost, problem.a, problem.b, 0.05, tol=1e-6)
    assert_agree(got, on_cpu(cost, problem.a, problem.b, 0.05, tol=1e-6), 1e-6, 0.05)
    x, y = torch.rand(520, 2), torch.rand(510, 2)
    got = ot.solve(ot.Points(x.to(device), y.to(device)), reg=0.2, tol=1e-6)
    assert_agree(got, on_cpu(ot.Points(x, y), reg=0.2, tol=1e-6), 1e-6, 0.2)


def test_large_edge_cases(device):
    """Zero marginals over garbage, a forbidden block, sums that underflow from the start; a batch one after the other."""
    good = points(600, 450, 0.002, 1)
    a, b = good.a.clone(), good.b.clone()
    a[::3], b[::4] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    cost = torch.stack([good.cost] * 3)
    cost[0, ::3] = float("nan")
    cost[0, :, ::4] = float("inf")
    cost[0, 1:100, 1:200] = float("inf")
    cost[1, 1] = float("inf")
    cost[2, 1, 1] = float("nan")
    got = there(device, cost, a, b, 0.01, method="sinkhorn", tol=1e-4)
    assert got.status.tolist() == [0, 3, 4]
    expected = on_cpu(cost[0], a, b, 0.01, method="sinkhorn", tol=1e-4)
    torch.testing.assert_close(got.f[0].cpu(), expected.f, rtol=0, atol=1e-12)
    assert got.f.isfinite().all()
    cold = there(device, good.cost * 1000, good.a, good.b, 0.02, method="sinkhorn", max_sweeps=3)
    reference = on_cpu(good.cost * 1000, good.a, good.b, 0.02, method="sinkhorn", max_sweeps=3)
    torch.testing.assert_close(cold.f.cpu(), reference.f, rtol=1e-10, atol=1e-9)


def test_schedules_do_not_change_bits_of_large_problems(device):
    if device != "cpu":
        pytest.skip("the emulator's alone")
    problem = LARGE["wide"]()
    options = {"method": "sns", "tol": 1e-7}
    plain = problem.solve(**options)
    with order("permuted", 3), multiprocessors(3):
        other = problem.solve(**options)
    assert plain.newton > 0
    assert torch.equal(plain.f, other.f)
    assert torch.equal(plain.value, other.value)
