"""Solvers behind one function: a problem and a tolerance in, a plan and a count of iterations out.

Packages that are not installed are left out. Each gets the tolerance in the norm it stops by, such that the L1 error of the
marginals is about the one that was asked for; what it reached is measured on its plan.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.ot.problems import Problem
from momentum import ot


@dataclass
class Budget:
    """What the peers may spend: what they reach within is reported."""

    iterations: int = 500
    newton: int = 100
    annealed: int = 100
    """Of geomloss, whose temperatures are spread over them; it has no test of convergence."""


BUDGET = Budget()

Solver = Callable[[Problem, float], tuple[Tensor, str]]


def _ours(method: str) -> Solver:
    def solve(problem: Problem, tol: float) -> tuple[Tensor, str]:
        result = ot.solve(problem.cost, problem.a, problem.b, problem.reg, method=method, tol=tol, max_sweeps=20_000)
        return result.plan, f"{int(result.sweeps)} sweeps, {int(result.newton)} Newton"  # the plan is made after the clock

    return solve


def _pot(problem: Problem, tol: float) -> tuple[Tensor, str]:
    import ot as pot

    # Stops by the L2 norm of one marginal's error.
    stop = tol / len(problem.a) ** 0.5
    a, b, cost = problem.a.numpy(), problem.b.numpy(), problem.cost.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan, log = pot.bregman.sinkhorn_log(a, b, cost, problem.reg, numItermax=BUDGET.iterations, stopThr=stop, log=True)
    return torch.from_numpy(plan), f"{log['niter']} its"


def _regot(problem: Problem, tol: float) -> tuple[Tensor, str]:
    import regot

    # Stops by the L2 norm of the gradient.
    stop = tol / len(problem.a) ** 0.5
    result = regot.sinkhorn_ssns(
        problem.cost.numpy(), problem.a.numpy(), problem.b.numpy(), problem.reg, tol=stop, max_iter=BUDGET.newton
    )
    return torch.from_numpy(result.plan.copy()), f"{result.niter} its"


def _geomloss(problem: Problem, tol: float) -> tuple[Tensor, str]:
    from geomloss import ot as geomloss

    result = geomloss.solve(problem.cost, a=problem.a, b=problem.b, reg=problem.reg, max_iter=BUDGET.annealed)
    return result.plan, f"{BUDGET.annealed} its"


def _ott(problem: Problem, tol: float) -> tuple[Tensor, str]:
    import jax
    import numpy as np

    jax.config.update("jax_enable_x64", True)
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    cost = geometry.Geometry(cost_matrix=jax.numpy.asarray(problem.cost.numpy()), epsilon=problem.reg)
    linear = linear_problem.LinearProblem(cost, a=problem.a.numpy(), b=problem.b.numpy())
    if tol not in _OTT_SOLVERS:
        _OTT_SOLVERS[tol] = jax.jit(sinkhorn.Sinkhorn(threshold=tol, max_iterations=BUDGET.iterations))
    out = _OTT_SOLVERS[tol](linear)
    return torch.from_numpy(np.array(out.matrix)), f"{int(out.n_iters)} its"


_OTT_SOLVERS: dict[float, Callable] = {}

SOLVERS: dict[str, tuple[str, Solver]] = {
    "momentum auto": ("momentum", _ours("auto")),
    "momentum sns": ("momentum", _ours("sns")),
    "momentum sinkhorn": ("momentum", _ours("sinkhorn")),
    "POT sinkhorn_log": ("ot", _pot),
    "regot SSNS": ("regot", _regot),
    "OTT-JAX sinkhorn": ("ott", _ott),
    "geomloss solve": ("geomloss", _geomloss),
}


def missing() -> list[str]:
    """Return the solvers that are not installed here."""
    return [name for name, (module, _) in SOLVERS.items() if importlib.util.find_spec(module) is None]


def available() -> dict[str, Solver]:
    """Return the solvers that can run here."""
    return {name: solve for name, (module, solve) in SOLVERS.items() if importlib.util.find_spec(module) is not None}
