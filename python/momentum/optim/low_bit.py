"""Optimizers with quantised states under the names users look for: each only sets the default of ``state_format``."""

from __future__ import annotations

from momentum.optim.adam import Adam
from momentum.optim.adamw import AdamW
from momentum.optim.lion import Lion
from momentum.optim.spam import SPAM


class Adam8bit(Adam):
    """:class:`Adam` with ``state_format="int8"``: 2.03 bytes of state per parameter in place of 8."""

    _state_format = "int8"


class Adam4bit(Adam):
    """:class:`Adam` with ``state_format="int4"``: 1.06 bytes of state per parameter in place of 8."""

    _state_format = "int4"


class AdamW8bit(AdamW):
    """:class:`AdamW` with ``state_format="int8"``: 2.03 bytes of state per parameter in place of 8."""

    _state_format = "int8"


class AdamW4bit(AdamW):
    """:class:`AdamW` with ``state_format="int4"``: 1.06 bytes of state per parameter in place of 8.

    Examples
    --------
    >>> import torch, momentum
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = momentum.optim.AdamW4bit(model.named_parameters(), lr=1e-3, full_precision=("*.bias", "embed*"))
    >>> model(torch.ones(4, 64)).sum().backward(); optimizer.step()
    """

    _state_format = "int4"


class Lion8bit(Lion):
    """:class:`Lion` with ``state_format="int8"``: 1.02 bytes of state per parameter in place of 4."""

    _state_format = "int8"


class Lion4bit(Lion):
    """:class:`Lion` with ``state_format="int4"``: 0.53 bytes of state per parameter in place of 4."""

    _state_format = "int4"


class SPAM8bit(SPAM):
    """:class:`SPAM` with ``state_format="int8"``: 2.03 bytes of state per parameter in place of 8."""

    _state_format = "int8"


class SPAM4bit(SPAM):
    """:class:`SPAM` with ``state_format="int4"``: 1.06 bytes of state per parameter in place of 8."""

    _state_format = "int4"
