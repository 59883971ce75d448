"""How far a kernel may be from the float64 reference, derived and never tuned.

A kernel makes some roundings on the way from its inputs to a result. To first order each acts like a relative
perturbation, by at most the unit roundoff u, of one of the inputs or of the result itself, as long as no intermediate
cancels more than the inputs do. So with k roundings

    |kernel - reference| <= k u (|f| + sum over the inputs x of |x df/dx|)  =  k u * condition,

and the sum is computed exactly, by differentiation of the reference (`first_order`). Storing the result
in a narrow type adds one rounding, which is monotone: the stored value lies between the rounded ends of the interval
(`assert_stored`), so nothing is added for it and a wrong rounding mode shows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from momentum.reference import reductions

UNIT = {torch.float32: 2.0**-24, torch.float64: 2.0**-53, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}

Values = dict[str, Tensor]


@dataclass(frozen=True)
class Roundings:
    """Counts of roundings between the inputs of a rule and its update and states, by stage.

    Attributes
    ----------
    frame
        What surrounds every rule: sign / grad_scale and its product with g (2), weight_decay as arithmetic type, its
        product with p and the sum (3), lr (1), mask / share (2), decay factor: lr * wd, / max_lr, 1 - x, and for the
        proximal mode 1 / (1 + x) (4), its product with p (1), p - u (1).
    rule
        The rule itself, see the table.
    reduction
        What a per-tensor or per-line total adds (`TOTAL`). Its terms are non-negative, so adding them is well
        conditioned. Rules whose totals `total_conditions` looks at have none here.
    """

    rule: int
    reduction: int = 0
    frame: int = 14

    @property
    def total(self) -> int:
        return self.rule + self.reduction + self.frame


# The measure of a term (2), what is added in the arithmetic type: 15 on a CPU lane; on a GPU 64 by the lanes of a warp
# that takes a whole row, and its tree (5); the rest is added in double; the total's conversion (1).
TOTAL = 72

# Both numbers converted (2), what the gradient and the parameter are multiplied by (3), their products and the sum (3).
PERPENDICULAR = 8

ROUNDINGS = {
    # Coefficients 1 - b1, b2, 1 - b2 (3); m: difference, product, sum (3); v: two products, product, sum (4);
    # corrections: log, product, expm1 of 2 ulp (4) each, halved for the second by its root; lr / c1 (1), root,
    # reciprocal (2); sqrt (1), times the correction (1), + eps and eps itself (2), product, division (2).
    "adam": Roundings(rule=31),
    # Coefficients (2), two products and a sum (3), Nesterov: product, sum (2), lr (1).
    "sgd": Roundings(rule=8),
    # Coefficients (4), two products and a sum (3) for m; the line below the threshold: reciprocal, conversion, product (3).
    "lion": Roundings(rule=10),
    # Coefficients (3), m (3), twice the difference of g and m (2), product and square (2), the rest of s: product, two
    # sums, eps (4); corrections (4 and 2) and lr / c1 (1); root, reciprocal (2); sqrt, product, eps twice, sum (5);
    # product, division (2). Rectification: rho to 8 roundings (log, two products, three levels of the fraction that
    # matter, sum), 5 times that in rho - 4, 5/3 times in rho - 2, once in rho, halved by the root (31); factors (6).
    "adabelief": Roundings(rule=67),
    # Adam's (31); the change (1), the exponential: argument, two parts of its reduction, polynomial (6), sum, quotient (2),
    # product (1).
    "diffgrad": Roundings(rule=41),
    # Coefficients (6); the change (1); m and z (3 each); g + b2 change (2) twice, square, two products, sum (8);
    # corrections (4, 4 and 2), lr times b2 (2), quotients (2); products and their sum (3); root, reciprocal (2); sqrt,
    # product, eps, sum (4); division (1).
    "adan": Roundings(rule=45),
    # Coefficients (4), two products and a sum (3), the magnitude in float32 (1).
    "lion_top_k": Roundings(rule=8),
    # Coefficients (2), m (3), scale and its product (2), eps, sum (2), quotient, clip, product (3).
    "sophia": Roundings(rule=12),
    # Weight: lr, scale, product (3); two products (2).
    "hessian_ema": Roundings(rule=5),
    # Adam's, with the limit: product, root, threshold itself (3), and the warm-up: angle, cosine of 2 ulp, sum,
    # product, difference (6).
    "spam": Roundings(rule=40),
    # Adam's; clipping: average and its coefficients (5), correction (4), quotient, product (2); normalisation: the
    # same for two averages (18), root, quotient (3), the norm (2), product (1); cosine and the factors it scales (8).
    "stable_spam": Roundings(rule=74, reduction=2 * TOTAL),
    # lerp (4), mix: two coefficients, two products, sum (5), count, product, root (3), maximum with eps, eps itself (2),
    # product with lr, quotient (2).
    "scale": Roundings(rule=16, reduction=TOTAL),
    # The same without count and product.
    "normalized": Roundings(rule=14),
    # Weights of the old and the new: two conversions, their reciprocal, products (5), two products, sum (3); v: coefficients
    # (2), two products, product, sum (4); correction (4 halved: 2), root, reciprocal (2); sqrt, product, eps twice, sum,
    # reciprocal (6), product with lr and the memory (2); the terms of a total: difference twice, products (4).
    "adaptive_memory": Roundings(rule=30),
    # Adam's (31); Nesterov's look-ahead: two products and a sum (3); the coefficient: conversions (2), root, eps twice, square,
    # quotient (5); its product with the parameter and the difference (2).
    "adamp": Roundings(rule=43),
    # SGD's (8), and the same of the projection (7); the factor of the decay and its product (2).
    "sgdp": Roundings(rule=17),
    # Coefficient (1), two products and a sum (3), the ratio's product with lr and with the buffer (2).
    "sgd_sai": Roundings(rule=6),
}


# StableMax: 1 + |x|, its reciprocal (2), sums of 32 terms in the arithmetic type (31), the rest in double; a loss moves by less
# than its sum, relatively. Of a gradient besides: the row's factor (1), the slope (3), their product (1); in double (2).
STABLEMAX = 40

# A normal number (core/normal.h), relatively. Under the root, which halves them: the sum of both logarithms (1), the second of
# them (1), with a fifth of their weight the polynomial, its last product, its rest and the square (4); the root (1). Cosine and
# sine: the last sum (1), with at most 0.42 of its weight the square, the polynomial's last sum and its rest (3). Their product
# with the radius (1).
NORMAL = 6


def first_order(function: Callable[[Values], Values], inputs: Values) -> tuple[Values, Values]:
    """Return the outputs and their conditions |f| + sum |x df/dx|.

    Where a derivative does not exist in floating point (the root of an exact zero) the input is exact there, and its
    term is zero. Totals that rules form by `reductions.total` count as constants, because the changes of an element and
    of a total may cancel; `total_conditions` has their share.
    """
    plain = reductions.total

    def constant(values: Tensor, dim: int | None = None) -> Tensor:
        return plain(values.detach(), dim)

    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    with torch.enable_grad(), patch.object(reductions, "total", constant):
        outputs = function(leaves)
    conditions = {name: value.detach().abs() for name, value in outputs.items()}
    for name, change in changes_along(outputs, [(leaves[name], x) for name, x in inputs.items()]):
        conditions[name] = conditions[name] + change.abs().nan_to_num(nan=0.0)
    return {name: value.detach() for name, value in outputs.items()}, conditions


def changes_along(outputs: Values, directions: list[tuple[Tensor, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Yield, for each input and its direction, what the outputs change by.

    That is the derivative of the gradients along the weights of the outputs, which are linear in these. Forward mode says
    the same six times slower: torch asks Python for the shape of every product with a number.
    """
    moving = {name: value for name, value in outputs.items() if value.requires_grad}
    if not moving or not directions:
        return
    weights = [torch.zeros_like(value, requires_grad=True) for value in moving.values()]
    gradients = torch.autograd.grad(
        list(moving.values()), [x for x, _ in directions], weights, create_graph=True, allow_unused=True
    )
    for gradient, (_, direction) in zip(gradients, directions, strict=True):
        if gradient is None or not gradient.requires_grad:
            continue
        changes = torch.autograd.grad(gradient, weights, direction, retain_graph=True, allow_unused=True)
        yield from ((name, change) for name, change in zip(moving, changes, strict=True) if change is not None)


