"""The Newton path: its fall-back, its monotonicity, and the published variant beside it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest
import torch

from momentum import ot, reference
from transport.problems import assignment, marginal_error, points


def run(problem, **options):
    """Call the op for one problem; also the arguments that the public function does not have."""
    n, m = problem.cost.shape
    f, g = torch.zeros(1, n, dtype=torch.float64), torch.zeros(1, m, dtype=torch.float64)
    numbers, counts = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 5, dtype=torch.int32)
    empty = torch.empty(0)
    options = {"reg": [problem.reg], "method": 1, "tol": 1e-9, **options}
    torch.ops.momentum.ot_solve(
        problem.cost[None], empty, empty, problem.a[None], problem.b[None], f, g, numbers, counts, **options
    )
    return f[0], g[0], numbers[0], counts[0]


def objective(problem, f, g):
    x, y = f / problem.reg + problem.a.log(), g / problem.reg + problem.b.log()
    return reference.transport_objective(problem.cost, problem.a, problem.b, x, y, problem.reg)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_sweeps_finish_where_newton_fails(limit):
    """With every Newton step after the first `limit` rejected, sweeps alone reach the tolerance."""
    problem = points(40, 50, 0.004, 1)
    f, _, numbers, (status, _, newton, rejected, _) = run(problem, newton_limit=limit, max_sweeps=100_000)
    assert status == ot.Status.CONVERGED
    assert newton == limit
    assert rejected > 0
    assert numbers[1] <= 1e-9
    expected = problem.solve(method="sns", tol=1e-12)
    torch.testing.assert_close(f, expected.f, rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: points(40, 50, 0.004, 1), lambda: assignment(60, 1 / 2000, 1)])
def test_objective_grows_with_every_read_of_the_cost(make):
    """At one temperature neither sweeps nor Newton steps lose anything but rounding; budgets cut the run at each."""
    problem = make()
    final = problem.solve(method="sns", tol=1e-12)
    values = []
    for budget in range(1, min(120, int(final.sweeps)) + 1):
        f, g, _, _ = run(problem, max_sweeps=budget, tol=1e-12)
        values.append(objective(problem, f, g).item())
    # The temperature is final where the plan's entropy is; before, the objective is that of another problem.
    last_stage = [v for v in values if v > values[-1] - 0.2]
    assert len(last_stage) >= 5
    assert all(b >= a - 1e-10 for a, b in itertools.pairwise(last_stage))


def test_long_directions_are_shortened():
    """Groups of rows that hang together by entries of 1e-12 make directions a million long; half of that is no help."""
    for seed in range(3):
        result = assignment(300, 1e-4, seed).solve(method="sns", tol=1e-11)
        assert result.status == ot.Status.CONVERGED
        assert result.rejected <= 5
        assert result.sweeps <= 400


def test_newton_takes_few_reads():
    """What the method is for: sweeps alone need a hundred times as many."""
    problem = assignment(300, 1 / 2000, 0)
    newton, sweeps = problem.solve(method="sns", tol=1e-9), problem.solve(method="sinkhorn", tol=1e-9, max_sweeps=5000)
    assert newton.status == ot.Status.CONVERGED
    assert newton.sweeps < 150
    assert sweeps.status == ot.Status.MAX_SWEEPS
    assert newton.newton >= 3


@pytest.mark.parametrize("eta", [1, 10, 50])
@pytest.mark.parametrize("make", [lambda reg: assignment(200, reg, 0), lambda reg: points(150, 180, reg, 1)])
def test_auto_is_sinkhorn_where_sweeps_win(make, eta):
    """To 1e-3 on easy problems: the same sweeps, to the bit, so never slower."""
    problem = make(1 / eta)
    auto, sinkhorn = problem.solve(tol=1e-3), problem.solve(tol=1e-3, method="sinkhorn")
    assert torch.equal(auto.f, sinkhorn.f)
    assert auto.sweeps == sinkhorn.sweeps
    assert auto.newton == auto.rejected == 0


def test_published_variant():
    problem = assignment(80, 1 / 100, 1)
    result = problem.solve(method="sns-paper", tol=1e-9)
    assert result.status == ot.Status.CONVERGED
    assert marginal_error(problem, result.plan()) <= 1.1e-9
    torch.testing.assert_close(result.plan(), problem.solve(tol=1e-11).plan(), rtol=0, atol=1e-9)
    torch.testing.assert_close(result.value, problem.solve(tol=1e-11).value, rtol=1e-8, atol=0)


def test_published_variant_stalls_on_points():
    """Why it is not the default: three entries per row do not carry a plan between clouds."""
    problem = points(100, 100, 1 / 1000, 1)
    assert problem.solve(method="sns-paper", tol=1e-9).status == ot.Status.MAX_SWEEPS
    assert problem.solve(method="sns", tol=1e-9).status == ot.Status.CONVERGED


SCRIPT = """
import torch
from transport.problems import points
result = points(61, 83, 0.004, 1).solve(method="sns", tol=1e-12)
print(result.status.item(), repr(result.value.item()), result.error.item() <= 1e-12)
"""


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_instruction_sets_agree(isa):
    environment = os.environ | {"MOMENTUM_CPU_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True, text=True).stdout
    status, value, converged = output.split()
    expected = points(61, 83, 0.004, 1).solve(method="sns", tol=1e-12).value.item()
    assert (status, converged) == ("0", "True")
    assert float(value) == pytest.approx(expected, rel=1e-12)
