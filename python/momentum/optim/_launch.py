"""One call of an op: which tensors go in it, and with which arguments."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from momentum import _direct, _objects, _ops
from momentum._objects import Gradients
from momentum.enums import Cautious, Residual, Rounding
from momentum.optim import _sharding
from momentum.optim._options import SCALE, check_rates
from momentum.optim._rule import Reduction, Rule
from momentum.optim._totals import Totals
from momentum.quant.formats import StateFormat

RESIDUAL_NAMES = {Residual.KAHAN: "compensation", Residual.MASTER: "master_param", Residual.LOW_BITS: "low_bits"}
CAUTIOUS_COUNT = Reduction("sum", mean=True)


@dataclass(frozen=True)
class Settings:
    """What one parameter group asks of an op.

    Attributes
    ----------
    rule
        The op.
    states
        Which of the rule's states are kept.
    formats
        For each of the rule's states, how it is quantised where it is.
    lr, weight_decay
        Numbers or tensors; the groups of one call may differ in them.
    arguments
        The other keyword arguments, the same for all groups of a call. Hyper-parameters may be tensors.
    residual
        What is kept beside parameters of low precision.
    ema
        Whether the average of the weights is kept.
    seed
        From which the seeds of the group's parameters derive.
    """

    rule: Rule
    states: tuple[str, ...]
    formats: tuple[StateFormat | None, ...]
    lr: float | Tensor
    weight_decay: float | Tensor
    arguments: dict[str, Any]
    residual: Residual
    ema: bool
    seed: int

    @cached_property
    def key(self) -> Hashable:
        """Groups with equal keys can go in one call."""
        arguments = tuple((k, id(v) if isinstance(v, Tensor) else v) for k, v in self.arguments.items())
        kinds = isinstance(self.lr, Tensor), isinstance(self.weight_decay, Tensor)
        return self.rule, self.states, self.formats, self.residual, self.ema, kinds, arguments

    def with_rates(self, lr: float | Tensor, weight_decay: float | Tensor) -> Settings:
        """Return the settings with another learning rate and weight decay."""
        check_rates(lr, weight_decay)
        changed = replace(self, lr=lr, weight_decay=weight_decay)
        if (type(lr), type(weight_decay)) == (type(self.lr), type(self.weight_decay)):
            changed.__dict__["key"] = self.key  # does not contain the numbers; hashing it anew costs more than the rest
        return changed

    @property
    def cautious(self) -> Cautious:
        """What the op does with entries that disagree with the gradient."""
        return Cautious(self.arguments.get("cautious", Cautious.OFF))

    @property
    def perpendicular(self) -> bool:
        """Whether the op looks for the perpendicular part of gradients first."""
        return "perpendicular" in self.arguments

    def residual_of(self, param: Tensor) -> Residual:
        """Return what is kept beside ``param``."""
        narrow = (torch.bfloat16,) if self.residual == Residual.LOW_BITS else (torch.bfloat16, torch.float16)
        return self.residual if param.dtype in narrow else Residual.NONE

    def same_tensors(self, other: Settings) -> bool:
        """Return whether the same tensors are needed under ``other``, so that a plan survives the change."""
        names = ("rule", "states", "formats", "residual", "ema", "seed", "cautious", "perpendicular")
        return all(getattr(self, name) == getattr(other, name) for name in names)


class Member(NamedTuple):
    """One tensor of a launch: its parameter, the group it belongs to, its state, its seed, and whether the state is new."""

    param: Tensor
    group: int
    state: dict[str, Any]
    seed: int
    is_new: bool


class Collected(NamedTuple):
    """What a launch reads anew at every step: the gradients, and the other lists of tensors in the op's order."""

    grads: list[Tensor] | Gradients
    others: list[list[Tensor]]


