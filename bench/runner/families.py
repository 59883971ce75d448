"""The families of operations that can be timed, each a module with ``cases(device, shrink) -> list[Case]``."""

from __future__ import annotations

import importlib

import torch

from bench.runner.case import Case

FAMILIES = {"optim": "bench.optim", "functional": "bench.functional"}


def cases(family: str, device: torch.device, shrink: int) -> list[Case]:
    """Cases of a family for a device, with ``shrink`` times fewer elements per tensor."""
    found: list[Case] = importlib.import_module(FAMILIES[family]).cases(device, shrink)
    return found
