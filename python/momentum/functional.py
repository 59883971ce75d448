"""Losses, and operations on lists of tensors beside the steps of optimizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from momentum import _ops
from momentum.optim import _sharding

__all__ = ["extrapolate_", "reset_state_", "stablemax_cross_entropy"]

REDUCTIONS = ("mean", "sum", "none")


def stablemax_cross_entropy(logits: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    r"""Return the cross-entropy of ``target`` with StableMax in place of softmax.

    .. math::
        s(x) = \begin{cases} x + 1 & x \ge 0 \\ \frac{1}{1 - x} & x < 0 \end{cases} \qquad
        \ell = -\log \frac{s(x_y)}{\sum_j s(x_j)} = \log \Big( 1 + \frac{\sum_{j \ne y} s(x_j)}{s(x_y)} \Big)

    Softmax in float32 absorbs small terms once a logit is far ahead: the loss is then exactly 0, its gradient too, and training
    stops before it generalises. StableMax grows linearly, and the form on the right, by which loss and gradient are computed
    here, cancels nothing: float32 keeps the relative precision of both where the form on the left needs float64.

    Parameters
    ----------
    logits
        [..., classes], float32, bfloat16, float16 or float64; the classes are the last dimension.
    target
        [...], int64 or int32: the class of each row, in [0, classes), or ``ignore_index``.
    ignore_index
        The label of rows that count for nothing. Default: -100.
    reduction
        ``"mean"`` over the rows that are not ignored (NaN where there is none), ``"sum"``, or ``"none"``. Default: ``"mean"``.

    Returns
    -------
    Tensor
        One number, or with ``"none"`` the shape of ``target``; 0 for ignored rows. float64 for float64 logits, otherwise
        float32. Differentiable once by ``logits``.

    Raises
    ------
    ValueError
        When shapes do not match or ``reduction`` is unknown.
    RuntimeError
        When a dtype is another one; on the CPU, when a label is no class. On a GPU, where asking would wait for the device,
        loss and gradient of such a row are NaN.

    Notes
    -----
    Arithmetic is float32 with sums completed in float64 (float64 throughout for float64 logits), one read of the logits for the
    loss, one read and one write for the gradient. NaN in a row makes its loss and gradient NaN; an infinite logit is certain of
    its class: at the target it makes the loss 0, elsewhere infinite; minus infinity has probability 0 and gradient 0.

    Prieto et al., "Grokking at the Edge of Numerical Stability" (2025). The official code computes the form on the left in
    float64 and averages over all rows; the ``1e-30`` it adds to a number not below 1 has no effect and is left out.

    Examples
    --------
    >>> import torch
    >>> from momentum.functional import stablemax_cross_entropy
    >>> stablemax_cross_entropy(torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([0]))  # log((2 + 1 + 0.5) / 2)
    tensor(0.5596)
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if logits.dim() == 0 or logits.shape[:-1] != target.shape:
        shape = tuple(logits.shape)
        raise ValueError(f"logits has shape {shape}, target {tuple(target.shape)}; expected [..., classes] and [...]")
    labels = target.reshape(-1)
    losses: Tensor = _losses(logits.reshape(labels.numel(), logits.shape[-1]), labels, ignore_index)[0]
    if reduction == "none":
        return losses.reshape(target.shape)
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / (labels != ignore_index).sum()


