"""The solver's entry point: arguments, checks, the call of the op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from momentum import _ops
from momentum.ot.gradients import differentiable
from momentum.ot.inputs import prepare
from momentum.ot.paper import solve_batch as solve_as_published
from momentum.ot.points import METRICS, Points
from momentum.ot.result import Problem, Result, Status

METHODS = {"sinkhorn": 0, "sns": 1, "auto": 2, "sns-paper": None}
GRADS = ("envelope", "implicit", "detach")


def solve(
    cost: Any,
    a: Any = None,
    b: Any = None,
    reg: Any = None,
    *,
    method: str = "auto",
    tol: float | None = None,
    max_sweeps: int = 10_000,
    row_mask: Any = None,
    column_mask: Any = None,
    grad: str = "envelope",
) -> Result:
    """Solve entropic optimal transport problems: ``min <C, P> + reg KL(P | a bᵀ)`` with ``P 1 = a``, ``Pᵀ 1 = b``, ``P >= 0``.

    Parameters
    ----------
    cost
        Costs [n, m], or [B, n, m] for a batch, or :class:`Points`. float32, float64, or narrower floats, which are widened to
        float32; torch, NumPy, CuPy or anything else with ``__dlpack__``. ``+inf`` forbids an entry. A single cost with
        marginals [B, n] is shared by the batch.
    a, b
        Marginals [n] and [m], or [B, n] and [B, m]; non-negative, of equal mass (up to 1e-5 of it; ``b`` is scaled to the mass
        of ``a``), not necessarily 1. Zeros are allowed. Default: uniform of mass 1, over the masks where they are given.
    reg
        Temperature > 0 in units of the cost, one number or [B]. ``reg = 1 / eta`` in the paper.
    method
        ``"sinkhorn"``: sweeps, each one read of the cost. ``"sns"``: sparse Newton steps along an annealed temperature, sweeps
        where those are cheaper or a Newton step fails. ``"auto"`` (default): sweeps until their measured rate says that Newton
        pays. ``"sns-paper"``: the published algorithm to the letter, in plain torch, for comparison.
    tol
        L1 error of both marginals relative to the mass. Default 1e-9, and 1e-6 for float32 costs on CUDA.
    max_sweeps
        Reads of the cost in which every entry is exponentiated, at most.
    row_mask, column_mask
        bool [B, n] and [B, m]: what belongs to each problem of a ragged batch. The rest has no mass, and its costs may hold
        anything.
    grad
        ``"envelope"`` (default): the value has gradients for ``cost`` (or the points), ``a`` and ``b``, at the price of one
        plan. ``"implicit"``: potentials and plan too, by solving the linearised problem densely. ``"detach"``: none.
        Gradients for ``a`` and ``b`` are those along changes that keep the masses equal. They are not differentiable again.

    Returns
    -------
    Result
        Value, potentials, plan on demand, error, status and work of each problem. Nothing is raised for what the numbers
        in an array are: look at ``status``.

    Raises
    ------
    ValueError
        For shapes that do not fit, unknown options, ``reg``, ``tol`` or ``max_sweeps`` out of range.
    TypeError
        For arrays that hold no floating-point numbers.

    Notes
    -----
    The precision that can be reached is bounded by the rounding of potentials, about ``1e-16 max|cost| / reg``; a tolerance
    below ends with ``Status.PRECISION_FLOOR``. On the CPU all arithmetic is float64, whatever the dtype of the cost. On CUDA
    float32 costs are exponentiated in float32 and summed in float64, which leaves a floor of about 2e-7.

    On CUDA problems of up to 2^18 entries are solved in one launch for the whole batch, one block each; larger ones follow each
    other, and the host reads a few numbers after each sweep or Newton step. Neither can be captured in a CUDA graph.

    Forbidden entries may leave no plan. Rows whose mass exceeds that of all columns they reach, by more than ``tol``, are
    looked for each time the sweeps have doubled: their potentials grow for ever. Finding them is a proof, so that
    ``Status.INFEASIBLE`` is never wrong. Nothing is spent on it without infinite costs.

    Source: Tang, Shavlovsky, Rahmanian, Tardini, Thekumparampil, Xiao, Ying: "Accelerating Sinkhorn algorithm with sparse
    Newton iterations", ICLR 2024 (arXiv 2401.12253). ``"sns"`` differs from it in the dense diagonal, the threshold tied to
    the error, the annealing, the reduced and preconditioned system, and the line search.

    Examples
    --------
    >>> import torch
    >>> from momentum import ot
    >>> result = ot.solve(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), reg=0.1)
    >>> result.plan().round(decimals=3)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]], dtype=torch.float64)
    >>> bool(result.converged), result.error.item() < 1e-9
    (True, True)
    """
    if method not in METHODS:
        raise ValueError(f"momentum.ot.solve: method is {method!r}, expected one of {', '.join(METHODS)}")
    if grad not in GRADS:
        raise ValueError(f"momentum.ot.solve: grad is {grad!r}, expected one of {', '.join(GRADS)}")
    inputs = prepare(cost, a, b, reg, row_mask, column_mask)
    tol = (1e-6 if inputs.single and inputs.a.is_cuda else 1e-9) if tol is None else tol
    if not 0 <= tol < 1:
        raise ValueError(f"momentum.ot.solve: tol is {tol}, expected a number in [0, 1)")
    if max_sweeps < 1:
        raise ValueError(f"momentum.ot.solve: max_sweeps is {max_sweeps}, expected at least 1")

    problem = Problem(inputs.cost, inputs.a, inputs.b, inputs.reg.to(inputs.a.device))
    with torch.no_grad():
        if method == "sns-paper":
            f, g, numbers, counts = solve_as_published(problem, tol)
        else:
            f, g, numbers, counts = _call(problem, inputs.reg.tolist(), METHODS[method], tol, max_sweeps)
        status = counts[:, 0]
        value = numbers[:, 0].where(status != Status.INFEASIBLE, float("inf")).where(status != Status.INVALID, float("nan"))
    value, f, g = differentiable(problem, value, f, g, grad)
    return _result(problem, value, f, g, numbers[:, 1], counts, inputs.batched, inputs.wrap)


def _call(
    problem: Problem, reg: list[float], method: int | None, tol: float, max_sweeps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b = problem.a.detach().contiguous(), problem.b.detach().contiguous()
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    numbers = torch.zeros(len(a), 2, dtype=torch.float64, device=a.device)
    counts = torch.zeros(len(a), 5, dtype=torch.int32, device=a.device)
    cost = x = y = a.new_empty(0)
    kind = 0
    if isinstance(problem.cost, Points):
        x, y = problem.cost.x.detach().contiguous(), problem.cost.y.detach().contiguous()
        kind = METRICS[problem.cost.metric]
    else:
        cost = problem.cost.detach().contiguous()
    getattr(torch.ops, _ops.active_namespace).ot_solve(
        *(cost, x, y, a, b, f, g, numbers, counts),
        reg=reg,
        cost_kind=kind,
        method=method,
        tol=tol,
        max_sweeps=max_sweeps,
    )
    return f, g, numbers, counts


def _result(
    problem: Problem,
    value: Tensor,
    f: Tensor,
    g: Tensor,
    error: Tensor,
    counts: Tensor,
    batched: bool,
    wrap: Callable[[Tensor], Any],
) -> Result:
    def out(tensor: Tensor) -> Any:
        return wrap(tensor if batched else tensor[0])

    return Result(
        value=out(value),
        f=out(f),
        g=out(g),
        error=out(error),
        status=out(counts[:, 0]),
        sweeps=out(counts[:, 1]),
        newton=out(counts[:, 2]),
        rejected=out(counts[:, 3]),
        cg=out(counts[:, 4]),
        _problem=problem,
        _potentials=(f, g),
        _batched=batched,
        _wrap=wrap,
    )
