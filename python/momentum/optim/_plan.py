"""What an optimizer prepares once and uses at every step, and how it notices that it must be prepared again.

Nothing a user can edit is trusted to stay as it was: parameter groups and state dictionaries are compared, by identity, with
what they were when the plan was made; parameters, gradients and states are read anew at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from momentum import _ops
from momentum._direct import CHANGED, DONE, Prepared, is_watched
from momentum._objects import same_entries, same_items
from momentum.optim._launch import Collected, Member, Settings
from momentum.optim._options import Group

if TYPE_CHECKING:
    from momentum.optim._base import FusedOptimizer

RATES = frozenset({"lr", "weight_decay"})
"""What a schedule changes at every step, and the groups of one call may differ in."""


class Entry(NamedTuple):
    """A parameter and where it is: its group, its place in the group, and its place among all parameters."""

    group: int
    place: int
    number: int
    param: Tensor


class Plan:
    """The launches of one optimizer for all of its parameters, or for one.

    Parameters
    ----------
    optimizer
        Whose parameters, groups and state.
    entries
        The parameters to step. Those without a gradient stay idle and get no state.
    whole
        Whether these are all parameters of the optimizer.

    Attributes
    ----------
    launches
        The calls of ops.
    is_step
        Whether :meth:`repeat` is all there is to a step.
    """

    def __init__(self, optimizer: FusedOptimizer, entries: Sequence[Entry], *, whole: bool) -> None:
        groups = optimizer.param_groups
        used = sorted({entry.group for entry in entries})
        self._settings = {i: optimizer.settings(groups[i]) for i in used}
        self._partition = _partition(self._settings)
        self._idle = [entry.param for entry in entries if entry.param.grad is None]
        buckets: dict[Any, list[Member]] = {}
        created: list[Tensor] = []
        try:
            for entry in entries:
                if entry.param.grad is not None:
                    self._enter(optimizer, entry, buckets, created)
            self.launches = [optimizer.make_launch(members, self._settings) for members in buckets.values()]
        except BaseException:
            for param in created:
                del optimizer.state[param]
            raise
        self._watches = {i: _GroupWatch(groups[i]) for i in used}
        self._entry = None if whole else entries[0]
        self._keys = list(optimizer.state.keys()) if whole else []
        self._states = list(optimizer.state.values()) if whole else [optimizer.state.get(entries[0].param)]
        self._prepared: Prepared | None = None
        self._inputs: tuple[Any, ...] | None = None
        self.is_step = False
        self._expected = self._expect()

    def _enter(self, optimizer: FusedOptimizer, entry: Entry, buckets: dict[Any, list[Member]], created: list[Tensor]) -> None:
        param, settings = entry.param, self._settings[entry.group]
        optimizer.check_tensors(entry.number, param)
        is_new = not optimizer.state.get(param)
        state = optimizer.state[param]
        if is_new:
            created.append(param)
        optimizer.fill_state(state, param, optimizer.param_groups[entry.group], settings, entry.place)
        key = self._partition[entry.group], param.device
        member = Member(param, entry.group, state, stream_seed(settings.seed, entry.number), is_new)
        buckets.setdefault(key, []).append(member)

    def holds(self, optimizer: FusedOptimizer) -> bool:
        """Return whether the plan still fits the optimizer, taking over numbers that were edited in the groups."""
        groups, state, entry = optimizer.param_groups, optimizer.state, self._entry
        if entry is None:
            if not same_entries(state, self._keys, self._states):
                return False
            if len(groups) != len(self._watches):
                return False
            if not all(same_items(groups[i]["params"], watch.params) for i, watch in self._watches.items()):
                return False
        elif not _is_at(entry, groups) or state.get(entry.param) is not self._states[0]:
            return False
        edited = {i: watch.edits(groups[i]) for i, watch in self._watches.items() if not watch.holds(groups[i])}
        return not edited or self._adopt(optimizer, edited)

    def _adopt(self, optimizer: FusedOptimizer, edited: dict[int, set[str]]) -> bool:
        groups = optimizer.param_groups
        settings = self._settings.copy()
        for i, names in edited.items():
            if names <= RATES:
                settings[i] = settings[i].with_rates(groups[i]["lr"], groups[i]["weight_decay"])
            else:
                settings[i] = optimizer.settings(groups[i])
            if not settings[i].same_tensors(self._settings[i]):
                return False
        if any(settings[i].key is not self._settings[i].key for i in edited) and _partition(settings) != self._partition:
            return False
        self._settings = settings
        for launch in self.launches:
            launch.update(settings)
        for i in edited:
            self._watches[i] = _GroupWatch(groups[i])
        self._expected = self._expect()
        return True

    def _expect(self) -> tuple[Any, ...]:
        """Return what a prepared step is to find in the optimizer."""
        if self._entry is None:
            return (self._keys, self._states), *(watch.expected for watch in self._watches.values())
        return None, self._watches[self._entry.group].expected[:2]

    def prepare(self, *, is_all: bool) -> None:
        """Make what :meth:`repeat` needs, where the step is of a kind that can be repeated.

        Parameters
        ----------
        is_all
            Whether the plan is all that the optimizer does in a step.
        """
        if self._prepared is not None:
            return
        calls = [call for launch in self.launches if (call := launch.repeatable()) is not None]
        if not calls or len(calls) < len(self.launches) or len({call.params[0].device.type for call in calls}) > 1:
            return
        prepared = Prepared.make(_ops.active_namespace, calls, self._idle)
        if prepared is None:
            return
        self._inputs = self._make_inputs(prepared)
        if self._inputs is not None:
            self._prepared, self.is_step = prepared, is_all

    def repeat(self, optimizer: FusedOptimizer) -> bool:
        """Run the step, if nothing but numbers in the groups has changed since the last one; return whether it was run.

        What takes the longest in a step over small tensors is Python: this is a step with as little of it as there can be.
        """
        prepared = self._prepared
        if prepared is None or is_watched() or prepared.namespace != _ops.active_namespace:
            return False
        if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
            return False
        state, groups, entry = optimizer.state, optimizer.param_groups, self._entry
        if entry is not None:
            if not _is_at(entry, groups) or state.get(entry.param) is not self._states[0]:
                return False
            groups = [groups[entry.group]]
        outcome = prepared.run(prepared.address, state, groups, self._expected, self._inputs)
        if outcome == CHANGED and self.holds(optimizer):
            self._inputs = self._make_inputs(prepared)
            if self._inputs is not None:
                outcome = prepared.run(prepared.address, state, groups, self._expected, self._inputs)
        if outcome == DONE:
            return True
        self._prepared, self.is_step = None, False  # until the step was run by parts
        return False

    def _make_inputs(self, prepared: Prepared) -> tuple[Any, ...] | None:
        inputs = [launch.inputs() for launch in self.launches]
        arguments = [prepared.arguments(i, *given) for i, given in enumerate(inputs) if given is not None]
        return None if len(arguments) < len(inputs) or None in arguments else tuple(arguments)

    def collect(self) -> list[Collected] | None:
        """Return every launch's tensors as they are now, or None where another set of gradients or states is there."""
        if any(param.grad is not None for param in self._idle):
            return None
        collected = []
        for launch in self.launches:
            tensors = launch.collect()
            if tensors is None:
                return None
            collected.append(tensors)
        return collected


