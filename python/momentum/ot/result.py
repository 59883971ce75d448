"""What a solve returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from momentum.ot.points import Points

BLOCK_ENTRIES = 1 << 22
"""Entries of the plan that are held at once where it is not stored."""


class Status(IntEnum):
    """How a solve ended."""

    CONVERGED = 0
    """The marginal error is at most ``tol``."""
    MAX_SWEEPS = 1
    """``max_sweeps`` reads of the cost were not enough."""
    PRECISION_FLOOR = 2
    """Rounding forbids a smaller error: it grows with ``max C / reg``."""
    INFEASIBLE = 3
    """Infinite costs forbid every plan that comes within ``tol`` of the marginals, and it is proven; the value is infinite."""
    INVALID = 4
    """NaN or -inf in the cost, a negative, infinite or NaN marginal, or marginals whose masses differ; the value is NaN."""


@dataclass(frozen=True)
class Problem:
    """The batch as it was solved: costs [B or 1, n, m] or points, marginals [B, n] and [B, m] in float64, reg [B]."""

    cost: Tensor | Points
    a: Tensor
    b: Tensor
    reg: Tensor

    def blocks(self, f: Tensor, g: Tensor) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """Yield the plan and the cost in blocks of rows: begin, end, plan [B, rows, m], cost."""
        count, n = self.a.shape
        step = max(1, BLOCK_ENTRIES // max(1, count * self.b.shape[1]))
        for begin in range(0, n, step):
            end = min(n, begin + step)
            cost = self.rows(begin, end)
            yield begin, end, self.plan_rows(f, g, cost, begin, end), cost

    def rows(self, begin: int, end: int) -> Tensor:
        """Return rows of the cost in float64."""
        if isinstance(self.cost, Points):
            return self.cost.block(begin, end)
        return self.cost[:, begin:end].double()

    def plan_rows(self, f: Tensor, g: Tensor, cost: Tensor, begin: int, end: int) -> Tensor:
        """Return rows of the plan; entries without mass are 0 whatever their cost."""
        weight = self.a[:, begin:end, None] * self.b[:, None, :]
        exponent = (f[:, begin:end, None] + g[:, None, :] - cost) / self.reg[:, None, None]
        return torch.where(weight > 0, weight * exponent.where(weight > 0, 0.0).exp(), 0.0)


def _identity(tensor: Tensor) -> Any:
    return tensor


@dataclass(frozen=True)
class Result:
    """The solution of a batch of transport problems; the batch dimension is absent where the input had none.

    Attributes
    ----------
    value
        ``<C, P> + reg KL(P | a bᵀ)``, float64 [B]; inf where infeasible, NaN where invalid.
    f, g
        Potentials, float64 [B, n] and [B, m].
    error
        Marginal error that was reached, L1 and relative to the mass, float64 [B].
    status
        A :class:`Status` per problem, int32 [B].
    sweeps, newton, rejected, cg
        Work, int32 [B]: reads of the cost in which every entry is exponentiated, accepted and rejected Newton steps, steps of
        conjugate gradients.
    """

    value: Any
    f: Any
    g: Any
    error: Any
    status: Any
    sweeps: Any
    newton: Any
    rejected: Any
    cg: Any
    _problem: Problem = field(repr=False)
    _potentials: tuple[Tensor, Tensor] = field(repr=False)
    _batched: bool = field(repr=False)
    _wrap: Callable[[Tensor], Any] = field(repr=False, default=_identity)

    @property
    def converged(self) -> Any:
        """Whether the error is at most ``tol``, bool [B]."""
        return self.status == Status.CONVERGED

    def plan(self) -> Any:
        """Return the plan [B, n, m] in float64; differentiable where the potentials are."""
        n = self._problem.a.shape[1]
        return self._out(self._problem.plan_rows(*self._potentials, self._problem.rows(0, n), 0, n))

    def apply(self, vectors: Any) -> Any:
        """Return ``P V`` for V [B, m, k] (or [m, k]) without storing the plan."""
        right = self._in(vectors, self._problem.b.shape[1])
        return self._out(torch.cat([plan @ right for _, _, plan, _ in self._problem.blocks(*self._potentials)], dim=1))

    def apply_transposed(self, vectors: Any) -> Any:
        """Return ``Pᵀ V`` for V [B, n, k] (or [n, k]) without storing the plan."""
        left = self._in(vectors, self._problem.a.shape[1])
        blocks = self._problem.blocks(*self._potentials)
        parts = [plan.mT @ left[..., begin:end, :] for begin, end, plan, _ in blocks]
        return self._out(torch.stack(parts).sum(0))

    def cost(self) -> Any:
        """Return ``<C, P>`` [B], the cost without the entropy."""
        total = torch.zeros(len(self._problem.a), dtype=torch.float64, device=self._problem.a.device)
        for _, _, plan, cost in self._problem.blocks(*self._potentials):
            total = total + torch.where(plan > 0, plan * cost.where(plan > 0, 0.0), 0.0).sum((1, 2))
        return self._out(total)

    def plan_csr(self, least: float = 1e-6) -> Any:
        """Return the plan as a sparse CSR matrix in float64, one for each problem (a list), or one for a single problem.

        torch's CSR tensors, ``scipy.sparse.csr_array`` for NumPy inputs, ``cupyx.scipy.sparse.csr_matrix`` for CuPy.

        Parameters
        ----------
        least
            Entries below ``least * min(a_i / m, b_j / n)`` are left out, so no row or column loses more than the share
            ``least`` of its mass.
        """
        problem = self._problem
        (count, n), m = problem.a.shape, problem.b.shape[1]
        kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(count)]
        with torch.no_grad():
            for begin, end, plan, _ in problem.blocks(*self._potentials):
                bound = least * torch.minimum(problem.a[:, begin:end, None] / m, problem.b[:, None, :] / n)
                keep = (plan >= bound) & (plan > 0)
                for k in range(count):
                    where = keep[k].nonzero()
                    kept[k].append((where + torch.tensor([begin, 0], device=where.device), plan[k][keep[k]]))
        matrices: list[Any] = []
        for blocks in kept:
            where, values = torch.cat([w for w, _ in blocks]), torch.cat([v for _, v in blocks])
            begins = torch.zeros(n + 1, dtype=torch.int64, device=where.device)
            begins[1:] = torch.bincount(where[:, 0], minlength=n).cumsum(0)
            matrices.append(self._csr(begins, where[:, 1].contiguous(), values, (n, m)))
        return matrices if self._batched else matrices[0]

    def _csr(self, begins: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Any:
        data = self._wrap(values)
        if isinstance(data, Tensor):
            return torch.sparse_csr_tensor(begins, columns, values, shape, check_invariants=True)
        numpy = type(data).__module__ == "numpy"
        sparse = import_module("scipy.sparse" if numpy else "cupyx.scipy.sparse")
        matrix = sparse.csr_array if numpy else sparse.csr_matrix
        return matrix((data, self._wrap(columns), self._wrap(begins)), shape=shape)

    def _in(self, vectors: Any, size: int) -> Tensor:
        tensor = torch.as_tensor(vectors, device=self._problem.a.device).double()
        if tensor.dim() not in (2, 3) or tensor.shape[-2] != size:
            raise ValueError(f"momentum.ot: vectors have shape {list(tensor.shape)}, expected [{size}, k] or [B, {size}, k]")
        return tensor

    def _out(self, tensor: Tensor) -> Any:
        return self._wrap(tensor if self._batched else tensor[0])
