"""Statuses, zero marginals, forbidden entries, and what is refused."""

from __future__ import annotations

import pytest
import torch

import momentum
from momentum import ot
from transport.problems import assignment, points, simplex

METHODS = ["sinkhorn", "sns", "auto"]
INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("method", METHODS)
def test_max_sweeps(method):
    result = points(60, 60, 1e-3, 1).solve(method=method, tol=1e-10, max_sweeps=12)
    assert result.status == ot.Status.MAX_SWEEPS
    assert result.error > 1e-10
    assert result.sweeps <= 12 + 10  # a Newton step that has begun is finished
    assert result.value.isfinite()


@pytest.mark.parametrize("method", METHODS)
def test_precision_floor(method):
    """A tolerance of 0 cannot be met at a low temperature; what was reached is reported."""
    result = assignment(30, 0.02, 1).solve(method=method, tol=0, max_sweeps=200_000)
    assert result.status == ot.Status.PRECISION_FLOOR
    assert 0 < result.error < 1e-10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["row", "column"])
def test_infeasible(method, where):
    problem = points(8, 9, 0.05, 1)
    if where == "row":
        problem.cost[3] = INF
    else:
        problem.cost[:, 4] = INF
    result = problem.solve(method=method)
    assert result.status == ot.Status.INFEASIBLE
    assert result.value == INF
    assert result.f.isfinite().all()


@pytest.mark.parametrize("change", ["nan cost", "-inf cost", "nan a", "negative b", "inf a", "masses"])
def test_invalid(change):
    problem = points(8, 9, 0.05, 1)
    match change:
        case "nan cost":
            problem.cost[2, 3] = NAN
        case "-inf cost":
            problem.cost[2, 3] = -INF
        case "nan a":
            problem.a[1] = NAN
        case "inf a":
            problem.a[1] = INF
        case "negative b":
            problem.b[1] *= -1
        case "masses":
            problem.b.mul_(1.001)
    good = points(8, 9, 0.05, 2)
    result = ot.solve(
        torch.stack([problem.cost, good.cost]), torch.stack([problem.a, good.a]), torch.stack([problem.b, good.b]), 0.05
    )
    assert result.status.tolist() == [ot.Status.INVALID, ot.Status.CONVERGED]
    assert result.value.isnan().tolist() == [True, False]
    assert torch.equal(result.f[1], good.solve().f)
    assert result.f.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_zero_marginals_are_as_if_absent(method):
    problem = points(20, 30, 0.02, 1)
    rows, columns = torch.arange(20) % 3 != 1, torch.arange(30) % 4 != 2
    a, b = problem.a * rows, problem.b * columns
    a, b = a / a.sum(), b / b.sum()
    problem.cost[~rows] = NAN  # never looked at
    problem.cost[:, ~columns] = -INF
    result = ot.solve(problem.cost, a, b, problem.reg, method=method, tol=1e-12)
    small = ot.solve(problem.cost[rows][:, columns], a[rows], b[columns], problem.reg, method=method, tol=1e-12)
    assert result.status == ot.Status.CONVERGED
    plan = result.plan()
    torch.testing.assert_close(plan[rows][:, columns], small.plan(), rtol=1e-9, atol=1e-14)
    assert plan[~rows].abs().sum() == 0
    assert plan[:, ~columns].abs().sum() == 0
    assert (result.f[~rows] == 0).all()
    torch.testing.assert_close(result.cost(), small.cost(), rtol=1e-10, atol=0)


def test_no_mass_at_all():
    result = ot.solve(torch.rand(3, 4), torch.zeros(3), torch.zeros(4), 0.1)
    assert (result.status, result.value, result.plan().abs().sum()) == (ot.Status.CONVERGED, 0, 0)


@pytest.mark.parametrize("method", METHODS)
def test_forbidden_entries_carry_nothing(method):
    problem = points(20, 20, 0.02, 1)
    forbidden = torch.rand(20, 20, generator=torch.Generator().manual_seed(0)) < 0.4
    forbidden.fill_diagonal_(False)
    problem.cost[forbidden] = INF
    result = ot.solve(problem.cost, reg=0.02, method=method, tol=1e-11, max_sweeps=100_000)
    assert result.status == ot.Status.CONVERGED
    assert result.plan()[forbidden].abs().sum() == 0
    assert result.cost().isfinite()
    large = problem.cost.nan_to_num(posinf=50.0)
    torch.testing.assert_close(result.plan(), ot.solve(large, reg=0.02, tol=1e-11).plan(), rtol=1e-8, atol=1e-12)


