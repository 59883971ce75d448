"""⊥Grad: the gradient without its component along the weights (Prieto et al., 2025, arXiv 2501.04697, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from momentum.reference import reductions


def perpendicular_gradient(grad: Tensor, weight: Tensor, *, renormalize: bool = True) -> Tensor:
    """Return ``g - w <w, g> / <w, w>``, at the norm of ``g`` (the authors' code) or as it is (the paper).

    What is left of a gradient that is parallel to its weights is rounding and becomes 0: at most 4 ulp of float32.
    """
    square, product, whole = (reductions.total(x) for x in (weight * weight, weight * grad, grad * grad))
    share = product / torch.where(square == 0, 1, square)
    left = whole - share * product  # the squared norm of what is left, by Pythagoras
    if left <= 2.0**-42 * whole:
        return 0 * grad
    rest = grad - share * weight
    return rest * (whole / left).sqrt() if renormalize else rest
