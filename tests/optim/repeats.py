"""Steps that are repeated by one call of C, and the same steps without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from momentum import _direct
from momentum.optim._plan import Plan


@contextmanager
def counted(*, repeats: bool = True) -> Iterator[list[bool]]:
    """Note for each attempt inside the ``with`` block whether a step was repeated; without ``repeats`` none is."""
    taken: list[bool] = []
    repeat = Plan.repeat

    def noted(plan: Plan, optimizer: Any) -> bool:
        taken.append(repeat(plan, optimizer))
        return taken[-1]

    with pytest.MonkeyPatch.context() as patch, nullcontext() if repeats else _direct.disabled():
        patch.setattr(Plan, "repeat", noted)
        yield taken