class _GroupWatch:
    """A parameter group as it was."""

    def __init__(self, group: Group) -> None:
        self.params = list(group["params"])
        self._keys, self._values = list(group.keys()), list(group.values())
        self.expected = self._keys, self._values, group["params"], self.params

    def holds(self, group: Group) -> bool:
        return same_entries(group, self._keys, self._values)

    def edits(self, group: Group) -> set[str]:
        """Return the names of the options that were edited."""
        if list(group) != self._keys:
            return {*group}
        return {name for name, now, then in zip(group, group.values(), self._values, strict=True) if now is not then}


def stream_seed(seed: int, index: int) -> int:
    """Return the seed of the random stream of parameter ``index``: one splitmix64 output, so that streams are unrelated."""
    x = (seed + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return (x ^ (x >> 31)) >> 1  # non-negative as int64


def _partition(settings: dict[int, Settings]) -> dict[int, int]:
    """Return, for each group, which call it goes in."""
    numbers: dict[Any, int] = {}
    return {i: numbers.setdefault(s.key, len(numbers)) for i, s in settings.items()}


def _is_at(entry: Entry, groups: list[Group]) -> bool:
    if entry.group >= len(groups):
        return False
    params = groups[entry.group]["params"]
    return entry.place < len(params) and params[entry.place] is entry.param
