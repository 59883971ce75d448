"""Optimizers whose rule serves a subset of each tensor's elements, with compact states: what they share.

The state of a parameter holds, beside ``"step"``, the rule's states for the chosen elements alone and ``"mask"``, one bit for
each unit in int32 words, empty where all units are chosen or none. Which are chosen is drawn by the op, on the device.

The choice is the same on any number of processes: each draws its part of the whole's. Where all processes have the same units,
states are DTensors. Where they do not, the shards of a state differ in size; they are plain tensors then, and ``"count"`` is
how many units of the whole are chosen.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from momentum import _ops
from momentum._direct import Call
from momentum.enums import Units
from momentum.optim import _checkpoint, _sharding
from momentum.optim._base import FusedOptimizer
from momentum.optim._launch import Collected, Launch, Member, Rate, Settings
from momentum.optim._options import Group
from momentum.optim._rule import Rule
from momentum.optim._subset_layout import Layout, is_split, local_place, unit_count
from momentum.optim._subset_states import dense_form, read_tensors, zeros_of

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
        layout = self._layout(param, group, place)
        for name in rule.states:
            if name not in state:
                state[name] = zeros_of(param, layout)
        if "mask" not in state:
            state["mask"] = torch.zeros(layout.mask_words, dtype=torch.int32, device=param.device)
        if "count" not in state and is_split(param, rule.axis):
            state["count"] = torch.tensor(layout.count)

    def _layout(self, param: Tensor, group: Group, place: int) -> Layout:
        """Return how the states of ``param``, at ``place`` in ``group``, lie on this process."""
        axis = self._subset_rule(group).axis
        try:
            return Layout(local_place(param, axis), self._chosen(param, group, place))
        except NotImplementedError:
            raise NotImplementedError(
                f"{type(self).__name__}: parameter {place} of its group, of shape {tuple(param.shape)}, has placements "
                f"{param.placements}, expected shards along one dimension, or two of which one is the first, that are "  # type: ignore[attr-defined]
                f"contiguous and whose {axis.name.lower()} are evenly spaced in the whole"
            ) from None

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
        known = {"step", "mask", *rule.states} | ({"count"} & values.keys())
        for name in sorted(values.keys() - known):
            raise ValueError(f"{target.name} has an unknown state {name!r}; expected {sorted(known)}")
        for name in sorted(known - values.keys()):
            raise ValueError(f"{target.name} lacks the state {name!r}; was it saved by another optimizer, or with density 1?")
        layout = self._layout(param, target.group, target.place)
        step = _checkpoint.read_step(target, values["step"])
        state = {"step": torch.tensor(step, dtype=torch.float32, device=param.device)}
        tensors = {name: values[name] for name in (*rule.states, "mask", "count") if name in values}
        return state | read_tensors(target.name, param, layout, tensors)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as :meth:`torch.optim.Optimizer.state_dict` does, by reference.

        Where processes hold different parts of a choice of units, its states are copied to DTensors that are as large as their
        parameter and zero where nothing is chosen, and so is the mask: ``torch.distributed.checkpoint`` then saves and reshards
        them. ``"count"`` is beside them. Both forms can be loaded whatever the parameters are; what other processes saved, into
        whole tensors after ``torch.distributed.checkpoint.format_utils.dcp_to_torch_save``.
        """
        saved = super().state_dict()
        params = [(param, group) for group in self.param_groups for param in group["params"]]
        for i, (param, group) in enumerate(params):
            values = saved["state"].get(i)
            if values and "count" in values:
                layout = Layout(local_place(param, self._subset_rule(group).axis), int(values["count"]))
                saved["state"][i] = dense_form(param, layout, values)
        return saved

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

    def __init__(self, members: Sequence[Member], settings: Mapping[int, Settings]) -> None:
        super().__init__(members, settings)
        self._split = [is_split(param, self._axis) for param in self._params]
        if any(self._split):
            numbers = [local_place(param, self._axis).op_numbers for param in self._params]
            self._places = {"shards": [number for four in numbers for number in four]}
        else:
            self._places = {}

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

    def repeatable(self) -> Call | None:
        """Return the call as it can be run again and again without Python, None where parameters are spread over processes.

        How many units are chosen is what it was: states of another size are refused.
        """
        if self._sharded:
            return None
        lists = [[], *([i] for i in range(len(self._keys) - 1))]
        return Call(self._rule.op, self._params, self._states, self._keys, self._defaults, self._steps, lists)

    def inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Return the positional and keyword arguments with which it is to be run."""
        if self._tensors or self._lr.is_tensor or self._weight_decay.is_tensor:
            return None
        found = [None] * len(self._keys)
        counts = self._counts([state[self._keys[1]] for state in self._states])
        return (self._params, *found, self._steps), self._arguments | {"counts": counts}

    def _counts(self, states: list[Tensor]) -> list[int]:
        """Return how many units of each parameter are chosen, by one of its states."""
        dim = 1 if self._axis == Units.COLUMNS else 0
        return [state.shape[dim] for state in states]

    def _state_names(self) -> list[str]:
        return ["step", *(name for name in self._names if name), "mask"]

    def _in_order(self, found: list[list[Tensor]]) -> list[list[Tensor]]:
        held = [state["count"] for state, split in zip(self._states, self._split, strict=True) if split]
        return [*found, held]

    def run(self, tensors: Collected, grad_scale: Tensor | None, found_inf: Tensor | None) -> Generator[Tensor]:
        """Call the op on the ``tensors`` that :meth:`collect` returned; there are no totals to share."""
        yield from ()
        params, grads, (*states, masks, held) = self._params, tensors.grads, tensors.others
        kept = iter(held)
        own = self._counts(states[0])
        counts = [int(next(kept)) if split else count for count, split in zip(own, self._split, strict=True)]
        if self._sharded:
            written = [*params, *(tensor for tensors in states for tensor in tensors)]
            grads = list(grads)
            _sharding.check_grads(params, grads)
            params, grads, *states = ([_sharding.local(tensor) for tensor in list_] for list_ in (params, grads, *states))
        device_arguments = self._device_arguments(grad_scale, found_inf)
        arguments = self._arguments | self._places | device_arguments
        _ops.step_subset_(self._rule.op, params, grads, states, masks=masks, steps=self._steps, counts=counts, **arguments)
        if self._sharded:
            increment_version(written)  # the op saw their shards, autograd sees them
        self._ran = True


def chosen_units(param: Tensor, density: float, axis: Units) -> int:
    """Return how many units of ``param`` are chosen: all of one with fewer than two dimensions, whose states are no burden."""
    units = unit_count(param.shape, axis)
    return units if param.ndim < 2 else int(units * density)
