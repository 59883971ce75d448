"""Options of the ops that are names rather than numbers. The ops take the integer values."""

from __future__ import annotations

from enum import IntEnum


class DecayMode(IntEnum):
    """How weight decay ``λ`` enters a step with learning rate ``η`` and update ``u`` (which contains ``η``)."""

    NONE = 0
    """No decay; ``λ`` must be 0."""
    L2 = 1
    """``g += λ p`` before the rule sees the gradient."""
    DECOUPLED = 2
    """``p = (1 - η λ) p - u``."""
    LR_DECOUPLED = 3
    """``p = (1 - (η / η_max) λ) p - u``: the decay follows the schedule but not the size of the learning rate."""
    PROX = 4
    """``p = (p - u) / (1 + η λ)``."""
    DECOUPLED_AFTER = 5
    """``p = (1 - η λ) (p - u)``."""


class Cautious(IntEnum):
    """What happens to the entries of an update whose sign disagrees with the gradient."""

    OFF = 0
    """They are kept."""
    MASK = 1
    """They are dropped."""
    RESCALED = 2
    """They are dropped, and the rest of the tensor is divided by the share that is left (at least 1e-3)."""


class Residual(IntEnum):
    """What is kept beside a parameter of low precision."""

    NONE = 0
    """Nothing."""
    KAHAN = 1
    """What rounding has cut off so far, in the parameter's own dtype."""
    MASTER = 2
    """The parameter itself in float32."""


class Rounding(IntEnum):
    """How a parameter of low precision is stored."""

    NEAREST = 0
    """To the nearest value, ties to even."""
    STOCHASTIC = 1
    """Up or down with the probability that makes the expected value exact."""
