"""From what a caller has to what the op takes: one batch dimension, float64 marginals, one device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from momentum.ot.points import METRICS, Points

OP = "momentum.ot.solve"


@dataclass(frozen=True)
class Inputs:
    """A batch as the op takes it; every tensor has the batch dimension."""

    cost: Tensor | Points
    a: Tensor
    b: Tensor
    reg: Tensor  # on the host
    batched: bool
    single: bool  # costs in float32
    wrap: Callable[[Tensor], Any]


def to_tensor(array: Any, name: str) -> Tensor:
    """Borrow a floating-point array; NumPy arrays that may not be written are copied, as torch cannot borrow them."""
    if isinstance(array, Tensor):
        tensor = array
    elif type(array).__module__ == "numpy":
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
    elif hasattr(array, "__dlpack__"):
        tensor = torch.utils.dlpack.from_dlpack(array)
    else:
        tensor = torch.as_tensor(array, dtype=torch.float64)
    if not tensor.is_floating_point():
        raise TypeError(f"{OP}: {name} has dtype {tensor.dtype}, expected floating-point numbers")
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def wrapper(array: Any) -> Callable[[Tensor], Any]:
    """Return what turns tensors into arrays of the library that ``array`` is from."""
    library = type(array).__module__.split(".")[0]
    if isinstance(array, Tensor) or library not in ("numpy", "cupy"):
        return lambda tensor: tensor
    if library == "numpy":
        return lambda tensor: tensor.detach().numpy()
    import cupy  # type: ignore[import-not-found]

    return lambda tensor: cupy.from_dlpack(tensor.detach())


def _batch(tensor: Tensor, name: str, dims: int) -> tuple[Tensor, bool]:
    if tensor.dim() not in (dims, dims + 1):
        raise ValueError(f"{OP}: {name} has {tensor.dim()} dimensions, expected {dims}, or {dims + 1} for a batch")
    return (tensor, True) if tensor.dim() == dims + 1 else (tensor[None], False)


def _costs(given: Any) -> tuple[Tensor | Points, int, int, int, bool]:
    """Return the cost with a batch dimension, that dimension, n, m, and whether the caller gave it."""
    if not isinstance(given, Points):
        cost, batched = _batch(to_tensor(given, "cost"), "cost", 2)
        return cost, cost.shape[0], cost.shape[1], cost.shape[2], batched
    if given.metric not in METRICS:
        raise ValueError(f"{OP}: metric is {given.metric!r}, expected one of {', '.join(METRICS)}")
    x, batched = _batch(to_tensor(given.x, "x"), "x", 2)
    y, also = _batch(to_tensor(given.y, "y"), "y", 2)
    if batched != also or x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise ValueError(f"{OP}: x has shape {list(x.shape)}, y has {list(y.shape)}, expected [B, n, d] and [B, m, d]")
    if x.dtype != y.dtype:
        raise ValueError(f"{OP}: x has dtype {x.dtype}, y has {y.dtype}, expected the same")
    return Points(x, y, given.metric), x.shape[0], x.shape[1], y.shape[1], batched


def _marginal(given: Any, name: str, size: int, mask: Any, device: torch.device) -> tuple[Tensor, bool]:
    """Return a marginal [B or 1, size] in float64 without mass outside of its mask."""
    keep = None
    if mask is not None:
        keep = torch.as_tensor(mask, device=device)
        if keep.dtype != torch.bool or keep.dim() not in (1, 2) or keep.shape[-1] != size:
            raise ValueError(
                f"{OP}: the mask of {name} has dtype {keep.dtype} and shape {list(keep.shape)}, expected bool [B, {size}]"
            )
    if given is None:
        weights = torch.ones(size, dtype=torch.float64, device=device) if keep is None else keep.double()
        weights = weights / weights.sum(-1, keepdim=True)
    else:
        weights = to_tensor(given, name).double()
        if weights.dim() not in (1, 2) or weights.shape[-1] != size:
            raise ValueError(f"{OP}: {name} has shape {list(weights.shape)}, expected [{size}] or [B, {size}]")
        if weights.device != device:
            raise ValueError(f"{OP}: {name} is on {weights.device}, expected {device} like the cost")
        weights = weights if keep is None else weights.where(keep, 0.0)
    batched = weights.dim() == 2
    return (weights if batched else weights[None]), batched


def prepare(given: Any, a: Any, b: Any, reg: Any, row_mask: Any, column_mask: Any) -> Inputs:
    """Check everything that can be checked without reading what is on a device."""
    cost, count, n, m, batched = _costs(given)
    sample = cost.x if isinstance(cost, Points) else cost
    if n == 0 or m == 0:
        raise ValueError(f"{OP}: the cost has {n} rows and {m} columns, expected at least one of each")
    a, batched_a = _marginal(a, "a", n, row_mask, sample.device)
    b, batched_b = _marginal(b, "b", m, column_mask, sample.device)
    if reg is None:
        raise ValueError(f"{OP}: reg is missing; it is the temperature, in units of the cost")
    temperatures = torch.as_tensor(reg, dtype=torch.float64).detach().cpu()
    if temperatures.dim() > 1 or not all(0 < value < math.inf for value in temperatures.flatten().tolist()):
        raise ValueError(f"{OP}: reg is {reg}, expected a finite number > 0, or one for each problem")
    sizes = {"cost": count, "a": a.shape[0], "b": b.shape[0], "reg": temperatures.numel()}
    total = next((size for size in sizes.values() if size != 1), 1)
    if any(size not in (1, total) for size in sizes.values()):
        raise ValueError(f"{OP}: the batches of {sizes} differ, expected one size, or 1")
    return Inputs(
        cost,
        a.expand(total, n),
        b.expand(total, m),
        temperatures.flatten().expand(total),
        batched or batched_a or batched_b or temperatures.dim() == 1,
        sample.dtype == torch.float32,
        wrapper(given.x if isinstance(given, Points) else given),
    )