def extrapolate_(params: Sequence[Tensor], previous: Sequence[Tensor], alpha: float, *, roll: bool = True) -> None:
    r"""Move parameters further along the way they came, in place.

    .. math::
        \theta \leftarrow \theta + \alpha \, (\theta - \theta_\text{previous})

    One launch for any list; 12 bytes per element in float32, 16 with ``roll``.

    Parameters
    ----------
    params
        float32, bfloat16, float16 or float64, mixed, on one device; a dense tensor each, or its DTensor.
    previous
        One per parameter, of its shape and strides; float64 only beside float64 parameters.
    alpha
        :math:`\alpha`, any finite number; 0 leaves the parameters as they are.
    roll
        Whether ``previous`` becomes the parameters from before the extrapolation, for the next call. Default: True.

    Raises
    ------
    RuntimeError
        When lists, dtypes, devices or shapes do not match, tensors share memory, or, in grad mode, one that would be written
        requires grad. Nothing is written then.

    Notes
    -----
    The outer step of accelerated preference optimization (He et al., 2024): after each round of DPO,
    :math:`\theta_{t+1} = \hat\theta_{t+1} + \alpha (\hat\theta_{t+1} - \hat\theta_t)`, Nesterov's extrapolation of a
    proximal point method. No official code was found; this is the form on parameters, and the paper's :math:`\alpha` is not
    known to us, so that there is no default.

    Examples
    --------
    >>> import torch
    >>> from momentum.functional import extrapolate_
    >>> theta, before = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 5.0])
    >>> extrapolate_([theta], [before], alpha=0.5)
    >>> theta, before
    (tensor([2.5000, 2.0000]), tensor([2., 3.]))
    """
    parts, partners = ([_sharding.local(tensor) for tensor in side] for side in (params, previous))
    if parts or partners:
        _ops.mutate("extrapolate_", [*parts, *partners] if roll else parts, parts, partners, alpha=alpha, roll=roll)


def reset_state_(states: Sequence[Tensor], steps: Sequence[Tensor] = (), *, keep_step: bool = False) -> None:
    r"""Set states to zero, in place: the momentum starts anew. One launch for any list.

    Parameters
    ----------
    states
        Dense tensors of any dtype on one device, or DTensors. Of a quantised state give codes and scales: a block whose scale
        is 0 reads as zeros.
    steps
        The step counts that belong to them.
    keep_step
        Whether ``steps`` stay: the bias corrections then go on as if nothing had happened, as SPAM's reset has it. Otherwise
        they become 0, a true restart. Default: False.

    Raises
    ------
    RuntimeError
        When a tensor has gaps, is on another device or shares memory with another one, or, in grad mode, requires grad.
        Nothing is written then.

    Notes
    -----
    Which of the two is meant makes the difference: with ``keep_step`` the first update after a reset is as small as
    :math:`1 - \beta_1` of a gradient, over a root of :math:`1 - \beta_2` of its square: about 3 times as long as usual for
    betas of 0.9 and 0.999. Building a new optimizer, as published code for periodic restarts does, is the other.

    Examples
    --------
    >>> import torch
    >>> from momentum.functional import reset_state_
    >>> exp_avg, step = torch.ones(3), torch.tensor(7.0)
    >>> reset_state_([exp_avg], [step], keep_step=True)
    >>> exp_avg, step
    (tensor([0., 0., 0.]), tensor(7.))
    """
    parts, counts = ([_sharding.local(tensor) for tensor in side] for side in (states, steps))
    if parts or counts:
        _ops.mutate("reset_state_", parts if keep_step else [*parts, *counts], parts, counts, keep_step=keep_step)


@torch.library.custom_op("momentum::stablemax_losses", mutates_args=())
def _losses(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    losses, rest = _like_losses(logits)
    _ops.call("stablemax_loss_", logits.contiguous(), target.contiguous(), losses, rest, ignore_index=ignore_index)
    return losses, rest


@torch.library.custom_op("momentum::stablemax_losses_backward", mutates_args=())
def _losses_backward(logits: Tensor, target: Tensor, grad: Tensor, rest: Tensor, ignore_index: int) -> Tensor:
    found = _like_logits(logits)
    _ops.call(
        "stablemax_grad_",
        logits.contiguous(),
        target.contiguous(),
        grad.contiguous(),
        rest,
        found,
        ignore_index=ignore_index,
    )
    return found


def _like_losses(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    rows = logits.shape[0]
    return logits.new_empty(rows, dtype=dtype), logits.new_empty(rows, dtype=torch.float64)


def _like_logits(logits: Tensor, *_: Any) -> Tensor:
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: tuple[Tensor, Tensor]) -> None:
    logits, target, ctx.ignore_index = inputs
    rest = output[1]
    ctx.mark_non_differentiable(rest)
    ctx.save_for_backward(logits, target, rest)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None, None]:
    logits, target, rest = ctx.saved_tensors
    return _losses_backward(logits, target, grad, rest, ctx.ignore_index), None, None


_losses.register_fake(_like_losses)
_losses_backward.register_fake(_like_logits)
_losses.register_autograd(_differentiate, setup_context=_save)
