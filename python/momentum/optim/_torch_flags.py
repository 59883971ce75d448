"""The keywords by which torch's optimizers choose their implementation, accepted where they ask for nothing else than ours."""

from __future__ import annotations

from typing import Any

from momentum.optim._options import Group


def torch_flags(*, foreach: bool | None, differentiable: bool, fused: bool | None) -> dict[str, Any]:
    """Return the flags as defaults. ``fused=None`` becomes True, so that torch's fused step is used when it loads the group."""
    return {"foreach": foreach, "differentiable": differentiable, "fused": True if fused is None else fused}


def check_torch_flags(group: Group) -> None:
    """Raise where a flag asks for an implementation that does not exist here."""
    if group["foreach"]:
        raise ValueError("foreach=True is not available: the step is always one fused call")
    if group["differentiable"]:
        raise ValueError("differentiable=True is not available: the step is not recorded by autograd")
    if group["fused"] is False:
        raise ValueError("fused=False is not available: the step is always one fused call")