REFUSED = {
    "reg is missing": lambda c: ot.solve(c),
    r"reg is 0, expected": lambda c: ot.solve(c, reg=0),
    r"reg is nan": lambda c: ot.solve(c, reg=NAN),
    "method is 'newton', expected one of sinkhorn, sns, auto, sns-paper": lambda c: ot.solve(c, reg=1, method="newton"),
    "grad is 'unroll', expected one of": lambda c: ot.solve(c, reg=1, grad="unroll"),
    r"tol is -1": lambda c: ot.solve(c, reg=1, tol=-1),
    r"max_sweeps is 0": lambda c: ot.solve(c, reg=1, max_sweeps=0),
    r"cost has 1 dimensions, expected 2, or 3": lambda c: ot.solve(c[0], reg=1),
    r"a has shape \[4\], expected \[3\]": lambda c: ot.solve(c, torch.ones(4), reg=1),
    r"b has shape \[2, 5\], expected \[4\]": lambda c: ot.solve(c, None, torch.ones(2, 5), reg=1),
    r"the batches of .* differ": lambda c: ot.solve(c, torch.ones(2, 3), torch.ones(3, 4), reg=1),
    r"0 rows": lambda c: ot.solve(torch.zeros(0, 4), reg=1),
    r"mask of a has dtype torch.float32": lambda c: ot.solve(c, reg=1, row_mask=torch.ones(3)),
    r"metric is 'cosine', expected one of": lambda c: ot.solve(ot.Points(c, c, "cosine"), reg=1),
    r"expected \[B, n, d\] and \[B, m, d\]": lambda c: ot.solve(ot.Points(c, c.mT), reg=1),
    r"x has dtype torch.float32, y has torch.float64": lambda c: ot.solve(ot.Points(c, c.double()), reg=1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message):
    with pytest.raises(ValueError, match=r"momentum\.ot\.solve: .*" + message):
        REFUSED[message](torch.rand(3, 4))


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"cost has dtype torch\.int64, expected floating-point numbers"):
        ot.solve(torch.ones(3, 4, dtype=torch.int64), reg=1)


class TestOp:
    """The op itself checks what the function above it cannot get wrong."""

    def arguments(self, count=2, n=3, m=4):
        a, b = simplex(n, 1).expand(count, n).contiguous(), simplex(m, 2).expand(count, m).contiguous()
        empty = torch.empty(0)
        arguments = {"cost": torch.rand(count, n, m), "x": empty, "y": empty, "a": a, "b": b}
        arguments |= {"f": torch.zeros_like(a), "g": torch.zeros_like(b)}
        numbers, counts = torch.zeros(count, 2, dtype=torch.float64), torch.zeros(count, 5, dtype=torch.int32)
        return arguments | {"numbers": numbers, "counts": counts}

    @pytest.mark.parametrize(
        ("change", "options", "message"),
        [
            ({"cost": torch.rand(2, 4, 3)}, {}, r"cost has shape \[2, 4, 3\], expected contiguous \[2 or 1, 3, 4\]"),
            ({"cost": torch.rand(2, 3, 4).half()}, {}, r"cost has dtype float16, expected float32 or float64"),
            ({"a": torch.rand(2, 3)}, {}, r"a has dtype float32, expected float64"),
            ({"f": torch.zeros(5).double()}, {}, r"f has shape \[5\], expected 6 contiguous elements"),
            ({"counts": torch.zeros(2, 5)}, {}, r"counts has dtype float32 and shape \[2, 5\], expected 10 contiguous int32"),
            ({}, {"reg": [1.0]}, r"reg has length 1, expected 2 \(one per problem\)"),
            ({}, {"reg": [1.0, -1.0]}, r"reg\[1\] is -1, expected a finite number > 0"),
            ({}, {"method": 3}, r"method is 3, expected a number in \[0, 2\]"),
            ({}, {"cost_kind": 1}, r"x has shape \[0\], expected contiguous \[2 or 1, 3, 0\]"),
        ],
    )
    def test_refused(self, backend, change, options, message):
        arguments = self.arguments() | change
        arguments = {name: tensor.to(backend.device) for name, tensor in arguments.items()}
        with pytest.raises(RuntimeError, match="ot_solve: " + message):
            backend.op("ot_solve")(*arguments.values(), **{"reg": [1.0, 1.0], **options})
        assert (arguments["numbers"] == 0).all()

    def test_overlap_is_refused(self, backend):
        arguments = {name: tensor.to(backend.device) for name, tensor in self.arguments().items()}
        arguments["f"] = arguments["a"]
        with pytest.raises(RuntimeError, match=r"ot_solve: .*(a|f).* (a|f)"):
            backend.op("ot_solve")(*arguments.values(), reg=[1.0, 1.0])

    def test_opcheck(self):
        torch.library.opcheck(torch.ops.momentum.ot_solve.default, tuple(self.arguments().values()), {"reg": [1.0, 1.0]})

    def test_no_problems(self, backend):
        arguments = {name: tensor.to(backend.device) for name, tensor in self.arguments(count=0).items()}
        backend.op("ot_solve")(*arguments.values(), reg=[])


def test_module_is_public():
    assert momentum.ot.solve is ot.solve
