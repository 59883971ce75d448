"""Batches: the bits of a problem depend on nothing but the problem."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

from momentum import ot
from transport.problems import points, simplex

METHODS = ["sinkhorn", "sns", "auto"]


def batch(count, n, m):
    problems = [points(n, m, 1, seed) for seed in range(count)]
    return (torch.stack([getattr(p, name) for p in problems]) for name in ("cost", "a", "b"))


def same(whole, one, k):
    for name in ("value", "f", "g", "error", "status", "sweeps", "newton", "cg"):
        assert torch.equal(getattr(whole, name)[k], getattr(one, name)), name


@pytest.mark.parametrize("method", METHODS)
def test_batch_is_its_problems(method):
    cost, a, b = batch(5, 37, 50)
    reg = [0.5, 0.05, 0.005, 0.002, 0.01]
    whole = ot.solve(cost, a, b, reg, method=method)
    for k in (3, 0, 4):
        same(whole, ot.solve(cost[k], a[k], b[k], reg[k], method=method), k)
    assert whole.plan().shape == (5, 37, 50)
    torch.testing.assert_close(whole.plan()[2], ot.solve(cost[2], a[2], b[2], reg[2], method=method).plan())


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_bits(threads):
    problem = points(300, 400, 0.002, 1)
    one = problem.solve(method="sns")
    cost, a, b = batch(7, 20, 30)
    many = ot.solve(cost, a, b, 0.01)
    torch.set_num_threads(threads)
    try:
        again, many_again = problem.solve(method="sns"), ot.solve(cost, a, b, 0.01)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one.f, again.f)
    assert torch.equal(one.value, again.value)
    assert torch.equal(many.g, many_again.g)


def test_shared_cost_and_points():
    cost = points(12, 15, 1, 0).cost
    a = torch.stack([simplex(12, k) for k in range(4)])
    b = simplex(15, 9)
    shared = ot.solve(cost, a, b, 0.05)
    for k in range(4):
        same(shared, ot.solve(cost, a[k], b, 0.05), k)
    x, y = torch.rand(12, 3), torch.rand(15, 3)
    clouds = ot.solve(ot.Points(x, y), a, b, 0.05)
    same(clouds, ot.solve(ot.Points(x, y), a[2], b, 0.05), 2)
    stacked = ot.solve(ot.Points(torch.stack([x, x + 1]), torch.stack([y, y])), a[:2], b, 0.05)
    same(stacked, ot.solve(ot.Points(x + 1, y), a[1], b, 0.05), 1)


def test_masks_cut_a_ragged_batch():
    cost, _, _ = batch(3, 20, 25)
    sizes = [(20, 25), (7, 3), (1, 20)]
    rows = torch.stack([torch.arange(20) < n for n, _ in sizes])
    columns = torch.stack([torch.arange(25) < m for _, m in sizes])
    for k, (n, m) in enumerate(sizes):
        cost[k, n:] = float("nan")
        cost[k, :, m:] = float("inf")
    whole = ot.solve(cost, reg=0.02, tol=1e-12, row_mask=rows, column_mask=columns)
    assert whole.converged.all()
    for k, (n, m) in enumerate(sizes):
        one = ot.solve(cost[k, :n, :m], reg=0.02, tol=1e-12)
        torch.testing.assert_close(whole.value[k], one.value, rtol=1e-11, atol=0)
        torch.testing.assert_close(whole.plan()[k, :n, :m], one.plan(), rtol=1e-9, atol=1e-14)
        assert whole.plan()[k].sum().item() == pytest.approx(1, abs=1e-11)


def test_numpy():
    problem = points(9, 11, 0.05, 1)
    expected = problem.solve()
    cost = problem.cost.numpy()
    cost.flags.writeable = False
    result = ot.solve(cost, problem.a.numpy(), problem.b.numpy(), 0.05)
    assert isinstance(result.value, np.ndarray)
    assert np.array_equal(result.f, expected.f.numpy())
    assert np.array_equal(result.plan(), expected.plan().numpy())
    assert result.status == ot.Status.CONVERGED
    x = np.random.default_rng(0).random((9, 2))
    assert isinstance(ot.solve(ot.Points(x, x), reg=0.05).apply(x), np.ndarray)


@pytest.mark.parametrize("count", [0, 3])
def test_sparse_plans_for_numpy(count):
    sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed")
    problem = points(9, 11, 0.01, 1)
    cost = problem.cost.numpy() if count == 0 else np.stack([problem.cost.numpy()] * count)
    plans = ot.solve(cost, problem.a.numpy(), problem.b.numpy(), 0.01).plan_csr(1e-3)
    expected = problem.solve().plan_csr(1e-3).to_dense().numpy()
    for plan in plans if count else [plans]:
        assert isinstance(plan, sparse.csr_array)
        assert np.array_equal(plan.toarray(), expected)
        assert plan.nnz < 99


class FakeCuPy(types.ModuleType):
    """CuPy as far as `ot.solve` looks at it, over NumPy's memory: what goes in and out, without a GPU."""

    class ndarray:  # noqa: N801
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    ndarray.__module__ = "cupy"

    @staticmethod
    def from_dlpack(tensor):
        return FakeCuPy.ndarray(np.from_dlpack(tensor))


def test_cupy(monkeypatch):
    sparse, calls = types.ModuleType("cupyx.scipy.sparse"), []
    sparse.csr_matrix = lambda parts, shape: calls.append((parts, shape)) or "matrix"
    scipy = types.ModuleType("cupyx.scipy")
    scipy.sparse = sparse
    modules = {"cupy": FakeCuPy("cupy"), "cupyx": types.ModuleType("cupyx"), "cupyx.scipy": scipy, "cupyx.scipy.sparse": sparse}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    problem = points(9, 11, 0.05, 1)
    expected = problem.solve()
    result = ot.solve(*(FakeCuPy.ndarray(x.numpy()) for x in (problem.cost, problem.a, problem.b)), 0.05)
    for name in ("value", "f", "g", "error", "status", "newton"):
        out = getattr(result, name)
        assert isinstance(out, FakeCuPy.ndarray)
        assert np.array_equal(out.array, getattr(expected, name).numpy())
    assert np.array_equal(result.plan().array, expected.plan().numpy())
    assert np.array_equal(result.apply(FakeCuPy.ndarray(np.eye(11))).array, (expected.plan() @ torch.eye(11).double()).numpy())
    assert result.plan_csr(0.0) == "matrix"
    ((data, columns, begins), shape) = calls[0]
    assert shape == (9, 11)
    assert all(isinstance(part, FakeCuPy.ndarray) for part in (data, columns, begins))
    assert np.array_equal(data.array.reshape(9, 11), expected.plan().numpy())


def test_views_and_narrow_dtypes():
    problem = points(9, 11, 0.05, 1)
    assert torch.equal(
        ot.solve(problem.cost.mT, problem.b, problem.a, 0.05).f,
        ot.solve(problem.cost.mT.contiguous(), problem.b, problem.a, 0.05).f,
    )
    for dtype in (torch.float16, torch.bfloat16):
        narrow = problem.cost.to(dtype)
        assert torch.equal(ot.solve(narrow, reg=0.05).f, ot.solve(narrow.float(), reg=0.05).f)
