"""One row per optimizer op: what the tests need to know to run it against its reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from momentum import reference


@dataclass(frozen=True)
class Variant:
    """One way to call a rule: which optional states are stored, hyper-parameters, and the first steps to try."""

    hypers: dict[str, Any] = field(default_factory=dict)
    optional: bool = False
    steps: tuple[int, ...] = (0, 1, 2, 9, 99, 1000, 30_000)


@dataclass(frozen=True)
class RuleCase:
    """A rule.

    Attributes
    ----------
    states
        Op list name to state name of the reference, required ones first.
    optional
        The last state may be absent.
    scalars
        Length of the persistent per-tensor scalars.
    reductions
        Reductions of the rule itself.
    widths
        How many numbers each makes for a segment; one each where it is empty.
    selects
        They are the passes of a selection.
    lines
        The rule's totals are per row or column, so the memory must be a row-major matrix.
    matrices
        Tensors of fewer than two dimensions have no rows; rows may have their elements in any order.
    jump
        Given gradient, state and hyper-parameters, a number whose sign decides between two updates at most 2 apart.
    """

    name: str
    reference: Callable[..., Any]
    states: dict[str, str]
    variants: dict[str, Variant]
    optional: bool = False
    scalars: int = 0
    reductions: int = 0
    widths: tuple[int, ...] = ()
    selects: bool = False
    lines: bool = False
    matrices: bool = False
    jump: Callable[..., Tensor] | None = None

    @property
    def passes(self) -> int:
        """How many times the rule reads its elements before the map: sums of the sums of rows come with these."""
        return 1 if self.widths and not self.selects else self.reductions

    def stored(self, variant: Variant) -> dict[str, str]:
        """Return the states that a variant stores."""
        names = list(self.states.items())
        return dict(names if variant.optional or not self.optional else names[:-1])


MOMENTS = {"exp_avgs": "exp_avg", "exp_avg_sqs": "exp_avg_sq"}

POSITIVE = {"exp_avg_sqs", "max_exp_avg_sqs", "exp_avg_vars", "max_exp_avg_vars", "hessians"}
"""States that hold no negative numbers."""


def lion_jump(grad: Tensor, state: dict[str, Tensor], hypers: dict[str, Any]) -> Tensor:
    """Return how far Lion's mixed momentum is beyond its threshold."""
    beta1 = hypers.get("beta1", 0.9)
    return (beta1 * state["exp_avg"] + (1 - beta1) * grad).abs() - hypers.get("threshold", 0.0)


def top_k_jump(grad: Tensor, state: dict[str, Tensor], hypers: dict[str, Any]) -> Tensor:
    """Return how far the mixed momentum is beyond the k-th largest magnitude."""
    beta1 = hypers.get("beta1", 0.9)
    magnitude = (beta1 * state["exp_avg"] + (1 - beta1) * grad).abs()
    count = magnitude.numel()
    k = min(max(hypers.get("count", 0) or int(hypers.get("density", 0.1) * count), 1), count)
    return magnitude - magnitude.flatten().sort().values[-k] if count else magnitude


def scale_jump(grad: Tensor, state: dict[str, Tensor], hypers: dict[str, Any]) -> Tensor:
    """Return what is normalised: of a line of one element the sign is left."""
    if "exp_avg" not in state:
        return grad
    momentum, mix = hypers.get("momentum", 0.9), hypers.get("mix", 1.0)
    return mix * (momentum * state["exp_avg"] + (1 - momentum) * grad) + (1 - mix) * grad


