"""The published table of Sinkhorn-Newton-Sparse beside ours.

Published: Tang et al., ICLR 2024 (arXiv 2401.12253), Table 1, on an Apple M1 Pro, as quoted in the literature; reg = 1 / 1200.
The costs are known to be a random assignment and two pairs of MNIST digits; which digits, how costs are scaled and when
"machine accuracy" counts as reached is not. Here the digits are scikit-learn's, enlarged, costs are at most 1, and a run
ends when the dual objective is within 1e-15 of its maximum. The L1 error of the marginals, about the root of that, is
not yet small then, and only by this measure do the published counts come out.

``published`` is the algorithm to the letter (``method="sns-paper"``) with the entries per row that come nearest to the count,
``sns`` the library's Newton method. Times are of one thread of this machine; those of the literal algorithm are of plain torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.ot.problems import Problem, assignment, digits
from momentum import ot
from momentum.ot.paper import Settings, sinkhorn_newton_sparse

GAP = 1e-15


@dataclass(frozen=True)
class Case:
    """One row of the table, as published and as it is run here."""

    name: str
    make: Callable[[], Problem]
    sinkhorn: tuple[int, float]  # iterations, seconds
    sns: tuple[int, int, float]  # Sinkhorn steps, Newton steps, seconds
    entries_per_row: int


CASES = (
    Case("random assignment, n=500", lambda: assignment(500, 1200), (56_199, 233.36), (20, 9, 0.34), 3),
    Case("digits, L2 squared", lambda: digits(2, 1200), (2_041, 18.84), (20, 33, 2.33), 15),
    Case("digits, L1", lambda: digits(1, 1200), (5_748, 45.75), (700, 77, 12.22), 28),
)


def _value(problem: Problem, **options: object) -> tuple[ot.Result, float, float]:
    start = time.perf_counter()
    result = ot.solve(problem.cost, problem.a, problem.b, problem.reg, grad="detach", **options)
    return result, result.value.item(), time.perf_counter() - start


def _dual(problem: Problem, x: Tensor, y: Tensor, plan_mass: Tensor) -> float:
    """The dual objective in units of the cost, of potentials over reg and relative to the counting measure."""
    a, b = problem.a, problem.b
    return problem.reg * (a @ (x - a.log()) + b @ (y - b.log()) + a.sum() - plan_mass).item()


def _sweeps_to_gap(problem: Problem, best: float, limit: int = 300_000, period: int = 50) -> int:
    """Count Sinkhorn iterations by products with the kernel; once per period it is made again, and the objective looked at."""
    a, b, cost = problem.a, problem.b, problem.cost / problem.reg
    x, y = torch.zeros_like(a), b.log()
    for done in range(0, limit, period):
        x = a.log() - (y - cost).logsumexp(1)
        y = b.log() - (x[:, None] - cost).logsumexp(0)
        kernel = (x[:, None] + y - cost).exp()
        if best - _dual(problem, x, y, kernel.sum()) <= GAP:
            return done + 1
        u, v = torch.ones_like(a), torch.ones_like(b)
        for _ in range(period - 1):
            u = a / (kernel @ v)
            v = b / (u @ kernel)
        x, y = x + u.log(), y + v.log()
    return limit


def _sinkhorn(problem: Problem, best: float) -> dict[str, object]:
    count = _sweeps_to_gap(problem, best)
    result, value, seconds = _value(problem, method="sinkhorn", tol=0.0, max_sweeps=count)
    work = {"sweeps": int(result.sweeps), "newton": 0, "seconds": seconds}
    return {"reached": best - value <= 2 * GAP, "gap": best - value, "error": result.error.item(), **work}


def _newton(problem: Problem, best: float) -> dict[str, object]:
    """The loosest tolerance, in steps of a half, that brings the gap."""
    tol = 1e-6
    while True:
        result, value, seconds = _value(problem, method="sns", tol=tol)
        if best - value <= GAP or result.status != ot.Status.CONVERGED:
            work = {"sweeps": int(result.sweeps), "newton": int(result.newton), "seconds": seconds}
            return {"reached": best - value <= GAP, "gap": best - value, "error": result.error.item(), **work}
        tol /= 2


def _published(problem: Problem, case: Case, best: float) -> dict[str, object]:
    settings = Settings(sinkhorn_steps=case.sns[0], newton_steps=100, entries_per_row=case.entries_per_row)
    gap, start = float("inf"), time.perf_counter()
    for state in sinkhorn_newton_sparse(problem.cost / problem.reg, problem.a, problem.b, settings):
        gap = best - _dual(problem, state.x, state.y, state.plan_mass)
        if gap <= GAP:
            break
    seconds = time.perf_counter() - start
    steps = {"sweeps": case.sns[0], "newton": state.newton, "seconds": seconds}
    return {"reached": gap <= GAP, "gap": gap, "error": state.error, **steps}


def paper_rows() -> list[dict]:
    """Run and print the table."""
    rows = []
    for case in CASES:
        try:
            problem = case.make()
        except ModuleNotFoundError as missing:
            print(f"{case.name}: left out, {missing}")
            continue
        _, best, _ = _value(problem, method="sns", tol=1e-13)
        ours = {"sinkhorn": _sinkhorn(problem, best), "sns": _newton(problem, best)}
        row = {"case": case.name, "paper": {"sinkhorn": case.sinkhorn, "sns": case.sns}}
        rows.append(row | ours | {"published": _published(problem, case, best)})
        print(f"{case.name}, reg 1/1200, to a dual gap of {GAP:.0e}")
        sinkhorn, (steps, newton, seconds) = case.sinkhorn, case.sns
        print(
            f"  as published       Sinkhorn {sinkhorn[0]:6} in {sinkhorn[1]:6.2f} s, SNS {steps} + {newton} in {seconds:.2f} s"
        )
        for name in ("sinkhorn", "published", "sns"):
            run = rows[-1][name]
            missed = "" if run["reached"] else f"  not reached: gap {run['gap']:.0e}"
            print(
                f"  {name:18} {run['sweeps']:6} sweeps + {run['newton']:3} Newton in {run['seconds']:6.2f} s, "
                f"marginal error {run['error']:.0e}{missed}",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    paper_rows()