class Launch:
    """The members of one call and everything about them that does not change from step to step."""

    def __init__(self, members: Sequence[Member], settings: Mapping[int, Settings]) -> None:
        first = settings[members[0].group]
        self._rule = first.rule
        self._members = members
        self._runs = [(group, len(list(run))) for group, run in groupby(member.group for member in members)]
        self._params = [member.param for member in members]
        self._states = [member.state for member in members]
        self._device = self._params[0].device
        self._has_residual = [first.residual_of(param) != Residual.NONE for param in self._params]
        self._residual = first.residual if any(self._has_residual) else Residual.NONE
        self._empty = torch.empty(0, device=self._device)
        self._names = [name if name in first.states else None for name in first.rule.states]
        self._scale_names = [
            name + SCALE for name, quantised in zip(self._names, first.formats, strict=True) if name and quantised
        ]
        self._ema = first.ema
        self._sharded = any(map(_sharding.is_sharded, self._params))
        self._keys = self._state_names()
        self._defaults = [self._empty if name in self._scale_names else None for name in self._keys]

        reductions = [*first.rule.reductions]
        if first.cautious == Cautious.RESCALED:
            reductions.append(CAUTIOUS_COUNT)
        self._totals = Totals(self._params, reductions, self._device, perpendicular=first.perpendicular)
        # What the choice of tensors above rests on and module.to() or `p.data = ...` can change.
        self._dtypes = [p.dtype for p in self._params] if first.residual != Residual.NONE else []
        self._shapes = [p.shape for p in self._params] if any(r.axis >= 0 for r in reductions) else []
        self._ran = False
        self.update(settings)
        self._pack_steps()

    def _pack_steps(self) -> None:
        """Move the step counts into one tensor and make every ``state["step"]`` a view of it.

        The op reads and writes that tensor alone. Its last element is the launch's own and not a count.
        """
        steps = torch.zeros(len(self._states) + 1, dtype=torch.float32, device=self._device)
        counts = [state.get("step", 0.0) for state in self._states]
        if any(isinstance(count, Tensor) for count in counts):
            tensors = [torch.as_tensor(_sharding.local(c), dtype=torch.float32, device=self._device) for c in counts]
            steps[:-1] = torch.stack([tensor.reshape(()) for tensor in tensors])
        else:
            steps[:-1] = torch.tensor(counts)
        views = steps.unbind()
        for state, view in zip(self._states, views, strict=False):
            state["step"] = view
        self._steps = steps

    def update(self, settings: Mapping[int, Settings]) -> None:
        """Take over the numbers of ``settings``; the tensors stay."""
        first = settings[self._runs[0][0]]
        self._lr = Rate([(settings[group].lr, count) for group, count in self._runs])
        self._weight_decay = Rate([(settings[group].weight_decay, count) for group, count in self._runs])
        self._arguments = {k: v for k, v in first.arguments.items() if not isinstance(v, Tensor)}
        self._arguments |= {"lr": self._lr.numbers, "weight_decay": self._weight_decay.numbers}
        if self._scale_names:
            numbers = [
                f.op_numbers() if f and name in first.states else [0, 0, 0, 0]
                for name, f in zip(first.rule.states, first.formats, strict=True)
            ]
            self._arguments["state_formats"] = [number for four in numbers for number in four]
        if self._residual != Residual.NONE:
            self._arguments["residual"] = int(self._residual)
        self._tensors = {f"{k}_tensor": v for k, v in first.arguments.items() if isinstance(v, Tensor)}
        draws = any(f is not None and f.rounding == "stochastic" for f in first.formats)
        if draws or first.arguments.get("rounding") == Rounding.STOCHASTIC:
            self._arguments["seeds"] = [member.seed for member in self._members]
            if self._sharded:
                self._arguments["shards"] = [n for p in self._params for n in _sharding.philox_layout(p)]

    def _state_names(self) -> list[str]:
        """Return what is read of every state dictionary at each step, the step counts first; only scales may be missing."""
        names = ["step", *(name for name in self._names if name), *self._scale_names]
        return names + ["ema"] * self._ema + ["scalars"] * bool(self._rule.scalars)

    def collect(self) -> Collected | None:
        """Return gradients, states, scales, residuals, averages and scalars as they are now; None where the launch is stale.

        Everything is read anew from ``param.grad`` and the state dictionaries: whatever the user put there is what is
        used. Only the step counts are held here, so it is checked that the user's are still the ones held.
        """
        params = self._params
        grads = _objects.gradients(params, self._device.type)
        if grads is None:
            return None
        if self._dtypes and [p.dtype for p in params] != self._dtypes:
            return None
        if self._shapes and [p.shape for p in params] != self._shapes:
            return None
        try:
            found = _objects.states(self._states, self._keys, self._defaults, self._steps)
            return None if found is None else Collected(grads, self._in_order(found))
        except (KeyError, AttributeError):
            return None

    def _in_order(self, found: list[list[Tensor]]) -> list[list[Tensor]]:
        """Return the lists after the gradients in the op's order, given those of all names but the first."""
        lists = iter(found)
        return [
            *(next(lists) if name else [] for name in self._names),
            [scale for _ in self._scale_names for scale in next(lists)],
            self._residuals(),
            next(lists) if self._ema else [],
            next(lists) if self._rule.scalars else [],
        ]

    def _residuals(self) -> list[Tensor]:
        if self._residual == Residual.NONE:
            return []
        name = RESIDUAL_NAMES[self._residual]
        pairs = zip(self._states, self._has_residual, strict=True)
        return [state[name] if has_residual else self._empty for state, has_residual in pairs]

    def run(self, tensors: Collected, grad_scale: Tensor | None, found_inf: Tensor | None) -> Generator[Tensor]:
        """Call the op on the ``tensors`` that :meth:`collect` returned; yield totals that all launches of the step share."""
        params, grads, others = self._params, tensors.grads, tensors.others
        if self._sharded:
            grads = list(grads)
            _sharding.check_grads(params, grads)
            params, grads, *others = ([_sharding.local(tensor) for tensor in list_] for list_ in (params, grads, *others))
        *states, scales, residuals, ema_params, scalars = others
        arguments = self._arguments | self._device_arguments(grad_scale, found_inf)
        for stage in self._totals.stages():
            if isinstance(stage, Tensor):
                yield stage
                continue
            _ops.step_(
                self._rule.op,
                params,
                grads,
                states,
                scales=scales,
                residuals=residuals,
                ema_params=ema_params,
                scalars=scalars,
                steps=self._steps,
                totals=self._totals.tensor,
                **arguments,
                **stage,
            )
        if self._sharded:
            increment_version(self._params)  # the op saw their shards, autograd sees them
        self._ran = True

    def _device_arguments(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> dict[str, Tensor]:
        """Return the arguments that are tensors, as they are now."""
        device = self._device
        arguments = {name: on_device(tensor, device) for name, tensor in self._tensors.items()}
        for name, rate in (("lr_tensor", self._lr), ("weight_decay_tensor", self._weight_decay)):
            if rate.is_tensor:
                arguments[name] = rate.tensor(device)
        for name, scalar in (("grad_scale", grad_scale), ("found_inf", found_inf)):
            if scalar is not None:
                arguments[name] = on_device(scalar, device).float()
        return arguments

    def repeatable(self) -> _direct.Call | None:
        """Return the call as it can be run again and again without Python.

        None where it cannot: tensors are made anew for it at each step, or totals completed.
        """
        partly = bool(self._dtypes) and not all(self._has_residual)
        if self._sharded or self._totals.is_staged or partly:
            return None
        residuals = [RESIDUAL_NAMES[self._residual]] if self._residual != Residual.NONE else []
        names, defaults = self._keys + residuals, self._defaults + [None] * len(residuals)
        place = {name: i for i, name in enumerate(names[1:])}
        own = [[name] if name else [] for name in self._names]
        ends = [residuals, ["ema"] * self._ema, ["scalars"] * bool(self._rule.scalars)]
        found = [[place[name] for name in list_] for list_ in (*own, self._scale_names, *ends)]
        self._lists: list[list[Tensor] | None] = [None if list_ else [] for list_ in found]
        lists = [[], *(list_ for list_ in found if list_)]
        return _direct.Call(self._rule.op, self._params, self._states, names, defaults, self._steps, lists)

    def inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Return the positional and keyword arguments with which the call that :meth:`repeatable` returned is to be run.

        None where some of them are tensors made at each step.
        """
        if self._tensors or self._lr.is_tensor or self._weight_decay.is_tensor:
            return None
        return (self._params, None, *self._lists, self._steps, self._totals.tensor), self._arguments

    def discard(self, state: dict[Tensor, Any]) -> None:
        """Remove from the optimizer's ``state`` what was made for a first step that was then refused."""
        for member in self._members:
            if member.is_new and not self._ran:
                state.pop(member.param, None)


class Rate:
    """A learning rate or weight decay, one per tensor of a launch: numbers, or tensors that are read at each step."""

    def __init__(self, runs: list[tuple[float | Tensor, int]]) -> None:
        self._sources = list({id(value): value for value, _ in runs if isinstance(value, Tensor)}.values())
        self.numbers = [0.0]
        if self._sources:
            places = {id(source): i for i, source in enumerate(self._sources)}
            self._index = torch.tensor([places[id(value)] for value, count in runs for _ in range(count)])
        elif len({value for value, _ in runs}) == 1:
            self.numbers = [float(runs[0][0])]
        else:
            self.numbers = [number for value, count in runs for number in [float(value)] * count]

    @property
    def is_tensor(self) -> bool:
        """Whether the values are tensors."""
        return bool(self._sources)

    def tensor(self, device: torch.device) -> Tensor:
        """Return the current values on ``device``, 0-dimensional where all tensors share one."""
        sources = [on_device(source, device) for source in self._sources]
        if len(sources) == 1:
            return sources[0]
        self._index = self._index.to(device)
        return torch.stack(sources).index_select(0, self._index)


def on_device(number: Tensor, device: torch.device) -> Tensor:
    """Return a one-element tensor as an op reads it: 0-dimensional, float32 or float64, on ``device``."""
    number = _sharding.replicated(number)
    dtype = number.dtype if number.dtype == torch.float64 else torch.float32
    return number.to(device, dtype, non_blocking=True).reshape(())
