"""Gradient surgery for several tasks that share parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from momentum import _ops
from momentum.optim import _sharding
from momentum.optim._norms import SUM_OF_SQUARES, reduce_tensors

MOST_TASKS = 64


class SAMGS:
    r"""Combine the gradients of several tasks by how similar they are in magnitude (SAM-GS).

    With the norms :math:`n_i` of the gradients :math:`g_i` of :math:`T` tasks, over all shared parameters,

    .. math::
        S &= \underset{i < j}{\text{mean}} \ \frac{2 n_i n_j}{n_i^2 + n_j^2} \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) (1 - S)^2 + 10^{-8} \qquad
        m_i \leftarrow \beta_1 m_i + (1 - \beta_1) g_i \\
        g &= T \sum_i \begin{cases}
        g_i \, \bar n / n_i & S < \gamma \quad \text{(equalise)} \\
        g_i \, |\hat m_i| / \sqrt{\hat v} & \text{otherwise (modulate)} \end{cases}

    with bias corrections as in Adam. Which branch counts is decided on the device. Three launches whatever the number of tasks
    and parameters: the norms, the decision, and one pass that reads every gradient and average once; 16 T + 4 bytes per float32
    element in all.

    Parameters
    ----------
    beta1, beta2
        In [0, 1). Defaults: 0.9, 0.99.
    gamma
        :math:`\gamma \ge 0`; 0 never equalises, above 1 always. Default: 0.1.

    Attributes
    ----------
    similarity
        :math:`S` of the last call, float64 on the device of the parameters; None before.

    Raises
    ------
    ValueError
        When an option is out of its range.

    Notes
    -----
    Borsani et al., "Gradient Similarity Surgery in Multi-Task Deep Learning" (2025), as in the official code for supervised
    tasks. Different here: a task whose gradient is 0 has no part in the sum, where the code divides 0 by 0; two such tasks are
    as similar as can be, 1. The averages are float32 (float64 beside float64 parameters). A NaN or infinity in a gradient makes
    the result, its average and, through the norms, :math:`v` NaN, for good: leave such steps out before.

    Examples
    --------
    >>> import torch
    >>> from momentum.gradients import SAMGS
    >>> surgery = SAMGS(gamma=0.9)
    >>> surgery.combine([[torch.tensor([3.0, 0.0])], [torch.tensor([0.0, 1.0])]])  # similarity 0.6: both get norm 2, twice
    [tensor([4., 4.])]
    """

    def __init__(self, *, beta1: float = 0.9, beta2: float = 0.99, gamma: float = 0.1) -> None:
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be a number in [0, 1), got {value}")
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma must be a finite number >= 0, got {gamma}")
        self.beta1, self.beta2, self.gamma = beta1, beta2, gamma
        self.similarity: Tensor | None = None
        self._exp_avgs: list[Tensor] = []  # task by task
        self._state: Tensor | None = None  # v, completed steps

    @torch.no_grad()
    def combine(self, grads: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return one gradient per shared parameter.

        Parameters
        ----------
        grads
            For each of 2 to 64 tasks its gradients by the shared parameters, in the same order each time: dense, float32,
            bfloat16, float16 or float64, on one device, alike in shape, strides and dtype from task to task; or DTensors.

        Returns
        -------
        list of Tensor
            New tensors, each like the first task's gradient.

        Raises
        ------
        ValueError
            When the number of tasks or of gradients is another one than it must be, or than before.
        RuntimeError
            When tensors do not match. The averages have not changed then.
        """
        tasks = len(grads)
        if not 2 <= tasks <= MOST_TASKS:
            raise ValueError(f"grads has {tasks} tasks, expected 2 to {MOST_TASKS}")
        count = len(grads[0])
        for task, members in enumerate(grads):
            if len(members) != count or count == 0:
                raise ValueError(f"task {task} has {len(members)} gradients, task 0 {count}; expected as many, at least one")
        flat = [grad for members in grads for grad in members]
        device = flat[0].device
        fresh = self._state is None
        exp_avgs = [torch.zeros_like(g, dtype=_average_dtype(g)) for g in flat] if fresh else self._exp_avgs
        if len(exp_avgs) != len(flat):
            raise ValueError(f"grads has {len(flat)} gradients in all, {len(exp_avgs)} were given before")
        state = torch.zeros(2, dtype=torch.float64, device=device) if self._state is None else self._state
        weights = torch.empty(tasks + 2, dtype=torch.float64, device=device)
        outs = [torch.empty_like(grad) for grad in grads[0]]
        parts, averages, combined = ([_sharding.local(x) for x in side] for side in (flat, exp_avgs, outs))
        _check(parts, averages, count)
        squares = reduce_tensors(flat, SUM_OF_SQUARES, device)
        options = {"tasks": tasks, "beta1": self.beta1}
        _ops.mutate("samgs_weights_", [state], squares, state, weights, beta2=self.beta2, gamma=self.gamma, **options)
        _ops.mutate("samgs_", averages, combined, averages, parts, weights, **options)
        self._exp_avgs, self._state, self.similarity = exp_avgs, state, weights[tasks + 1]
        return outs

    def backward(self, losses: Sequence[Tensor], shared: Sequence[Tensor]) -> None:
        """Differentiate every loss and add the combined gradient to ``grad`` of the shared parameters.

        Other parameters, such as the heads of single tasks, get the sum of their gradients, as by ``sum(losses).backward()``.

        Parameters
        ----------
        losses
            One per task.
        shared
            The shared parameters, in the same order each time. One that a loss does not reach has the gradient 0.

        Raises
        ------
        ValueError, RuntimeError
            As :meth:`combine`.
        """
        before = [param.grad for param in shared]
        grads: list[list[Tensor]] = []
        try:
            for task, loss in enumerate(losses):
                for param in shared:
                    param.grad = None
                loss.backward(retain_graph=task + 1 < len(losses))  # type: ignore[no-untyped-call]
                grads.append([torch.zeros_like(param) if param.grad is None else param.grad for param in shared])
        finally:
            for param, grad in zip(shared, before, strict=True):
                param.grad = grad
        for param, grad in zip(shared, self.combine(grads), strict=True):
            param.grad = grad if param.grad is None else param.grad + grad

    def state_dict(self) -> dict[str, Any]:
        """Return the averages, task by task, and ``v`` with the completed steps, by reference."""
        return {"exp_avgs": list(self._exp_avgs), "state": self._state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned; tensors are copied."""
        state = state_dict["state"]
        self._exp_avgs = [average.clone() for average in state_dict["exp_avgs"]]
        self._state = None if state is None else state.clone()


def _average_dtype(grad: Tensor) -> torch.dtype:
    return torch.float64 if grad.dtype == torch.float64 else torch.float32


def _alike(a: Tensor, b: Tensor) -> bool:
    strides = zip(a.shape, a.stride(), b.stride(), strict=True) if a.shape == b.shape else ()
    return a.shape == b.shape and (a.numel() == 0 or all(size == 1 or x == y for size, x, y in strides))


def _check(grads: Sequence[Tensor], averages: Sequence[Tensor], count: int) -> None:
    """Raise where the second op would refuse, before the first one writes."""
    for index, (grad, average) in enumerate(zip(grads, averages, strict=True)):
        first = grads[index % count]
        task, place = divmod(index, count)
        if not _alike(grad, first) or grad.dtype != first.dtype:
            raise RuntimeError(
                f"grads[{task}][{place}] is {grad.dtype}, {tuple(grad.shape)} by {grad.stride()}; expected {first.dtype}, "
                f"{tuple(first.shape)} by {first.stride()} like grads[0][{place}]"
            )
        if not _alike(grad, average) or average.dtype != _average_dtype(grad):
            raise RuntimeError(
                f"grads[{task}][{place}] is {grad.dtype}, {tuple(grad.shape)} by {grad.stride()}; its average is "
                f"{average.dtype}, {tuple(average.shape)} by {average.stride()}"
            )
