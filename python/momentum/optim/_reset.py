"""Setting the states of an optimizer to zero: a restart, or a reset of its momentum alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from momentum import _ops
from momentum.optim import _sharding
from momentum.optim._options import SCALE, Group
from momentum.optim._rule import Rule


class ResettableOptimizer(Optimizer):
    """The part of the shared base that resets states."""

    def _rule_of(self, group: Group) -> Rule:
        """Return the op that steps ``group``."""
        raise NotImplementedError

    def _restarted_scalars(self, state: dict[str, Any]) -> list[Tensor]:
        """Return which of a parameter's numbers a restart sets to zero."""
        return [state["scalars"]] if "scalars" in state else []

    @torch.no_grad()
    def reset_state(
        self, params: Iterable[Tensor] | None = None, *, states: Sequence[str] | None = None, keep_step: bool = False
    ) -> None:
        """Set states to zero, as they were before the first step. One launch per device; nothing waits for it.

        The parameters, master copies, compensation and the average of the weights stay as they are.

        Parameters
        ----------
        params
            Whose states: those of a group are ``group["params"]``. Parameters without state are passed over. Default: all.
        states
            Names of the rule's states, such as ``["exp_avg"]``; parameters that do not keep one are passed over. Default: all
            that the rule has and, unless ``keep_step``, the numbers that it keeps for each tensor.
        keep_step
            Whether the step counts stay, so that bias corrections go on as if nothing had happened and what depends on the
            count happens when it would have. Otherwise they become 0; with all states this is a true restart: the next step is
            that of a new optimizer. Default: False.

        Raises
        ------
        ValueError
            When a tensor is not a parameter of this optimizer, or none of the rules has a state of a name. Nothing has changed
            then.

        Notes
        -----
        Published code for periodic restarts, as accelerated preference optimization's at each round, builds a new optimizer;
        this is the same without new memory. Keep the step counts to drop the momentum alone, as SPAM does. States that hold a
        gradient of the step before (``previous_grad``, ``neg_pre_grad``) make the next difference one with 0 if they are reset
        while the count stays: leave them out of ``states`` then.

        Examples
        --------
        >>> import torch, momentum
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = momentum.optim.AdamW(model.parameters())
        >>> model(torch.ones(4, 2)).sum().backward(); optimizer.step()
        >>> optimizer.reset_state(states=["exp_avg"], keep_step=True)
        """
        if isinstance(params, Tensor):
            raise TypeError("params must be an iterable of parameters, got one tensor")
        own = {id(param): group for group in self.param_groups for param in group["params"]}
        chosen = [param for group in self.param_groups for param in group["params"]] if params is None else list(params)
        for i, param in enumerate(chosen):
            if id(param) not in own:
                raise ValueError(f"params[{i}] is not a parameter of this optimizer")
        known = {name for group in self.param_groups for name in self._rule_of(group).states}
        if isinstance(states, str):
            raise TypeError(f"states must be a list of names, got the string {states!r}")
        for name in states or ():
            if name not in known:
                raise ValueError(f"states has an unknown name {name!r}; expected some of {sorted(known)}")

        lists: dict[torch.device, tuple[list[Tensor], list[Tensor]]] = {}
        for param in {id(param): param for param in chosen}.values():
            state = self.state.get(param)
            if not state:
                continue
            cleared, steps = lists.setdefault(param.device, ([], []))
            names = self._rule_of(own[id(param)]).states
            for name in names if states is None else [name for name in names if name in states]:
                cleared += [state[part] for part in (name, name + SCALE) if part in state]
            if states is None and not keep_step:
                cleared += self._restarted_scalars(state)
            if isinstance(state.get("step"), Tensor):
                steps.append(state["step"])
        for cleared, steps in lists.values():
            parts, counts = ([_sharding.local(tensor) for tensor in side] for side in (cleared, steps))
            _ops.mutate("reset_state_", parts if keep_step else [*parts, *counts], parts, counts, keep_step=keep_step)
