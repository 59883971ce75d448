"""Who may watch an op: modes of torch, and a profiler."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class Calls(TorchDispatchMode):
    """Notes the names of the ops that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    """Sees functions of torch, and lets them be."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def watchers() -> dict[str, Any]:
    """Return new ones of each kind, to be entered with ``with``."""
    return {
        "dispatch mode": Calls(),
        "function mode": Functions(),
        "profiler": torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
    }


def assert_seen(watching: Any, op: str) -> None:
    """Check that what watches ops by their names saw one."""
    if isinstance(watching, Calls):
        assert op in watching.names
    elif not isinstance(watching, Functions):
        assert op in [event.name for event in watching.events()]
