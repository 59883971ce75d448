"""Optimizers whose rule serves a subset of each tensor's elements, with compact states: what they share.

The state of a parameter holds, beside ``"step"``, the rule's states for the chosen elements alone and ``"mask"``, one bit for
each unit in int32 words, empty where all units are chosen or none. Which are chosen is drawn by the op, on the device.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from momentum import _ops
from momentum.enums import Units
from momentum.optim import _checkpoint, _sharding
from momentum.optim._base import FusedOptimizer
from momentum.optim._launch import Launch, Member, Rate, Settings
from momentum.optim._options import Group
from momentum.optim._rule import Rule

UNSUPPORTED: dict[str, Any] = {"ema_decay": None, "compensation": None, "rounding": "nearest", "orthograd": False}
"""Common options that steps on a subset do not have, and what they must be."""


@dataclass(frozen=True)
class SubsetRule(Rule):
    """The op behind steps on a subset.

    Attributes
    ----------
    axis
        The units that are chosen: elements, columns or rows.
    decays
        Whether weight decay is applied at all.
    """

    axis: Units = Units.ELEMENTS
    decays: bool = True


class SubsetOptimizer(FusedOptimizer):
    """The base of optimizers some of whose groups are stepped on a subset: those whose rule is a :class:`SubsetRule`."""

    def _chosen(self, param: Tensor, group: Group, place: int) -> int:
        """Return how many units of ``param``, at ``place`` in ``group``, are chosen."""
        return chosen_units(param, group["density"], self._subset_rule(group).axis)

    def _subset_rule(self, group: Group) -> SubsetRule:
        rule = self._rule_of(group)
        assert isinstance(rule, SubsetRule)
        return rule

    def fill_state(self, state: dict[str, Any], param: Tensor, group: Group, settings: Settings, place: int) -> None:
        """Add to ``state`` what ``param``, at ``place`` in ``group``, needs and does not have yet."""
        rule = settings.rule
        if not isinstance(rule, SubsetRule):
            super().fill_state(state, param, group, settings, place)
            return
        if _sharding.is_sharded(param):
            raise NotImplementedError(
                f"{type(self).__name__}: parameter {place} of its group is a DTensor, and states of a subset are kept for "
                "whole tensors only: give this group states for all elements"
            )
        count = self._chosen(param, group, place)
        for name in rule.states:
            if name not in state:
                state[name] = torch.zeros(state_shape(param, count, rule.axis), dtype=torch.float32, device=param.device)
        if "mask" not in state:
            state["mask"] = torch.zeros(mask_words(param, count, rule.axis), dtype=torch.int32, device=param.device)

    def make_launch(self, members: Sequence[Member], settings: Mapping[int, Settings]) -> Launch:
        """Return the call that steps ``members``, given the settings of their groups."""
        if isinstance(settings[members[0].group].rule, SubsetRule):
            return SubsetLaunch(members, settings)
        return super().make_launch(members, settings)

    def read_state(self, target: _checkpoint.Target, values: dict[str, Any]) -> dict[str, Any]:
        """Return the saved state of one parameter, checked and on its device."""
        rule, param = target.settings.rule, target.param
        if not isinstance(rule, SubsetRule):
            return super().read_state(target, values)
        known = {"step", "mask", *rule.states}
        for name in sorted(values.keys() - known):
            raise ValueError(f"{target.name} has an unknown state {name!r}; expected {sorted(known)}")
        for name in sorted(known - values.keys()):
            raise ValueError(f"{target.name} lacks the state {name!r}; was it saved by another optimizer, or with density 1?")
        count = self._chosen(param, target.group, target.place)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(rule.states, state_shape(param, count, rule.axis))
        shapes["mask"] = (mask_words(param, count, rule.axis),)
        step = _checkpoint.read_step(target, values["step"])
        state = {"step": torch.tensor(step, dtype=torch.float32, device=param.device)}
        for name, shape in shapes.items():
            dtype = torch.int32 if name == "mask" else torch.float32
            found = tuple(values[name].shape), values[name].dtype
            if found != (shape, dtype):
                raise ValueError(
                    f"{target.name}: state {name!r} has shape {found[0]} and dtype {found[1]}, expected {shape} and {dtype}"
                )
            state[name] = values[name].detach().to(param.device).contiguous()
        return state

    def _check_subset_options(self, group: Group) -> None:
        """Raise where a common option of a group that is stepped on a subset is one that these steps do not have."""
        for name, value in UNSUPPORTED.items():
            if group.get(name, value) != value:
                raise ValueError(f"{name} must be {value!r} for states of a subset, got {group[name]!r}")
        if group.get("cautious") == "rescaled":
            raise ValueError("cautious must be False or True for states of a subset, got 'rescaled'")
        if group.get("state_format") not in (None, "fp32", torch.float32):
            raise ValueError(f"state_format must be None or 'fp32' for states of a subset, got {group['state_format']!r}")


class SubsetLaunch(Launch):
    """The members of one call of an op on subsets."""

    def update(self, settings: Mapping[int, Settings]) -> None:
        """Take over the numbers of ``settings``; the tensors stay."""
        super().update(settings)
        assert isinstance(self._rule, SubsetRule)
        self._axis = self._rule.axis
        if not self._rule.decays:
            self._weight_decay = Rate([(0.0, len(self._members))])
            self._arguments["weight_decay"] = self._weight_decay.numbers
        if "cautious" in self._arguments:
            self._arguments["cautious"] = True
        self._arguments |= {"axis": int(self._axis), "seeds": [member.seed for member in self._members]}

    def collect(self) -> list[list[Tensor]] | None:
        """Return gradients, states and masks as they are now; None where the launch is stale."""
        lists = super().collect()
        if lists is None:
            return None
        try:
            masks = [state["mask"] for state in self._states]
        except KeyError:
            return None
        return [*lists[: 1 + len(self._names)], masks]

    def run(self, lists: list[list[Tensor]], grad_scale: Tensor | None, found_inf: Tensor | None) -> Generator[Tensor]:
        """Call the op on the ``lists`` that :meth:`collect` returned; there are no totals to share."""
        yield from ()
        grads, *states, masks = lists
        counts = [state.shape[1 if self._axis == Units.COLUMNS else 0] for state in states[0]]
        device_arguments = self._device_arguments(grad_scale, found_inf)
        op = f"{self._rule.op}_"
        _ops.call(op, self._params, grads, *states, masks, self._steps, counts=counts, **self._arguments, **device_arguments)
        increment_version([*self._params, *(tensor for tensors in states for tensor in tensors), *masks, self._steps])
        self._ran = True


def _matrix(param: Tensor, axis: Units) -> tuple[int, int]:
    if axis == Units.ELEMENTS or param.ndim == 0:
        return 1, param.numel()
    return param.shape[0], prod(param.shape[1:])


def _units(param: Tensor, axis: Units) -> int:
    rows, cols = _matrix(param, axis)
    return rows if axis == Units.ROWS else cols


def chosen_units(param: Tensor, density: float, axis: Units) -> int:
    """Return how many units of ``param`` are chosen: all of one with fewer than two dimensions, whose states are no burden."""
    return _units(param, axis) if param.ndim < 2 else int(_units(param, axis) * density)


def state_shape(param: Tensor, count: int, axis: Units) -> tuple[int, ...]:
    """Return the shape of a state of ``count`` units."""
    rows, cols = _matrix(param, axis)
    return {Units.ELEMENTS: (count,), Units.COLUMNS: (rows, count), Units.ROWS: (count, cols)}[axis]


def mask_words(param: Tensor, count: int, axis: Units) -> int:
    """Return how many int32 hold a bit for each unit of ``param``."""
    units = _units(param, axis)
    return 0 if count in (0, units) else -(-units // 32)
