"""What a family of operations tells the runner: cases, and the contenders of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], object]
NOT_INSTALLED = "not installed"
"""The reason that needs no line of its own."""


class UnavailableError(Exception):
    """A contender cannot take part here; the message is the reason."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a case."""

    name: str
    build: Callable[[Any], Call]
    """Takes the inputs of the case, returns a function that does the work once; may raise `UnavailableError`."""
    bytes_moved: float
    """Least traffic of one call: each stream read or written once."""
    memory: int
    """Bytes it takes beside the inputs: states, copies, temporaries."""
    verify: Callable[[], bool] | None = None
    """Optional: whether it gives the same bits as the plain way, tried on small inputs."""


@dataclass(frozen=True)
class Case:
    """One piece of work, the same for all contenders."""

    name: str
    title: str
    elements: int
    inputs: Callable[[torch.device], Any]
    memory: int
    """Bytes of the inputs, which the contenders share."""
    contenders: tuple[Contender, ...]
    peer: str
    """Name of the contender that ratios refer to."""
    twin: Callable[[torch.device], Any]
    """Inputs with as many tensors but next to no data: what remains of a call's time is the host's."""
    cold: bool = True
    """Whether caches are emptied before a call. A case without data times the host, in a loop."""
