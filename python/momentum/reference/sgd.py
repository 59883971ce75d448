"""SGD with heavy-ball or Nesterov momentum, as torch.optim.SGD evaluates it (Sutskever et al., 2013)."""

from __future__ import annotations

from torch import Tensor

from momentum.reference.state import State


def sgd(
    grad: Tensor, state: State, step: int, *, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False
) -> tuple[Tensor, State]:
    """Return the gradient, or the momentum buffer where the state holds one.

    The first step fills the buffer with the gradient, undamped.
    """
    if "momentum_buffer" not in state:
        return grad, {}
    buffer = grad if step == 1 else momentum * state["momentum_buffer"] + (1 - dampening) * grad
    return (grad + momentum * buffer if nesterov else buffer), {"momentum_buffer": buffer}
