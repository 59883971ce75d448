"""What torch wraps around every optimizer's ``step``, hooks and a name for profilers, entered only where someone listens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch.autograd import profiler
from torch.compiler import is_compiling
from torch.optim import Optimizer, optimizer

BEFORE, AFTER = optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks


P = ParamSpec("P")
R = TypeVar("R")


def hook_step(step: Callable[P, R]) -> Callable[P, R]:
    """Return ``step`` as :meth:`torch.optim.Optimizer.profile_hook_step` wraps it, but by itself where nobody listens.

    Announcing a step to a profiler that is not there takes a third of the host's time for a step over a single tensor. For the
    same reason a step that is like the one before is repeated from here: on cold caches every function on the way takes a
    microsecond when it is entered, and another one when it is left.
    """
    announced = Optimizer.profile_hook_step(step)

    @functools.wraps(step)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        of: Any = args[0]
        if (
            is_compiling()
            or profiler._is_profiler_enabled
            or of._optimizer_step_pre_hooks
            or of._optimizer_step_post_hooks
            or BEFORE
            or AFTER
        ):
            return announced(*args, **kwargs)
        if len(args) == 1 and not kwargs:
            plan = of._plans.get(None)
            if plan is not None and plan.is_step and plan.repeat(of):
                return None  # type: ignore[return-value]
        return step(*args, **kwargs)

    return wrapper
