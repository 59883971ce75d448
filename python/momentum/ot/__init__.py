"""Entropic optimal transport: precise, batched, differentiable.

:func:`solve` minimises ``<C, P> + reg KL(P | a bᵀ)`` over couplings ``P`` of the marginals ``a`` and ``b``. Conventions:

- ``reg`` is the temperature in units of the cost, ``1 / eta`` in the notation of the Sinkhorn-Newton-Sparse paper. The
  reference measure is the product of the marginals; with the counting measure instead (POT's ``sinkhorn``) the plan is the
  same and the value differs by ``reg (Σ a log a + Σ b log b)``.
- ``P_ij = a_i b_j exp((f_i + g_j - C_ij) / reg)``. The potentials are unique up to a constant moved from one to the other; it
  is chosen such that ``a·f = b·g``. They are 0 where a marginal is 0.
- Errors are L1: ``(|P 1 - a|₁ + |Pᵀ 1 - b|₁) / Σ a``.
"""

from __future__ import annotations

from momentum.ot.points import Points
from momentum.ot.result import Result, Status
from momentum.ot.solve import solve

__all__ = ["Points", "Result", "Status", "solve"]
