"""Training without gradients: two evaluations of the loss say how to move along noise that is drawn again, not kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from momentum import _ops
from momentum.optim import _sharding

__all__ = ["QZO"]

GOLDEN = 0x9E3779B97F4A7C15
"""By how much the keys of neighbouring tensors differ, as in the kernels."""


class QZO(Optimizer):
    r"""Zeroth-order fine-tuning of quantisation scales (or of any parameters).

    .. math::
        d = \text{clip} \Big( \frac{L(\Delta + \epsilon z) - L(\Delta - \epsilon z)}{2 \epsilon}, \pm c \Big) \qquad
        \Delta \leftarrow \max(\Delta - \eta \, d \, z, \ \text{floor}), \qquad z \sim N(0, 1)

    The weights of a quantised model stay as they are; only the scales that multiply them move. :math:`z` comes from Philox,
    keyed by ``seed`` and the number of the tensor, counted by step and element, and is drawn again in each of the three passes:
    12, 8 and 8 bytes per float32 scale, one launch each per group and device. Both sides and the update start from a copy of
    the scales that lives for the step, so that nothing drifts, whatever the dtype.

    Parameters
    ----------
    params
        The scales, or parameter groups, as in :class:`torch.optim.Optimizer`: float32, bfloat16, float16 or float64. They need
        not require grad.
    lr
        :math:`\eta`. Default: 1e-5.
    perturbation
        :math:`\epsilon > 0`. Default: 1e-3.
    clip
        :math:`c > 0`, or infinity. Default: 100.
    floor
        What no scale falls below, or None. Default: 1e-7.
    seed
        Of the noise. Default: 0.

    Raises
    ------
    ValueError
        When an option is out of its range.
    TypeError
        When a parameter is a DTensor.

    Notes
    -----
    With several processes every one must see the same losses: reduce them in the closure. The step count is part of each saved
    group; resuming draws the noise that would have come. NaN losses make NaN scales.

    Shang et al., "Fine-tuning Quantized Neural Networks with Zeroth-order Optimization" (2025), after MeZO. The official code
    for language models has these defaults and this floor (the paper has 0, the code for diffusion none). It draws with
    :func:`torch.normal`, which ``step``'s ``noise`` can reproduce, and goes back by adding, which rounds.

    Examples
    --------
    >>> import torch
    >>> from momentum.zeroth_order import QZO
    >>> scale = torch.full((4,), 2.0)
    >>> optimizer = QZO([scale], lr=0.01, perturbation=0.01)
    >>> losses = [float(optimizer.step(lambda: ((scale - 1) ** 2).sum())) for _ in range(200)]
    >>> losses[-1] < 0.01 * losses[0]
    True
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-5,
        *,
        perturbation: float = 1e-3,
        clip: float = 100.0,
        floor: float | None = 1e-7,
        seed: int = 0,
    ) -> None:
        defaults = {"lr": lr, "perturbation": perturbation, "clip": clip, "floor": floor, "seed": seed, "step": 0}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; its options are checked before anything changes."""
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(  # type: ignore[override]  # a closure is needed
        self, closure: Callable[[], Tensor | float], *, noise: Sequence[Tensor] = ()
    ) -> Tensor | float:
        r"""Evaluate the loss at both sides, and move.

        Parameters
        ----------
        closure
            Returns the loss, a number or a tensor of one; called twice, without gradients. When it raises, the parameters are
            as before.
        noise
            :math:`z`, one tensor per parameter in the order of the groups, like it in shape and strides. Default: drawn.

        Returns
        -------
        Tensor or float
            The first loss, at :math:`\Delta + \epsilon z`.
        """
        params = [param for group in self.param_groups for param in group["params"]]
        if any(_sharding.is_sharded(param) for param in params):
            raise TypeError("QZO: a parameter is a DTensor, which is not supported")
        if noise and len(noise) != len(params):
            raise ValueError(f"noise has length {len(noise)}, expected {len(params)} (one per parameter)")
        for group in self.param_groups:
            _check(group)
        lists = [_List(group, members, noise) for group, members in self._members()]
        try:
            for each in lists:
                each.perturb(1, save=True)
            first = closure()
            for each in lists:
                each.perturb(-1, save=False)
            second = closure()
        except BaseException:
            for each in lists:
                each.restore()
            raise
        for each in lists:
            each.update(first, second)
        for group in self.param_groups:
            group["step"] += 1
        return first

    def _members(self) -> list[tuple[dict[str, Any], list[tuple[int, Tensor]]]]:
        """Return what goes in one call: a group, and its parameters of one device with their numbers."""
        found = []
        number = 0
        for group in self.param_groups:
            devices: dict[torch.device, list[tuple[int, Tensor]]] = {}
            for param in group["params"]:
                devices.setdefault(param.device, []).append((number, param))
                number += 1
            found += [(group, members) for members in devices.values()]
        return found


class _List:
    """The parameters of one call, with the copies that they start from."""

    def __init__(self, group: dict[str, Any], members: list[tuple[int, Tensor]], noise: Sequence[Tensor]) -> None:
        self.group = group
        self.params = [param for _, param in members]
        self.originals: list[Tensor] = []
        self.noise = [noise[number] for number, _ in members] if noise else []
        seed = (group["seed"] + members[0][0] * GOLDEN) % 2**64
        self.drawn = {"seed": seed - 2**64 if seed >= 2**63 else seed, "step": group["step"]}

    def perturb(self, side: int, *, save: bool) -> None:
        originals = [torch.empty_like(param) for param in self.params] if save else self.originals
        size = side * self.group["perturbation"]
        _ops.mutate("zo_perturb_", self.params, self.params, originals, self.noise, size=size, save=save, **self.drawn)
        self.originals = originals

    def restore(self) -> None:
        if self.originals:
            torch._foreach_copy_(self.params, self.originals)

    def update(self, first: Tensor | float, second: Tensor | float) -> None:
        device = self.params[0].device
        losses = torch.stack([torch.as_tensor(x, dtype=torch.float64, device=device).reshape(()) for x in (first, second)])
        floor = self.group["floor"]
        _ops.mutate(
            "zo_update_",
            self.params,
            self.params,
            self.originals,
            self.noise,
            losses,
            size=self.group["perturbation"],
            lr=float(self.group["lr"]),
            clip=self.group["clip"],
            floor=-math.inf if floor is None else floor,
            **self.drawn,
        )


def _check(group: dict[str, Any]) -> None:
    if not 0 <= group["lr"] < math.inf:
        raise ValueError(f"lr must be a finite number >= 0, got {group['lr']}")
    if not 0 < group["perturbation"] < math.inf:
        raise ValueError(f"perturbation must be a finite number > 0, got {group['perturbation']}")
    if not group["clip"] > 0:
        raise ValueError(f"clip must be a number > 0, or infinity, got {group['clip']}")
    if group["floor"] is not None and not -math.inf < group["floor"] < math.inf:
        raise ValueError(f"floor must be None or a finite number, got {group['floor']}")
    if not isinstance(group["seed"], int) or not 0 <= group["seed"] < 2**63:
        raise ValueError(f"seed must be an integer in [0, 2**63), got {group['seed']!r}")
