"""Sums over tensors that may be sharded, and clipping by the global norm without a pass that writes.

The factor of the clipping joins the scale that the ops divide gradients by.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from momentum import _ops
from momentum.optim import _sharding
from momentum.optim._launch import on_device
from momentum.optim._rule import Reduction
from momentum.optim._totals import Totals

SUM, SUM_OF_SQUARES, AGREEMENT = 0, 1, 4


def reduce_tensors(tensors: Sequence[Tensor], kind: int, device: torch.device, others: Sequence[Tensor] = ()) -> Tensor:
    """Return one number per tensor of ``device``, DTensors or not, in float64: a sum of what ``kind`` says."""
    totals = Totals(tensors, [Reduction("sum")], device)
    for stage in totals.stages():
        if isinstance(stage, dict) and stage.get("stage", 0) == 0:
            parts, partners = ([_sharding.local(tensor) for tensor in side] for side in (tensors, others))
            _ops.call("segment_reduce", parts, partners, totals.tensor, kind=kind, axis=-1)
    return totals.tensor


def tensor_sums(tensors: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the sum and the sum of squares of every tensor of ``device``, in float64."""
    return reduce_tensors(tensors, SUM, device), reduce_tensors(tensors, SUM_OF_SQUARES, device)


def signal_to_noise(total: Tensor, squares: Tensor, count: Tensor, eps: float | Tensor) -> Tensor:
    """Return the norm over the unbiased standard deviation plus ``eps``, from sums of elements and of their squares."""
    variance = (squares - total * total / count.clamp(min=1)).clamp(min=0) / (count - 1).clamp(min=1)
    deviation = torch.where(count > 1, variance, 0.0).sqrt()
    return squares.sqrt() / (deviation + eps)


def global_square_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of squares of all elements of all tensors, in float64 on the first one's device."""
    devices: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        devices.setdefault(tensor.device, []).append(tensor)
    squares = [reduce_tensors(members, SUM_OF_SQUARES, device).sum() for device, members in devices.items()]
    home = squares[0].device
    return torch.stack([square.to(home, non_blocking=True) for square in squares]).sum()


def clipping_scale(grads: Sequence[Tensor], max_norm: float, eps: float, grad_scale: Tensor | None) -> Tensor:
    """Return what the ops must divide ``grads`` by to unscale them and to clip their global norm.

    Parameters
    ----------
    grads
        All gradients of a step, at least one.
    max_norm
        The largest norm that is left as it is.
    eps
        Added to the norm that ``max_norm`` is divided by.
    grad_scale
        What the gradients were multiplied by, or None.

    Returns
    -------
    Tensor
        float32, one number: ``grad_scale / min(1, max_norm / (norm + eps))``. No host waits for it.
    """
    norm = global_square_norm(grads).sqrt()
    scale = torch.ones_like(norm) if grad_scale is None else on_device(grad_scale, norm.device).double()
    excess = (norm / scale + eps) / max_norm
    return (scale * excess.clamp(min=1)).float()
