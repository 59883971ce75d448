"""Optimizers by name: ``torch.AdamW``, ``momentum.Lion``, ``momentum.AdamW:weight_decay=0.1,fused=false``.

The library's name says where the class is looked up (``torch.optim`` or ``momentum.optim``), so an optimizer added
there can be named here at once. Behind a colon come constructor arguments.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_MODULES = {"torch": "torch.optim", "momentum": "momentum.optim"}
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")


class OptimizerError(ValueError):
    """The name, or an argument behind it, means nothing; the message says what would."""


@dataclass(frozen=True)
class Choice:
    """One optimizer to train with: its class and the arguments given by name."""

    label: str
    kind: Callable[..., torch.optim.Optimizer]
    arguments: dict[str, Any]

    @property
    def algorithm(self) -> str:
        """Name of the class: two choices of equal algorithm are expected to give equal curves."""
        return self.label.partition(":")[0].partition(".")[2]

    def build(self, model: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """Construct it over ``model``: matrices decay, vectors (biases, norms) do not. SCALE has groups of its own.

        torch's optimizers are asked for their fused step where they have one: that is the peer to beat.
        """
        arguments: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        accepted = inspect.signature(self.kind).parameters
        if "fused" in accepted and not {"fused", "foreach"} & self.arguments.keys():
            arguments["fused"] = True
        arguments = {name: value for name, value in arguments.items() if name in accepted} | self.arguments
        groups = _groups(model, self.algorithm)
        try:
            return self.kind(groups, **arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise OptimizerError(f"{self.label} cannot be built: {error}") from error


def choose(label: str) -> Choice:
    """Find the optimizer that ``label`` names.

    Raises
    ------
    OptimizerError
        With the nearest name that exists.
    """
    name, _, settings = label.partition(":")
    library, dot, class_name = name.partition(".")
    if not dot or library not in _MODULES:
        raise OptimizerError(
            f"{label!r} is no optimizer's name: write LIBRARY.Class, with LIBRARY one of {', '.join(_MODULES)}"
        )
    try:
        module = importlib.import_module(_MODULES[library])
    except ImportError as error:
        raise OptimizerError(f"{label!r} needs the package {library!r}: {error}") from error
    available = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    if class_name not in available:
        folded = {key.lower(): key for key in available}
        close = difflib.get_close_matches(class_name.lower(), folded, n=1, cutoff=0.0)
        hint = f"; did you mean {library}.{folded[close[0]]}?" if close else ""
        raise OptimizerError(f"{_MODULES[library]} has no optimizer {class_name!r}{hint}")
    items = _COMMA_OUTSIDE_PARENTHESES.split(settings) if settings else []
    return Choice(label, available[class_name], dict(_parse(item, label) for item in items))


def _groups(model: torch.nn.Module, algorithm: str) -> list[dict[str, Any]]:
    if algorithm == "SCALE":
        from momentum.optim import scale_groups

        return [{**group, **({"weight_decay": 0.0} if group["name"] == "adamw" else {})} for group in scale_groups(model)]
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


def _parse(item: str, label: str) -> tuple[str, Any]:
    key, equals, text = item.partition("=")
    if not equals or not key.isidentifier():
        raise OptimizerError(f"in {label!r}, {item!r} should read name=value")
    if text.lower() in {"true", "false"}:
        return key, text.lower() == "true"
    if isinstance(dtype := getattr(torch, text, None), torch.dtype):
        return key, dtype
    try:
        return key, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return key, text


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of memory behind every tensor the optimizer keeps, shared storage counted once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for tensor in state.values()
        if isinstance(tensor, torch.Tensor)
    }
    return sum(storages.values())


def state_dtypes(optimizer: torch.optim.Optimizer) -> set[torch.dtype]:
    """Formats in which the optimizer keeps its states, counters left aside."""
    return {
        tensor.dtype
        for parameter, state in optimizer.state.items()
        for tensor in state.values()
        if isinstance(tensor, torch.Tensor) and tensor.shape == parameter.shape and parameter.dim() > 0
    }
