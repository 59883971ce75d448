"""The estimates of the Hessian's diagonal that Sophia averages (Liu et al., 2023, algorithms 1 and 2)."""

from __future__ import annotations

from torch import Tensor

from momentum.reference.state import State


def hessian_ema(grad: Tensor, state: State, step: int, *, scale: float = 1.0) -> tuple[Tensor, State]:
    """Return the estimate with its sign turned, as the update of a parameter that is its moving average.

    Under decoupled weight decay 1 and learning rate ``1 - beta2`` the frame makes of it
    ``beta2 h + (1 - beta2) scale g z``. Without a state ``probe`` z is g itself.
    """
    probe = state.get("probe", grad)
    return -scale * grad * probe, state
