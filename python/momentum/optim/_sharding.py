"""Parameters spread over several processes as :class:`torch.distributed.tensor.DTensor` (FSDP2, tensor parallelism).

The op works on local shards. What it must know of the whole is passed beside them: where a shard's elements lie, for random
bits, and totals completed by all-reduce, for rules that reduce.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: object) -> bool:
    """Return whether ``tensor`` is a DTensor; without importing that module, which costs a second."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Any) -> Any:
    """Return the part of ``tensor`` that this process holds; anything but a DTensor unchanged. Needs no-grad mode."""
    if not is_sharded(tensor):
        return tensor
    shard = tensor.to_local()
    return shard.wait() if hasattr(shard, "wait") else shard


def replicated(tensor: Tensor) -> Tensor:
    """Return the whole value of a scalar that may be a DTensor."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def check_grads(params: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
    """Raise unless every gradient lies on the processes as its parameter does."""
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        if is_sharded(param) != is_sharded(grad):
            raise RuntimeError(f"gradient {i} is a {type(grad).__name__}, its parameter a {type(param).__name__}")
        if is_sharded(param) and (param.device_mesh, param.placements) != (grad.device_mesh, grad.placements):  # type: ignore[attr-defined]
            raise RuntimeError(
                f"gradient {i} has placements {grad.placements}, its parameter {param.placements}: redistribute the gradient"  # type: ignore[attr-defined]
            )


def sharded_dims(param: DTensor) -> list[tuple[int, int]]:
    """Return (mesh dimension, tensor dimension) for every mesh dimension that splits ``param``."""
    if any(placement.is_partial() for placement in param.placements):
        raise RuntimeError(f"a parameter with placements {param.placements} cannot be stepped: its value is not complete")
    return [(i, p.dim) for i, p in enumerate(param.placements) if hasattr(p, "dim")]


def splits_into(param: Tensor, block: int) -> bool:
    """Return whether every process holds whole blocks of the flattened parameter, the same number of them."""
    if not is_sharded(param):
        return True
    placed: DTensor = param  # type: ignore[assignment]
    split = sharded_dims(placed)
    if any(dim != 0 for _, dim in split):
        return False
    processes = prod(placed.device_mesh.size(i) for i, _ in split)
    return placed.shape[0] % processes == 0 and placed.numel() // processes % block == 0 and local(param).is_contiguous()


def like(param: Tensor, shard: Tensor) -> Tensor:
    """Return ``shard`` as this process's part of a tensor that lies on the processes as ``param`` does."""
    if not is_sharded(param):
        return shard
    from torch.distributed.tensor import DTensor as Spread

    placed: DTensor = param  # type: ignore[assignment]
    return Spread.from_local(
        shard, placed.device_mesh, placed.placements, run_check=False, shape=placed.shape, stride=placed.stride()
    )


def flat_like(param: Tensor, shard: Tensor) -> Tensor:
    """Return one-dimensional ``shard`` as this process's part of what belongs to ``param``, where that splits into blocks."""
    if not is_sharded(param):
        return shard
    from torch.distributed.tensor import DTensor as Spread

    placed: DTensor = param  # type: ignore[assignment]
    processes = prod(placed.device_mesh.size(i) for i, _ in sharded_dims(placed))
    shape = torch.Size([shard.numel() * processes])
    return Spread.from_local(shard, placed.device_mesh, placed.placements, run_check=False, shape=shape, stride=(1,))


def philox_layout(param: Tensor) -> tuple[int, int, int]:
    """Return where the shard's elements lie in the whole tensor, as the op's ``shards``: (offset, inner_local, inner_global).

    Local element ``i`` is element ``offset + i // inner_local * inner_global + i % inner_local`` of the whole.

    Raises
    ------
    NotImplementedError
        When two dimensions after the first are split, which these three numbers cannot say, or the shard is not one block.
    """
    if not is_sharded(param):
        size = max(param.numel(), 1)
        return 0, size, size
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    placed: DTensor = param  # type: ignore[assignment]
    shape = placed.shape
    split = sharded_dims(placed)
    shard_shape, offset = compute_local_shape_and_global_offset(shape, placed.device_mesh, placed.placements)
    if not local(param).is_contiguous():
        raise NotImplementedError(f"stochastic rounding of a sharded parameter whose shards are not contiguous: {tuple(shape)}")
    inner = sorted({dim for _, dim in split if dim > 0 and shard_shape[dim] != shape[dim] and prod(shape[:dim]) > 1})
    if len(inner) > 1 or any(type(p) is not Shard for p in placed.placements if hasattr(p, "dim")):
        raise NotImplementedError(
            f"stochastic rounding of a parameter of shape {tuple(shape)} with placements {placed.placements}"
        )
    if prod(shard_shape) == 0:
        return 0, 1, 1
    dim = inner[0] if inner else 0
    start = sum(offset[d] * prod(shape[d + 1 :]) for d in range(len(shape)))
    return start, prod(shard_shape[dim:]), prod(shape[dim:])
