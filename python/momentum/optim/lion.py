"""Lion."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from momentum.optim._base import FusedOptimizer
from momentum.optim._options import CommonOptions, Group, check_betas, check_choice, check_integer, check_number
from momentum.optim._rule import Reduction, Rule

STATES = ("exp_avg",)
SELECTION_DIGITS = (11, 10, 10)
"""Bits that each pass of the op's selection finds; it makes a number for each of their values, and two more."""
ENTRIES = Rule("lion", STATES, counts=False)
KERNELS = {
    "sign": ENTRIES,
    "soft": ENTRIES,
    "huber": ENTRIES,
    "top_k": Rule(
        "lion_top_k",
        STATES,
        reductions=tuple(Reduction("sum", width=2**bits + 2) for bits in SELECTION_DIGITS),
        counts=False,
    ),
    "l2": Rule("normalized", STATES, reductions=(Reduction("sum"),), counts=False),
    "row": Rule("scale", STATES, reductions=(Reduction("sum", 1),), counts=False),
    "column": Rule("scale", STATES, reductions=(Reduction("sum", 0),), counts=False),
}
SMALLEST_NORM = 1e-12
"""A smaller norm counts as this, so that a zero line stays zero."""


class Lion(FusedOptimizer):
    r"""Lion, and Lion-K: the gradient of a convex function K at an interpolated momentum.

    .. math::
        p_t &= (1 - \eta \lambda) \, p_{t-1} - \eta \, \nabla K(\beta_1 m_{t-1} + (1 - \beta_1) g_t) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    where :math:`\nabla K(c)` is, with :math:`e` the ``threshold``,

    - ``"sign"``, Lion: :math:`\operatorname{sign}(c)`, of :math:`K = \|c\|_1`;
    - ``"soft"``: :math:`\operatorname{sign}(c)` where :math:`|c| > e` and 0 elsewhere, of :math:`\sum \max(|c| - e, 0)`;
    - ``"huber"``: :math:`\operatorname{clip}(c, -e, e) / e`, of the Huber function;
    - ``"top_k"``: :math:`\operatorname{sign}(c)` of the k entries of largest magnitude in each tensor and 0 elsewhere, of
      the sum of the k largest magnitudes;
    - ``"l2"``: :math:`c / \|c\|_2` of the tensor; ``"row"``, ``"column"``: the same of each row or column of the matrix that
      is dim 0 by the rest, of the group norm :math:`\|c\|_{2,1}`.

    With weight decay the iteration minimises the loss plus the convex conjugate of :math:`\lambda K`. An entry (``"l2"``: the
    tensor, ``"row"``, ``"column"``: a line) of :math:`\nabla K` has a norm of at most 1, so that of the parameter is at most
    :math:`1 / \lambda` once it is, as long as :math:`\eta \lambda \le 1`.

    Parameters
    ----------
    params
        Parameters, named parameters or parameter groups.
    lr
        Learning rate :math:`\eta \ge 0`, a number or a one-element tensor. Default: 1e-4.
    betas
        :math:`\beta_1, \beta_2 \in [0, 1)`, numbers, or one-element tensors except with ``"l2"``, ``"row"`` and ``"column"``.
        Default: (0.9, 0.99).
    weight_decay
        :math:`\lambda \ge 0`, a number or a one-element tensor. Default: 0.
    kernel
        :math:`\nabla K`: ``"sign"``, ``"soft"``, ``"huber"``; or a norm, which costs a pass over gradient and momentum more:
        ``"l2"``, ``"row"`` or ``"column"``; or ``"top_k"``, which costs three. Default: ``"sign"``.
    threshold
        :math:`e \ge 0` of ``"soft"`` and ``"huber"``, in units of the gradient; at 0 both are the sign. Default: 0.
    density
        With ``"top_k"``: the share of each tensor's entries that is stepped, in (0, 1]; k is that share of the whole tensor,
        rounded down, and at least 1. Default: None, where ``k`` is given.
    k
        With ``"top_k"``, in the place of ``density``: how many entries of each tensor are stepped, at least 1; all of a tensor
        that has fewer. Default: None.
    **options
        The options of :class:`~momentum.optim.CommonOptions`.

    Raises
    ------
    ValueError, TypeError
        When an option is out of its range.

    Notes
    -----
    Chen et al., "Symbolic Discovery of Optimization Algorithms" (2023), algorithm 2, and google/automl ``lion_pytorch.py``.
    Chen et al., "Lion Secretly Solves Constrained Optimization: As Lyapunov Predicts" (2024), table 2, for the kernels.
    ``"top_k"`` finds the k-th largest magnitude exactly, on every backend and however a tensor is sharded: magnitudes are
    compared in float32, those of float64 parameters too, and entries that tie with the k-th are all stepped, so that gradients
    in bfloat16 may step a few more than k. Its workspace is 33 kB for each tensor.

    sign(0) is 0. The state also counts steps, for stochastic rounding; a state without a count can be loaded.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = momentum.optim.Lion(model.parameters(), lr=1e-3, weight_decay=0.1)
    >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.99),
        weight_decay: float | Tensor = 0.0,
        *,
        kernel: str = "sign",
        threshold: float = 0.0,
        density: float | None = None,
        k: int | None = None,
        **options: Unpack[CommonOptions],
    ) -> None:
        defaults: dict[str, Any] = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "kernel": kernel,
            "threshold": threshold,
            "density": density,
            "k": k,
        }
        super().__init__(params, defaults, options)

    def _rule_of(self, group: Group) -> Rule:
        return KERNELS[group["kernel"]]

    def _hypers(self, group: Group) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        kernel = group["kernel"]
        if KERNELS[kernel] is ENTRIES:
            return {"beta1": beta1, "beta2": beta2, "threshold": group["threshold"], "huber": kernel == "huber"}
        if kernel == "top_k":
            return {"beta1": beta1, "beta2": beta2, "density": group["density"] or 0.0, "count": group["k"] or 0}
        # beta1 m + (1 - beta1) g, written in the new momentum beta2 m + (1 - beta2) g and g.
        hypers = {"momentum": beta2, "mix": beta1 / beta2 if beta2 > 0 else 0.0, "eps": SMALLEST_NORM}
        return hypers if kernel == "l2" else {**hypers, "axis": int(kernel == "row"), "l2": True}

    def _check_group(self, group: Group) -> None:
        check_betas(group["betas"])
        check_choice("kernel", group["kernel"], KERNELS)
        check_number("threshold", group["threshold"])
        kernel = group["kernel"]
        if kernel not in ("soft", "huber") and group["threshold"] != 0:
            raise ValueError(f"kernel={kernel!r} has no threshold, got {group['threshold']}: choose 'soft' or 'huber'")
        self._check_share(kernel, group["density"], group["k"])
        if KERNELS[kernel] is ENTRIES or kernel == "top_k":
            return
        beta1, beta2 = group["betas"]
        if isinstance(beta1, Tensor) or isinstance(beta2, Tensor):
            raise ValueError(f"betas must be numbers where kernel is {kernel!r}")
        if beta2 == 0 and beta1 > 0:
            raise ValueError(f"betas[1] must be positive where kernel is {kernel!r} and betas[0] is not 0")

    def _check_share(self, kernel: str, density: object, k: object) -> None:
        if kernel != "top_k":
            if density is not None or k is not None:
                raise ValueError(f"kernel={kernel!r} has neither density nor k: choose 'top_k'")
            return
        if (density is None) == (k is None):
            raise ValueError(f"kernel='top_k' needs either density or k, got density={density} and k={k}")
        if density is not None:
            if isinstance(density, Tensor):
                raise TypeError("density must be a number")
            check_number("density", density, 0.0, 1.0)
            if density == 0:
                raise ValueError("density must be in (0, 1], got 0")
        else:
            check_integer("k", k, 1, 10**15)