class Unclipped(torch.autograd.Function):
    """Clips a number and leaves what it changes by as it is."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, low: float, high: float) -> Tensor:
        return value.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


def total_conditions(function: Callable[[Values], Values], inputs: Values) -> Values:
    """Return, for rules that sum by `reductions.total`, what each output changes by when every total is off by its terms.

    The terms of a total may differ in sign, so its rounding is relative to the sum of their magnitudes.
    """
    plain = reductions.total
    shifts, sizes = [], []

    def shifted(values: Tensor, dim: int | None = None) -> Tensor:
        total = plain(values, dim)
        shifts.append(torch.zeros_like(total).requires_grad_())
        sizes.append(plain(values.detach().abs(), dim))
        return total + shifts[-1]

    # A clipped number may be on the other side of its bound: what it is clipped from says by how much it moves.
    with (
        torch.enable_grad(),
        patch.object(reductions, "total", shifted),
        patch.object(reductions, "clip", Unclipped.apply),
    ):
        outputs = function(inputs)
    conditions = {name: torch.zeros_like(value) for name, value in outputs.items()}
    for name, change in changes_along(outputs, list(zip(shifts, sizes, strict=True))):
        conditions[name] = conditions[name] + change.abs().nan_to_num(nan=0.0)
    return conditions


def bit_equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same bits, NaN and the sign of zero included."""
    same = a.dtype == b.dtype and a.shape == b.shape
    integer = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return same and torch.equal(a.contiguous().view(integer), b.contiguous().view(integer))


def ulp_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return how many representable numbers lie between two tensors of one dtype."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    lowest = torch.iinfo(integer).min

    def ordered(x: Tensor) -> Tensor:
        bits = x.contiguous().view(integer).long()
        return torch.where(bits < 0, lowest - bits, bits)

    return (ordered(a) - ordered(b)).abs()


def assert_stored(got: Tensor, reference: Tensor, bound: Tensor, store: Callable[[Tensor], Tensor], what: str) -> None:
    """Check that ``got`` is ``store`` of a number within ``bound`` of the reference; ``store`` is monotone."""
    low, high = store(reference - bound).double(), store(reference + bound).double()
    value = got.detach().cpu().double()
    same = (value >= low) & (value <= high) | value.isnan() & reference.isnan() | (value == reference)
    if same.all():
        return
    wrong = (~same).flatten().nonzero().flatten()
    i = int(wrong[0])
    flat = {name: t.flatten()[i].item() for name, t in [("got", value), ("ref", reference), ("bound", bound)]}
    raise AssertionError(
        f"{what}: {wrong.numel()} of {got.numel()} wrong, first at {i}: "
        f"{flat['got']!r} for {flat['ref']!r}, allowed error {flat['bound']:.3g}"
    )
