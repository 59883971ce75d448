"""The base of all optimizers of this package: everything but the rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, ClassVar, ParamSpec, TypeVar, cast, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.compiler import is_compiling
from torch.optim.optimizer import ParamsT

from momentum.optim import _checkpoint
from momentum.optim._formats import quantised_formats
from momentum.optim._hooks import hook_step
from momentum.optim._launch import Launch, Member, Settings
from momentum.optim._options import (
    COMMON_DEFAULTS,
    RESIDUALS,
    CommonOptions,
    Group,
    check_common,
    common_arguments,
    resolve_exceptions,
)
from momentum.optim._plan import Entry, Plan
from momentum.optim._reset import ResettableOptimizer
from momentum.optim._rule import Rule
from momentum.optim._states import fill_state
from momentum.optim._totals import share

P = ParamSpec("P")
R = TypeVar("R")


class FusedOptimizer(ResettableOptimizer):
    """One op call per step for all parameters of a device, whatever their number, dtypes and groups.

    Parameter groups whose options agree except for ``lr`` and ``weight_decay`` share a call. Parameters may be float32,
    bfloat16, float16 or float64, mixed; gradients and states have dtypes of their own. Nothing waits for the device, so a
    step can be captured in a CUDA graph; numbers that change between replays must then be tensors.

    Parameters
    ----------
    params
        Parameters, named parameters, or parameter groups, as in :class:`torch.optim.Optimizer`.
    defaults
        The optimizer's own options; groups may override them.
    options
        The options of :class:`~momentum.optim.CommonOptions`; groups may override them.

    Notes
    -----
    *Mixed precision.* ``torch.amp.GradScaler`` passes its scale and its verdict on overflow to the op, which unscales in
    registers: ``param.grad`` keeps the scaled gradient after the step. After ``scaler.unscale_`` it is the unscaled one.

    *Stepping inside backward.* :meth:`step_param` steps one parameter, so that its gradient need not live until the whole
    backward pass is over::

        def step_and_free(param):
            optimizer.step_param(param)
            param.grad = None

        for param in model.parameters():
            param.register_post_accumulate_grad_hook(step_and_free)

    ``loss.backward()`` is then the whole iteration: no ``optimizer.step()``, no ``zero_grad()``. Gradients can neither be
    accumulated over several backward passes nor clipped by their global norm, and ``GradScaler`` cannot be used.

    *CUDA graphs.* Capture :meth:`step` after a step outside of the graph, which makes the states. Subsets - SPAM's ``density``,
    FRUGAL's columns, rows and entries - are drawn on the device by the step count, so that one graph serves over all draws. The
    tensors of FRUGAL's ``projector="block"`` are chosen on the host: capture anew after each choice, and add to the group's
    ``"block_step"`` what was replayed. :meth:`reset_state` may come between replays.

    *Sharded parameters.* :class:`~torch.distributed.tensor.DTensor` parameters (FSDP2, tensor parallelism) are stepped
    shard by shard; their states are DTensors, so ``torch.distributed.checkpoint`` saves and reshards them. A rule that
    reduces over a tensor adds one all-reduce per reduction for the whole list; random bits depend on the position of an
    element in the whole tensor, not on how it is sharded.
    """

    _rule: ClassVar[Rule]
    _state_format: ClassVar[str | None] = None  # what option state_format is by default
    _step_supports_amp_scaling = True

    def __init__(self, params: ParamsT, defaults: dict[str, Any], options: CommonOptions) -> None:
        unknown = options.keys() - COMMON_DEFAULTS.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {min(unknown)!r}")
        self._plans: dict[Tensor | None, Plan] = {}
        self._swapped = False
        super().__init__(params, {**COMMON_DEFAULTS, "state_format": self._state_format, **options, **defaults})

    @staticmethod
    def profile_hook_step(func: Callable[P, R]) -> Callable[P, R]:
        """Return :meth:`step` with its hooks; torch's base calls this."""
        return hook_step(func)

    # What a subclass says about its rule.

    def _rule_of(self, group: Group) -> Rule:
        """Return the op that steps ``group``."""
        return self._rule

    def _kept_states(self, group: Group) -> tuple[str, ...]:
        """Return which of the rule's states ``group`` keeps."""
        return self._rule_of(group).states

    def _hypers(self, group: Group) -> dict[str, Any]:
        """Return the rule's hyper-parameters, by their names in the op's schema."""
        raise NotImplementedError

    def _check_group(self, group: Group) -> None:
        """Raise where an option of the subclass is invalid in ``group``."""
        raise NotImplementedError

    # Groups.

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; its options are checked before anything changes."""
        if isinstance(param_group, dict) and not isinstance(param_group["params"], set):  # else refused by torch
            params = param_group["params"]
            param_group["params"] = [params] if isinstance(params, Tensor) else list(params)
            tensors = [p[1] if isinstance(p, tuple) else p for p in param_group["params"]]
            if len(set(map(id, tensors))) != len(tensors):
                raise ValueError("a parameter appears more than once in a parameter group")
            if any(isinstance(p, Tensor) and p.is_complex() for p in tensors):
                raise ValueError(f"{type(self).__name__} does not support complex parameters")
            self._check(self.defaults | param_group)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            resolve_exceptions(group)
        except ValueError:
            self.param_groups.pop()
            raise
        if group["weight_decay_mode"] == "lr_decoupled" and group["max_lr"] is None:
            group["max_lr"] = float(group["lr"])

    def _check(self, group: Group) -> None:
        if isinstance(group.get("betas"), list):
            group["betas"] = tuple(group["betas"])  # a list could be edited without anyone noticing
        self._check_group(group)
        rule = self._rule_of(group)
        check_common(group, rule.states, rule.non_negative)

    def settings(self, group: Group) -> Settings:
        """Return what ``group`` asks of its op, after checking it."""
        self._check(group)
        if group["weight_decay_mode"] == "lr_decoupled" and group["max_lr"] is None:
            group["max_lr"] = float(group["lr"])
        return Settings(
            rule=self._rule_of(group),
            states=self._kept_states(group),
            formats=quantised_formats(group, self._rule_of(group)),
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            arguments=common_arguments(group) | self._hypers(group),
            residual=RESIDUALS[group["compensation"]],
            ema=group["ema_decay"] is not None,
            seed=group["seed"],
        )

    def fill_state(self, state: dict[str, Any], param: Tensor, group: Group, settings: Settings, place: int) -> None:
        """Add to ``state`` what ``param``, at ``place`` in ``group``, needs and does not have yet."""
        fill_state(state, param, group, settings, place)

    def make_launch(self, members: Sequence[Member], settings: Mapping[int, Settings]) -> Launch:
        """Return the call that steps ``members``, given the settings of their groups."""
        return Launch(members, settings)

    def read_state(self, target: _checkpoint.Target, values: dict[str, Any]) -> dict[str, Any]:
        """Return the saved state of one parameter, checked and on its device."""
        return _checkpoint.read_state(target, values)

    # Steps.

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient.

        Parameters
        ----------
        closure
            Evaluates the model again and returns the loss, which is returned.

        Raises
        ------
        ValueError, TypeError
            When an option was set to something invalid.
        RuntimeError
            When a gradient or a state does not fit its parameter. The call that refuses writes nothing.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._advance_unrecorded(None)
        return loss

    def step_param(self, param: Tensor) -> None:
        """Update one parameter now, as :meth:`step` would; meant for hooks that run during the backward pass.

        Parameters
        ----------
        param
            A parameter of this optimizer. Without a gradient nothing happens.
        """
        plan = None if is_compiling() else self._plans.get(param)
        if plan is None or not plan.is_step or not plan.repeat(self):
            self._advance_unrecorded(param)
        self._opt_called = True  # what LR schedulers look at to warn about a missing step

    @_disable_dynamo
    def _advance_unrecorded(self, param: Tensor | None) -> None:
        """Step all parameters, or one, without recording for autograd.

        What torch.no_grad adds to its two calls takes as long, on cold caches, as a step over thousands of elements.
        """
        grad_mode = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            self._advance(param)
        finally:
            torch._C._set_grad_enabled(grad_mode)

    def _advance(self, param: Tensor | None) -> None:
        """Step all parameters, or one; what a class does before or after is added here."""
        if self._swapped:
            raise RuntimeError("step() inside swap_ema(): the parameters hold their averages")
        # Popped while in use: a failure leaves no plan behind that might be half made.
        plan = self._plans.pop(param, None)
        if plan is None or not plan.repeat(self):
            plan = self._advance_by_parts(param, plan)
        self._plans[param] = plan

    def _advance_by_parts(self, param: Tensor | None, plan: Plan | None) -> Plan:
        """Step all parameters, or one, by a plan if it still holds; return that or a new one."""
        collected = plan.collect() if plan is not None and plan.holds(self) else None
        if plan is None or collected is None:
            plan = Plan(self, self._entries(param), whole=param is None)
            collected = plan.collect()
        if collected is None:
            raise RuntimeError(f"{type(self).__name__}: the state of a parameter holds something that is not a tensor")
        try:
            grad_scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
            runs = [
                launch.run(tensors, grad_scale, found_inf) for launch, tensors in zip(plan.launches, collected, strict=True)
            ]
            for totals in zip_longest(*runs):
                share([part for part in totals if part is not None])
        except BaseException:
            for launch in plan.launches:
                launch.discard(self.state)
            for entry in self._entries(param):
                self.check_tensors(entry.number, entry.param)
            raise
        plan.prepare(is_all=type(self)._advance is FusedOptimizer._advance)
        return plan

    def _entries(self, only: Tensor | None) -> list[Entry]:
        entries = []
        index = 0
        for i, group in enumerate(self.param_groups):
            for place, param in enumerate(group["params"]):
                if only is None or param is only:
                    entries.append(Entry(i, place, index, param))
                index += 1
        if only is not None and not entries:
            raise ValueError("the tensor is not a parameter of this optimizer")
        return entries

    def check_tensors(self, index: int, param: Tensor) -> None:
        """Raise where parameter number ``index`` or its gradient is of a kind that no rule can step."""
        for kind, tensor in (("parameter", param), ("the gradient of parameter", param.grad)):
            if tensor is None:
                continue
            if tensor.is_complex():
                raise RuntimeError(f"{type(self).__name__}: {kind} {index} is complex, which is not supported")
            if tensor.layout != torch.strided:
                raise RuntimeError(f"{type(self).__name__}: {kind} {index} is sparse, which is not supported")

    # The average of the weights.

    def ema_params(self) -> Iterator[Tensor]:
        """Yield, in the order of the parameters, their averages; the parameter itself where it was never stepped."""
        for entry in self._entries(None):
            yield self.state.get(entry.param, {}).get("ema", entry.param.detach())

    @contextmanager
    def swap_ema(self) -> Iterator[None]:
        """Put the averaged weights into the parameters inside the ``with`` block, for evaluation or export.

        The parameters get their own values back, bit for bit, when the block is left. They are copied for that time.
        """
        if self._swapped:
            raise RuntimeError("swap_ema() inside swap_ema()")
        averaged = [(p, s["ema"]) for p, s in self.state.items() if "ema" in s]
        with torch.no_grad():
            own = [p.clone() for p, _ in averaged]
            for param, ema in averaged:
                param.copy_(ema)
        self._swapped = True
        self._plans.clear()  # the next step is looked at
        try:
            yield
        finally:
            self._swapped = False
            with torch.no_grad():
                for (param, _), value in zip(averaged, own, strict=True):
                    param.copy_(value)

    # Saving, loading and copying.

    def state_dict(self) -> dict[str, Any]:
        """Return the state as :meth:`torch.optim.Optimizer.state_dict` does, by reference.

        It can be loaded by the class of the same name in ``torch.optim``, where there is one, unless states are quantised: load
        it into an optimizer with ``state_format="fp32"`` first. How states are to be stored is not saved: that is the loading
        optimizer's to say, and a quantised state says itself what it is.
        """
        saved = super().state_dict()
        for group in saved["param_groups"]:
            for name in _checkpoint.OWN_OPTIONS:
                group.pop(name, None)
            group.update(self._torch_options(group))
        return saved

    def _torch_options(self, group: Group) -> dict[str, Any]:
        """Return what torch's class of the same name needs in a saved group and this one says otherwise."""
        return {}

    def adopt_torch_options(self, group: Group, own: Group) -> None:
        """Translate what :meth:`_torch_options` adds, in a group that is being loaded over ``own``."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state saved by this class or by torch's class of the same name.

        Options of the parameter groups are taken over where the saved ones have them. States keep the dtype they were
        saved with, and are not copied when they are on the right device already.

        Raises
        ------
        ValueError
            When the state does not fit: other groups or shapes, a missing or an unknown state. Nothing has changed then.
        """
        state_dict = state_dict.copy()
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = cast("Any", pre_hook)(self, state_dict) or state_dict
        self.__setstate__(_checkpoint.read(self, state_dict))
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            cast("Any", post_hook)(self)

    def __getstate__(self) -> dict[str, Any]:
        # Step counts are views of one tensor: pickled as they are, each would carry all of it.
        state = super().__getstate__()
        state["state"] = defaultdict(dict)
        for param, values in self.state.items():
            step = values.get("step")
            state["state"][param] = values | {"step": step.clone()} if isinstance(step, Tensor) else values
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._plans = {}
        self._swapped = False
