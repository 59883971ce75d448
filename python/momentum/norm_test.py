"""Whether a batch is large enough for its gradient to be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from momentum.optim._norms import SUM_OF_SQUARES, global_square_norm, reduce_tensors


@dataclass(frozen=True)
class NormTest:
    """What :func:`norm_test` found; float64 numbers on the device of the gradients, and a bool.

    Attributes
    ----------
    variance
        Estimate of the variance of the gradient of one sample, summed over the elements.
    square_norm
        Squared norm of the gradient of the batch.
    passed
        Whether the batch is large enough.
    batch_size
        The next batch: the one given where it passed, otherwise the smallest that would have; infinite where the gradient is 0
        and its parts are not.
    """

    variance: Tensor
    square_norm: Tensor
    passed: Tensor
    batch_size: Tensor


@torch.no_grad()
def norm_test(
    grads: Sequence[Tensor],
    parts: Sequence[Sequence[Tensor]],
    *,
    batch_size: int,
    eta: float,
    group: torch.distributed.ProcessGroup | None = None,
) -> NormTest:
    r"""Compare the noise of a batch's gradient with its norm, from the gradients of equal parts of the batch.

    .. math::
        \hat\sigma^2 = \frac{b}{J} \, \frac{1}{J - 1} \sum_{j=1}^J \| g_j - g \|^2 \qquad
        \frac{\hat\sigma^2}{b} \le \eta^2 \|g\|^2 \qquad
        b \leftarrow \Big\lceil \frac{\hat\sigma^2}{\eta^2 \|g\|^2} \Big\rceil \ \text{where that fails}

    :math:`g_j` is the mean gradient of part :math:`j` of :math:`J`, of :math:`b / J` samples each: a worker's, before gradients
    are averaged over workers, or a micro-batch's. :math:`g` is their mean. Every gradient is read once; the sum is found as
    :math:`\sum \|g_j\|^2 - J \|g\|^2`, which loses what the variance of a mean is below about :math:`10^{-6}` of
    :math:`\|g\|^2`.

    Parameters
    ----------
    grads
        :math:`g`, as for :func:`~momentum.gradients.tensor_norms`; DTensors are completed over their processes.
    parts
        For each part held by this process its gradients.
    batch_size
        :math:`b`, over all processes.
    eta
        :math:`\eta > 0`: the ratio of noise to signal that is tolerated. Smaller asks for larger batches.
    group
        The processes that hold the other parts, as many each; one number is summed over them. Default: this process has all.

    Returns
    -------
    NormTest
        Nothing waits for the device; ``int(result.batch_size)`` does.

    Raises
    ------
    ValueError
        When there are fewer than two parts in all, a part has another number of gradients, or an option is out of range.
    RuntimeError
        When a tensor is of another kind.

    Notes
    -----
    The norm test of Byrd et al., "Sample size selection in optimization methods for machine learning" (2012), as AdAdaGrad (Lau
    et al., 2024) drives the batch size with. There the variance is that of single samples; from gradients of workers it is what
    DDP-Norm does (Lau et al., "Adaptive batch size schedules for distributed training of language models", 2024). The estimate
    here is the unbiased one, derived for equal parts; we have not compared its constant with the paper's.

    Examples
    --------
    >>> import torch
    >>> from momentum.gradients import norm_test
    >>> first, second = [torch.tensor([3.0, 0.0])], [torch.tensor([1.0, 0.0])]
    >>> found = norm_test([torch.tensor([2.0, 0.0])], [first, second], batch_size=8, eta=0.25)
    >>> found.variance.item(), found.passed.item(), found.batch_size.item()
    (8.0, False, 32.0)
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 < eta < math.inf:
        raise ValueError(f"eta must be a finite number > 0, got {eta}")
    count = len(parts) * (1 if group is None else torch.distributed.get_world_size(group))
    if count < 2 or not parts:
        raise ValueError(f"there are {count} parts, expected at least 2 in all and 1 on every process")
    for index, part in enumerate(parts):
        if len(part) != len(grads) or not part:
            raise ValueError(f"parts[{index}] has {len(part)} gradients, grads {len(grads)}; expected as many, at least one")
    square_norm = global_square_norm(grads)
    total = reduce_tensors([grad for part in parts for grad in part], SUM_OF_SQUARES, square_norm.device).sum()
    if group is not None:
        torch.distributed.all_reduce(total, group=group)
    noise = (total - count * square_norm).clamp(min=0) / (count * (count - 1))  # of the batch's gradient
    wanted = (batch_size * noise / (eta * eta * square_norm)).ceil()
    passed = noise <= eta * eta * square_norm
    size = torch.where(passed, float(batch_size), wanted)
    return NormTest(batch_size * noise, square_norm, passed, size)