RULES = {
    rule.name: rule
    for rule in (
        RuleCase(
            "adam",
            reference.adam,
            {**MOMENTS, "max_exp_avg_sqs": "max_exp_avg_sq"},
            {
                "plain": Variant(),
                "amsgrad": Variant({"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}, optional=True),
                "no_memory": Variant({"beta1": 0.0, "beta2": 0.0}),
            },
            optional=True,
        ),
        RuleCase(
            "sgd",
            reference.sgd,
            {"momentum_buffers": "momentum_buffer"},
            {
                "plain": Variant(),
                "momentum": Variant({"momentum": 0.9}, optional=True),
                "dampening": Variant({"momentum": 0.7, "dampening": 0.3}, optional=True),
                "nesterov": Variant({"momentum": 0.9, "nesterov": True}, optional=True),
            },
            optional=True,
        ),
        RuleCase(
            "lion",
            reference.lion,
            {"exp_avgs": "exp_avg"},
            {
                "plain": Variant(),
                "threshold": Variant({"beta1": 0.5, "beta2": 0.7, "threshold": 0.25}),
                "huber": Variant({"threshold": 0.25, "huber": True}),
            },
            jump=lion_jump,
        ),
        RuleCase(
            "lion_top_k",
            reference.lion_top_k,
            {"exp_avgs": "exp_avg"},
            {
                "plain": Variant(),
                "half": Variant({"beta1": 0.5, "beta2": 0.7, "density": 0.5}),
                "count": Variant({"count": 5}),
            },
            reductions=3,
            widths=(2**11 + 2, 2**10 + 2, 2**10 + 2),
            selects=True,
            jump=top_k_jump,
        ),
        RuleCase(
            "adabelief",
            reference.adabelief,
            {"exp_avgs": "exp_avg", "exp_avg_vars": "exp_avg_var", "max_exp_avg_vars": "max_exp_avg_var"},
            {
                "plain": Variant(),
                "waiting": Variant({"degenerated_to_sgd": False, "beta2": 0.9}),
                "unrectified": Variant({"rectify": False, "eps": 1e-3}),
                "amsgrad": Variant({"rectify": False, "beta1": 0.8, "beta2": 0.95}, optional=True),
            },
            optional=True,
        ),
        RuleCase(
            "diffgrad",
            reference.diffgrad,
            {**MOMENTS, "previous_grads": "previous_grad"},
            {"plain": Variant(), "betas": Variant({"beta1": 0.8, "beta2": 0.95, "eps": 1e-3})},
        ),
        RuleCase(
            "adan",
            reference.adan,
            {
                "exp_avgs": "exp_avg",
                "exp_avg_diffs": "exp_avg_diff",
                "exp_avg_sqs": "exp_avg_sq",
                "neg_pre_grads": "neg_pre_grad",
            },
            {"plain": Variant(), "betas": Variant({"beta1": 0.9, "beta2": 0.5, "beta3": 0.95, "eps": 1e-3})},
        ),
        RuleCase(
            "sophia",
            reference.sophia,
            {"exp_avgs": "exp_avg", "hessians": "hessian"},
            {
                "plain": Variant(),
                "gauss_newton": Variant({"scale": 0.5, "beta1": 0.8}),
                "hutchinson": Variant({"clip": 0.25, "eps": 1e-2, "floor": True}),
            },
        ),
        RuleCase(
            "hessian_ema",
            reference.hessian_ema,
            {"probes": "probe"},
            {"squares": Variant({"scale": 3.0}), "probes": Variant(optional=True)},
            optional=True,
        ),
        RuleCase(
            "spam",
            reference.spam,
            MOMENTS,
            {
                "plain": Variant(),
                # Steps at, before and after resets, in the warm-up and while clipping is off or on.
                "resets": Variant(
                    {"reset_interval": 20, "warmup_steps": 12, "accumulation_steps": 5, "threshold": 2.0},
                    steps=(0, 5, 18, 19, 20, 23, 24, 30, 31, 39, 40, 58),
                ),
                "official": Variant({"guard_zero_v": False, "threshold": 2.0, "eps": 1e-3}, steps=(0, 30, 600)),
                "no_resets": Variant({"reset_interval": 0, "threshold": 0.0}),
            },
        ),
        RuleCase(
            "stable_spam",
            reference.stable_spam,
            MOMENTS,
            {
                "plain": Variant(),
                "resets": Variant({"reset_interval": 20, "theta": 0.9}, steps=(0, 1, 18, 19, 20, 38, 39, 40, 50)),
                "cosine": Variant({"total_steps": 100, "eta_min": 0.25, "gamma1": 0.85}, steps=(0, 1, 40, 99, 150)),
                "official": Variant(
                    {"official": True, "reset_interval": 20, "total_steps": 100}, steps=(0, 18, 19, 20, 39, 150)
                ),
            },
            scalars=3,
            reductions=2,
        ),
        RuleCase(
            "scale",
            reference.scale,
            {"exp_avgs": "exp_avg"},
            {
                "rows": Variant(),
                "columns": Variant({"axis": 0}),
                "rows_l2_momentum": Variant({"l2": True, "momentum": 0.95}, optional=True),
                "columns_momentum": Variant({"axis": 0}, optional=True),
                "rows_lion": Variant({"l2": True, "momentum": 0.9, "mix": 0.75}, optional=True),
            },
            optional=True,
            reductions=1,
            lines=True,
            jump=scale_jump,
        ),
        RuleCase(
            "normalized",
            reference.normalized,
            {"exp_avgs": "exp_avg"},
            {
                "plain": Variant({"eps": 1e-3}),
                "momentum": Variant(optional=True),
                "lion": Variant({"momentum": 0.8, "mix": 0.5}, optional=True),
            },
            optional=True,
            reductions=1,
        ),
        RuleCase(
            "adaptive_memory",
            reference.adaptive_memory,
            {"memories": "memory", "exp_avg_sqs": "exp_avg_sq"},
            {
                "plain": Variant(),
                "pulled": Variant({"pull": 1.5}),
                "weighted": Variant({"pull": 0.0, "beta2": 0.9, "eps": 1e-3}, optional=True),
            },
            optional=True,
            reductions=1,
            widths=(3,),
        ),
        RuleCase(
            "adamp",
            reference.adamp,
            MOMENTS,
            {
                "plain": Variant(),
                # Of most tensors the rows are perpendicular enough, or else the whole is.
                "rows": Variant({"delta": 3.5, "beta1": 0.8, "eps": 1e-3}),
                "tensors": Variant({"delta": 1.25, "wd_ratio": 0.5, "nesterov": True}),
            },
            reductions=2,
            widths=(4, 6),
            lines=True,
            matrices=True,
        ),
        RuleCase(
            "sgdp",
            reference.sgdp,
            {"momentum_buffers": "momentum_buffer"},
            {
                "plain": Variant(),
                "rows": Variant({"delta": 3.5, "momentum": 0.75, "dampening": 0.25}, optional=True),
                "tensors": Variant({"delta": 1.25, "momentum": 0.75, "wd_ratio": 0.5, "nesterov": True}, optional=True),
                "official": Variant({"delta": 3.5, "momentum": 0.75, "project_momentum": True}, optional=True),
            },
            optional=True,
            reductions=2,
            widths=(4, 6),
            lines=True,
            matrices=True,
        ),
        RuleCase(
            "sgd_sai",
            reference.sgd_sai,
            {"momentum_buffers": "momentum_buffer"},
            {"plain": Variant(), "no_momentum": Variant({"momentum": 0.0})},
            scalars=1,
        ),
    )
}

VARIANTS = [(rule.name, name) for rule in RULES.values() for name in rule.variants]


def first(rule: RuleCase) -> Variant:
    """Return the rule with its default hyper-parameters."""
    return next(iter(rule.variants.values()))
