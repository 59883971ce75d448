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


class Perpendicular(IntEnum):
    """Whether a step sees only the part of each tensor's gradient that is perpendicular to the parameter."""

    OFF = 0
    """It sees all of it."""
    PROJECTED = 1
    """That part."""
    RENORMALIZED = 2
    """That part, at the norm of the whole."""


class Residual(IntEnum):
    """What is kept beside a parameter of low precision."""

    NONE = 0
    """Nothing."""
    KAHAN = 1
    """What rounding has cut off so far, in the parameter's own dtype."""
    MASTER = 2
    """The parameter itself in float32."""

    LOW_BITS = 3
    """The eight bits below a bfloat16 parameter, as int8: together a float of 24 bits."""


class CodeMap(IntEnum):
    """What a code of 4 or 8 bits stands for: a number in [-1, 1], to be multiplied by the scale of its block."""

    NONE = 0
    """Nothing: the state is not quantised."""
    DYNAMIC4 = 1
    """Signed dynamic exponent, 4 bits: 0, 1 and seven magnitudes of either sign; -1 is clipped to -0.8875."""
    DYNAMIC4_MINUS_ONE = 2
    """The same with -1 in place of -0.0055."""
    UNSIGNED_DYNAMIC4 = 3
    """Dynamic exponent for magnitudes, 4 bits, with zero."""
    LINEAR4 = 4
    """(code + 1) / 16: magnitudes without zero, so that the inverse root of a second moment stays bounded."""
    DYNAMIC8 = 5
    """Signed dynamic exponent, 8 bits: seven decades."""
    UNSIGNED_DYNAMIC8 = 6
    """Dynamic exponent for magnitudes, 8 bits: seven decades."""
    LINEAR8 = 7
    """Symmetric int8: code / 127."""
    FLOAT8 = 8
    """Float8 E4M3 divided by 448."""


class Scaling(IntEnum):
    """What shares a scale."""

    BLOCK = 0
    """A block of consecutive elements."""
    RANK_ONE = 1
    """Each row and each column of a matrix has one; an element takes the smaller. Of anything but a matrix: blocks."""
    GRID = 2
    """The same within square tiles."""


class Rounding(IntEnum):
    """How a parameter of low precision, or a code, is stored."""

    NEAREST = 0
    """To the nearest value, ties to even."""
    STOCHASTIC = 1
    """Up or down with the probability that makes the expected value exact."""


class Rest(IntEnum):
    """What steps on a subset do to the elements that are not chosen."""

    FROZEN = 0
    """Nothing: they keep their values."""
    DECAY = 1
    """Weight decay alone."""
    SIGN = 2
    """Decay, and a step along the sign of the gradient."""
    GRADIENT = 3
    """Decay, and a step along the gradient."""


class Units(IntEnum):
    """What steps on a subset choose, of a tensor as dim 0 by the rest."""

    ELEMENTS = -1
    """Single elements."""
    COLUMNS = 0
    """Whole columns."""
    ROWS = 1
    """Whole rows."""
