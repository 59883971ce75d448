"""Other people's optimizers: torch's, and packages that take part when they are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from bench.runner.case import NOT_INSTALLED, UnavailableError

Parameters = Sequence[torch.nn.Parameter]
Make = Callable[[Parameters], torch.optim.Optimizer]


class Steps(Protocol):
    """What is timed of an optimizer."""

    def step(self) -> object:
        """Update every parameter."""


@dataclass(frozen=True)
class Optional:
    """An optimizer of a package that may be missing; ``state_bytes`` per element where it is not that of the states."""

    name: str
    module: str
    kind: str
    arguments: dict[str, Any] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "cuda")
    state_bytes: float | None = None

    def make(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Construct it and try a step; raises `UnavailableError` where it is missing or does not work."""
        try:
            kind = getattr(importlib.import_module(self.module), self.kind)
            optimizer: torch.optim.Optimizer = kind(parameters, lr=1e-3, **self.arguments)
            optimizer.step()
        except ModuleNotFoundError:
            raise UnavailableError(NOT_INSTALLED) from None
        except Exception as error:  # whatever keeps a foreign package from working here is worth a line, not a crash
            raise UnavailableError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        return optimizer


_BLOCK_8BIT = 2 * (1 + 4 / 256)
_BLOCK_4BIT = 2 * (0.5 + 4 / 128)
_BLOCK_FLASH = 2 * (1 + 2 / 32)
"""Bytes of two quantised states per element, with their scales."""

OPTIONAL: dict[str, tuple[Optional, ...]] = {
    "AdamW": (
        Optional("apex", "apex.optimizers", "FusedAdam", {"adam_w_mode": True}, ("cuda",)),
        Optional("bitsandbytes", "bitsandbytes.optim", "AdamW"),
        Optional("bitsandbytes 8-bit", "bitsandbytes.optim", "AdamW8bit", state_bytes=_BLOCK_8BIT),
        Optional("torchao 8-bit", "torchao.optim", "AdamW8bit", devices=("cuda",), state_bytes=_BLOCK_8BIT),
        Optional("torchao 4-bit", "torchao.optim", "AdamW4bit", devices=("cuda",), state_bytes=_BLOCK_4BIT),
        Optional("flashoptim", "flashoptim", "FlashAdamW", devices=("cuda",), state_bytes=_BLOCK_FLASH),
        Optional("optimi", "optimi", "AdamW"),
        Optional("heavyball", "heavyball", "AdamW"),
    ),
    "SGD": (
        Optional("apex", "apex.optimizers", "FusedSGD", {"momentum": 0.9}, ("cuda",)),
        Optional("bitsandbytes", "bitsandbytes.optim", "SGD", {"momentum": 0.9}),
        Optional("optimi", "optimi", "SGD", {"momentum": 0.9}),
    ),
    "Lion": (
        Optional("lion_pytorch", "lion_pytorch", "Lion"),
        Optional("bitsandbytes", "bitsandbytes.optim", "Lion"),
        Optional("optimi", "optimi", "Lion"),
        Optional("pytorch_optimizer", "pytorch_optimizer", "Lion"),
    ),
    "Adan": (
        Optional("adan_pytorch", "adan_pytorch", "Adan"),
        Optional("optimi", "optimi", "Adan"),
        Optional("pytorch_optimizer", "pytorch_optimizer", "Adan"),
    ),
    "AdaBelief": (Optional("pytorch_optimizer", "pytorch_optimizer", "AdaBelief", {"rectify": True}),),
    "DiffGrad": (Optional("pytorch_optimizer", "pytorch_optimizer", "DiffGrad"),),
    "AdamP": (Optional("pytorch_optimizer", "pytorch_optimizer", "AdamP"),),
    "SPAM": (Optional("pytorch_optimizer", "pytorch_optimizer", "SPAM"),),
    "StableSPAM": (Optional("pytorch_optimizer", "pytorch_optimizer", "StableSPAM"),),
}

TORCH_VARIANTS: dict[str, dict[str, bool]] = {
    "torch fused": {"fused": True},
    "torch foreach": {"foreach": True, "fused": False},
    "torch for-loop": {"foreach": False, "fused": False},
}


def torch_optimizer(kind: str, variant: str, **arguments: Any) -> Make:
    """One of torch's own three implementations."""
    return lambda parameters: getattr(torch.optim, kind)(parameters, lr=1e-3, **arguments, **TORCH_VARIANTS[variant])


class PlainLoop(torch.optim.Optimizer):
    """A rule as its paper writes it: plain torch, tensor by tensor, the way most optimizers are published."""

    def __init__(self, parameters: Parameters, rule: Callable[..., Any], states: dict[str, tuple[int, ...] | None]) -> None:
        super().__init__(parameters, {"lr": 1e-3})
        self._rule = rule
        self._states = states

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every parameter."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    for name, shape in self._states.items():
                        state[name] = parameter.new_zeros(parameter.shape if shape is None else shape)
                state["step"] += 1
                kept = {name: state[name] for name in self._states}
                update, kept = self._rule(parameter.grad, parameter, kept, state["step"])
                state.update(kept)
                parameter.sub_(update, alpha=group["lr"])
