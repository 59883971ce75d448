"""Statistics of gradients, or of any lists of tensors: norms, clipping, signal to noise, agreement of signs.

Beside them, gradient surgery over tasks. Each statistic reads its tensors once or twice, in one launch a pass whatever their
number, and leaves its answer on their device: nothing waits for it. Sums are accumulated so that their error does not grow with
size, and are the same from run to run. Tensors may be :class:`~torch.distributed.tensor.DTensor`, whose parts are summed over
their processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from momentum.norm_test import NormTest, norm_test
from momentum.optim._norms import (
    AGREEMENT,
    SUM_OF_SQUARES,
    global_square_norm,
    reduce_tensors,
    signal_to_noise,
    tensor_sums,
)
from momentum.samgs import SAMGS

__all__ = [
    "SAMGS",
    "NormTest",
    "clip_norm_",
    "global_norm",
    "norm_test",
    "sign_agreement",
    "signal_to_noise_ratios",
    "tensor_norms",
]


@torch.no_grad()
def tensor_norms(tensors: Sequence[Tensor]) -> Tensor:
    """Return the l2 norm of every tensor.

    Parameters
    ----------
    tensors
        float32, bfloat16, float16 or float64, of any shapes, dense, on one device.

    Returns
    -------
    Tensor
        float64, one number per tensor, on their device. The norm of an empty tensor is 0.

    Raises
    ------
    RuntimeError
        When a tensor is of another kind.

    Examples
    --------
    >>> import torch, momentum.gradients
    >>> momentum.gradients.tensor_norms([torch.tensor([3.0, 4.0]), torch.ones(2, 2)])
    tensor([5., 2.], dtype=torch.float64)
    """
    return reduce_tensors(tensors, SUM_OF_SQUARES, _device(tensors)).sqrt()


@torch.no_grad()
def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the l2 norm of all tensors together.

    Parameters
    ----------
    tensors
        At least one, as for :func:`tensor_norms`, but on any devices.

    Returns
    -------
    Tensor
        float64, one number, on the device of the first.

    Raises
    ------
    RuntimeError
        When a tensor is of another kind.
    ValueError
        When there is none.
    """
    _device(tensors)
    return global_square_norm(tensors).sqrt()


@torch.no_grad()
def clip_norm_(params: Iterable[Tensor], max_norm: float, eps: float = 1e-6) -> Tensor:
    r"""Scale the gradients of ``params``, in place, so that their norm together is at most ``max_norm``.

    .. math::
        g \leftarrow g \min \left( 1, \frac{\text{max\_norm}}{\|g\|_2 + \epsilon} \right)

    Parameters
    ----------
    params
        Parameters; those without a gradient are left alone.
    max_norm
        At least 0.
    eps
        :math:`\epsilon \ge 0`. Default: 1e-6, as in :func:`torch.nn.utils.clip_grad_norm_`.

    Returns
    -------
    Tensor
        float64: the norm before, 0 where there is no gradient.

    Raises
    ------
    RuntimeError
        When a gradient is of a kind that :func:`tensor_norms` refuses.
    ValueError
        When ``max_norm`` or ``eps`` is negative or no number.

    Notes
    -----
    Norm and factor are float64. An infinite norm makes all gradients 0 or NaN, and NaN makes all NaN, as in torch.
    """
    for name, value in (("max_norm", max_norm), ("eps", eps)):
        if not value >= 0:
            raise ValueError(f"{name} must be a number >= 0, got {value}")
    grads = [param.grad for param in params if param.grad is not None]
    if not grads:
        return torch.zeros((), dtype=torch.float64)
    norm = global_norm(grads)
    factor = (max_norm / (norm + eps)).clamp(max=1)
    devices: dict[torch.device, list[Tensor]] = {}
    for grad in grads:
        devices.setdefault(grad.device, []).append(grad)
    for device, members in devices.items():
        torch._foreach_mul_(members, factor.to(device, non_blocking=True))
    return norm


@torch.no_grad()
def signal_to_noise_ratios(tensors: Sequence[Tensor], eps: float = 1e-8) -> Tensor:
    """Return for every tensor its l2 norm over the standard deviation of its elements.

    Parameters
    ----------
    tensors
        As for :func:`tensor_norms`.
    eps
        Added to the deviation, which is 0 for one element. Default: 1e-8.

    Returns
    -------
    Tensor
        float64, one number per tensor.

    Raises
    ------
    RuntimeError
        When a tensor is of another kind.

    Notes
    -----
    Xu et al., "No More Adam: Learning Rate Scaling at Initialization is All You Need" (2024): what
    :class:`~momentum.optim.SGDSaI` scales its learning rates by. The deviation is the unbiased one, from two sums.
    """
    device = _device(tensors)
    counts = torch.tensor([float(tensor.numel()) for tensor in tensors], dtype=torch.float64, device=device)
    return signal_to_noise(*tensor_sums(tensors, device), counts, eps)


@torch.no_grad()
def sign_agreement(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """Return for every pair of tensors the share of elements that have the same sign, other than 0, in both.

    Parameters
    ----------
    xs, ys
        As for :func:`tensor_norms`, as many, of equal shapes and strides by pairs.

    Returns
    -------
    Tensor
        float64, one number per pair; NaN for empty tensors and where an element is NaN.

    Raises
    ------
    RuntimeError
        When the lists do not match, or a tensor is of another kind.

    Examples
    --------
    >>> import torch, momentum.gradients
    >>> momentum.gradients.sign_agreement([torch.tensor([1.0, -2.0, 0.0, 3.0])], [torch.tensor([2.0, -1.0, 0.0, -1.0])])
    tensor([0.5000], dtype=torch.float64)
    """
    device = _device(xs)
    counts = torch.tensor([float(tensor.numel()) for tensor in xs], dtype=torch.float64, device=device)
    return reduce_tensors(xs, AGREEMENT, device, ys) / counts


def _device(tensors: Sequence[Tensor]) -> torch.device:
    if not tensors:
        raise ValueError("there is no tensor to reduce")
    return tensors[0].device
