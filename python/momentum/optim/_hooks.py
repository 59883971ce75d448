"""What torch wraps around every optimizer's ``step``, hooks and a name for profilers, entered only where someone listens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch.autograd import profiler
from torch.compiler import is_compiling
from torch.optim import Optimizer, optimizer

GLOBAL_HOOKS = (optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks)


P = ParamSpec("P")
R = TypeVar("R")


def hook_step(step: Callable[P, R]) -> Callable[P, R]:
    """Return ``step`` as :meth:`torch.optim.Optimizer.profile_hook_step` wraps it, but by itself where nobody listens.

    Announcing a step to a profiler that is not there takes a third of the host's time for a step over a single tensor.
    """
    announced = Optimizer.profile_hook_step(step)

    @functools.wraps(step)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return (announced if _is_heard(args[0]) else step)(*args, **kwargs)

    return wrapper


def _is_heard(of: Any) -> bool:
    before, after = GLOBAL_HOOKS
    return bool(
        profiler._is_profiler_enabled
        or of._optimizer_step_pre_hooks
        or of._optimizer_step_post_hooks
        or before
        or after
        or is_compiling()
    )
