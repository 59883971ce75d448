"""What Sophia-G and Sophia-H share: the step, and the moving average of an estimate of the Hessian's diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from momentum import _ops
from momentum.enums import DecayMode
from momentum.optim import _formats, _sharding
from momentum.optim._base import FusedOptimizer
from momentum.optim._launch import on_device
from momentum.optim._options import Group, check_betas, check_integer, check_number
from momentum.optim._plan import Entry
from momentum.optim._rule import Rule
from momentum.optim._states import fill_state, replace_state


class HessianOptimizer(FusedOptimizer):
    """An optimizer with the states ``exp_avg`` and ``hessian``, the second of which is updated apart from the step."""

    _rule = Rule("sophia", ("exp_avg", "hessian"), counts=False)

    def hessian_due(self, steps: int) -> bool:
        """Return whether the estimate should be updated after ``steps`` steps: after the first, and every ``update_interval``.

        Parameters
        ----------
        steps
            How many steps have been made, as the training loop counts them.
        """
        return steps % int(self.defaults["update_interval"]) == 1 % int(self.defaults["update_interval"])

    def _check_group(self, group: Group) -> None:
        check_betas(group["betas"])
        check_number("eps", group["eps"])
        check_integer("update_interval", group["update_interval"], low=1)

    def _fill(self, entries: Sequence[Entry]) -> None:
        """Give parameters that were never stepped their states."""
        for entry in entries:
            self.check_tensors(entry.number, entry.param)
            group = self.param_groups[entry.group]
            fill_state(self.state[entry.param], entry.param, group, self.settings(group), entry.place)
            self.state[entry.param].setdefault("step", torch.tensor(0.0, device=entry.param.device))

    def _average(
        self, entries: Sequence[Entry], grads: Sequence[Tensor], probes: Sequence[Tensor] | None, grad_scale: Tensor | None
    ) -> None:
        """Average ``grads`` times ``probes``, or their squares, into the estimates: one launch per group and device."""
        calls: dict[tuple[int, torch.device], list[int]] = {}
        for i, entry in enumerate(entries):
            calls.setdefault((entry.group, entry.param.device), []).append(i)
        for (number, device), members in calls.items():
            beta2 = self.param_groups[number]["betas"][1]
            arguments: dict[str, Any] = {"lr": [0.0 if isinstance(beta2, Tensor) else 1.0 - beta2]}
            if isinstance(beta2, Tensor):
                arguments["lr_tensor"] = 1 - on_device(beta2, device)
            if grad_scale is not None:
                arguments["grad_scale"] = on_device(grad_scale, device).float()
            params = [entries[i].param for i in members]
            hessians = [self._exact(param) for param in params]
            _ops.step_(
                "hessian_ema",
                [_sharding.local(hessian) for hessian in hessians],
                [_sharding.local(grads[i]) for i in members],
                [[_sharding.local(probes[i]) for i in members] if probes is not None else []],
                steps=torch.zeros(len(members) + 1, device=device),
                totals=torch.zeros(0, dtype=torch.float64, device=device),
                weight_decay=[1.0],
                decay=int(DecayMode.DECOUPLED),
                **arguments,
            )
            for param, hessian in zip(params, hessians, strict=True):
                state = self.state[param]
                if _formats.is_quantised(state, "hessian"):
                    wanted = _formats.stored_format(state, "hessian")
                    replace_state(state, "hessian", _formats.convert({"hessian": hessian}, param, "hessian", wanted))

    def _exact(self, param: Tensor) -> Tensor:
        """Return the estimate itself, or where it is quantised its values."""
        state = self.state[param]
        if _formats.is_quantised(state, "hessian"):
            return _formats.dequantised(state, param, "hessian")
        hessian: Tensor = state["hessian"]
        return hessian
