"""What every reference rule looks like: ``rule(grad, state, step, **hypers) -> (update, new state)``.

A rule may take the parameter as the keyword ``param``, and return what weight decay is multiplied by after the two.

All tensors are float64. ``step`` counts from 1. The frame applies the update as ``param - lr * update``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

State = dict[str, Tensor]
Rule = Callable[..., tuple[Any, ...]]
