"""The same plans as POT and regot where those converge, and the same assignments as SciPy."""

from __future__ import annotations

import pytest
import torch

from momentum import ot
from transport.problems import Problem, assignment, marginal_error, points, simplex

CASES = {
    "points": lambda: points(60, 60, 0.02, 1),
    "wide": lambda: points(40, 90, 0.05, 2),
    "high": lambda: points(90, 40, 0.05, 3),
    "assignment": lambda: assignment(60, 0.01, 1),
    "small marginals": lambda: Problem(points(50, 50, 1, 4).cost, simplex(50, 5, 1), simplex(50, 6, 1), 0.05),
}


def agree(problem: Problem, result: ot.Result, plan: torch.Tensor) -> None:
    """Plans with errors e and e' differ by about their sum over the smallest eigenvalue; here both are far below 1e-9."""
    reached = marginal_error(problem, plan)
    assert reached <= 1e-9
    assert result.status == ot.Status.CONVERGED
    torch.testing.assert_close(result.plan(), plan, rtol=0, atol=max(1e-12, 10 * reached))


@pytest.mark.parametrize("name", CASES)
class TestPot:
    @pytest.fixture(autouse=True)
    def pot(self):
        return pytest.importorskip("ot", reason="POT is not installed")

    @pytest.mark.parametrize("method", ["sinkhorn", "sns", "auto"])
    def test_plan_and_value(self, pot, name, method):
        """Both regularisers: KL against the product of the marginals, which is ours, and the entropy of the plan."""
        problem = CASES[name]()
        a, b, cost = (x.numpy() for x in (problem.a, problem.b, problem.cost))
        result = problem.solve(method=method, tol=1e-12, max_sweeps=100_000)
        options = {"reg": problem.reg, "tol": 1e-13, "max_iter": 50_000}
        theirs = pot.solve(cost, a, b, reg_type="KL", **options)
        agree(problem, result, torch.from_numpy(theirs.plan))
        assert result.value.item() == pytest.approx(theirs.value, rel=1e-9)
        assert result.cost().item() == pytest.approx(theirs.value_linear, rel=1e-9)
        shift = problem.reg * sum((x * x.log()).sum().item() for x in (problem.a, problem.b))
        entropic = pot.solve(cost, a, b, reg_type="entropy", **options)
        assert result.value.item() + shift == pytest.approx(entropic.value, rel=1e-9)

    def test_several_marginals_for_one_cost(self, pot, name):
        problem = CASES[name]()
        several = torch.stack([problem.b, problem.b.flip(0)])
        result = ot.solve(problem.cost, problem.a, several, problem.reg, tol=1e-12)
        for k in range(2):
            plan = pot.bregman.sinkhorn_log(
                problem.a.numpy(), several[k].numpy(), problem.cost.numpy(), problem.reg, numItermax=50_000, stopThr=1e-13
            )
            torch.testing.assert_close(result.plan()[k], torch.from_numpy(plan), rtol=0, atol=1e-10)

    def test_the_cost_nears_that_without_regularisation(self, pot, name):
        problem = CASES[name]()
        exact = pot.emd2(problem.a.numpy(), problem.b.numpy(), problem.cost.numpy())
        cost = ot.solve(problem.cost, problem.a, problem.b, 1e-4, tol=1e-10).cost().item()
        # The optimum of <C, P> + reg KL is at most that of the exact plan, whose KL is at most the entropy of a marginal.
        entropy = -(problem.a * problem.a.log()).sum().item()
        assert exact - 1e-12 <= cost <= exact + 1e-4 * entropy


SPARSE = {f"hard assignment {seed}": lambda seed=seed: assignment(300, 1 / 1200, seed) for seed in range(3)}


@pytest.mark.parametrize("name", CASES | SPARSE)
def test_regot(name):
    regot = pytest.importorskip("regot", reason="regot is not installed")
    problem = (CASES | SPARSE)[name]()
    numbers = [x.numpy() for x in (problem.cost, problem.a, problem.b)]
    found = regot.sinkhorn_ssns(*numbers, problem.reg, tol=1e-12, max_iter=200)
    agree(problem, problem.solve(method="sns", tol=1e-12), torch.from_numpy(found.plan.copy()))


@pytest.mark.parametrize("n", [30, 200, 400])
def test_assignments(n):
    """At a low temperature every row's largest entry is its partner in the best assignment."""
    optimize = pytest.importorskip("scipy.optimize", reason="SciPy is not installed")
    problem = assignment(n, 2e-5, n)
    rows, columns = optimize.linear_sum_assignment(problem.cost.numpy())
    result = problem.solve(tol=1e-9)
    assert result.status == ot.Status.CONVERGED
    assert result.plan().argmax(1).tolist() == columns.tolist()
    best = problem.cost[rows, columns].mean()
    assert abs(result.cost() - best) <= 2e-5 * torch.tensor(float(n)).log()
