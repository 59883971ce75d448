"""The states of subsets as they are kept, and as they are saved: compact, or dense where their shards differ in size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from momentum.optim import _sharding
from momentum.optim._subset_layout import Layout, is_split, whole_place


def zeros_of(param: Tensor, layout: Layout) -> Tensor:
    """Return a state of ``param`` that is zero: a DTensor where that can say which parts processes hold."""
    return _compact(param, layout, torch.zeros(layout.state_shape, dtype=torch.float32, device=param.device))


@torch.no_grad()
def dense_form(param: Tensor, layout: Layout, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a parameter whose units are split, every tensor as large as the parameter and placed as it is."""
    shape = _sharding.local(param).shape
    chosen = layout.chosen(values["mask"])
    dense = {"mask": layout.elements_of(chosen).to(torch.uint8)}
    dense |= {name: layout.spread(values[name], chosen) for name in values if name not in ("step", "mask", "count")}
    return {name: _sharding.like(param, dense[name].reshape(shape)) if name in dense else values[name] for name in values}


@torch.no_grad()
def read_tensors(label: str, param: Tensor, layout: Layout, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks and states of one parameter from the saved ``values``, in either form, as this process keeps them.

    Their order is that of ``values``, which must be the same on all processes: wholes are made by collective operations.

    Raises
    ------
    ValueError
        When they are not those of ``layout.count`` units of the parameter.
    """
    whole = Layout(whole_place(param.shape, layout.place.axis), layout.count)
    _check(label, param, whole, values)
    names = [name for name in values if name not in ("mask", "count")]
    if not is_split(param, layout.place.axis):
        if "count" in values:
            flat = {name: _in_memory_order(param, _whole(param, values[name])) for name in ("mask", *names)}
            chosen = _units(label, whole, flat["mask"])
            values = {"mask": whole.mask(chosen)} | {name: whole.gather(flat[name], chosen) for name in names}
        mask = _whole(param, values["mask"]).contiguous()
        if not whole.holds(whole.chosen(mask)):
            raise ValueError(_misfit(label, layout))
        return {"mask": mask} | {name: _placed(param, layout, values[name]) for name in names}
    if "count" not in values:
        chosen = whole.chosen(_whole(param, values["mask"]))
        dense = {name: whole.spread(_whole(param, values[name]), chosen) for name in names}
        dense["mask"] = whole.elements_of(chosen).to(torch.uint8)
        values = {name: tensor.reshape(param.shape) for name, tensor in dense.items()}
    parts = {name: _part(param, values[name]) for name in ("mask", *names)}
    chosen = _units(label, layout, parts["mask"])
    state = {name: layout.gather(parts[name], chosen) for name in names}
    return state | {"mask": layout.mask(chosen), "count": torch.tensor(layout.count)}


def _check(label: str, param: Tensor, whole: Layout, values: Mapping[str, Tensor]) -> None:
    dense = "count" in values
    if dense and (values["count"].numel() != 1 or int(values["count"]) != whole.count):
        raise ValueError(f"{label}: state 'count' is {values['count'].tolist()}, expected {whole.count}")
    for name, value in values.items():
        if name == "count":
            continue
        is_mask = name == "mask"
        dtype = (torch.uint8 if dense else torch.int32) if is_mask else torch.float32
        shape = tuple(param.shape) if dense else (whole.mask_words,) if is_mask else whole.state_shape
        found = tuple(value.shape), value.dtype
        if found != (shape, dtype):
            raise ValueError(f"{label}: state {name!r} has shape {found[0]} and dtype {found[1]}, expected {shape} and {dtype}")


def _units(label: str, layout: Layout, mask: Tensor) -> Tensor:
    chosen = layout.units_of(mask != 0)
    if not torch.equal(layout.elements_of(chosen).flatten(), (mask != 0).flatten()) or not (
        layout.holds(chosen) or mask.numel() == 0
    ):
        raise ValueError(_misfit(label, layout))
    return chosen


def _misfit(label: str, layout: Layout) -> str:
    axis, count, units = layout.place.axis.name.lower(), layout.count, layout.place.units
    return f"{label}: state 'mask' is no choice of {count} of {units} {axis}, the same share of every 256"


def _whole(param: Tensor, value: Any) -> Tensor:
    """Return the whole of a tensor that may be a DTensor, on the device of ``param``."""
    whole: Tensor = value.detach().full_tensor() if _sharding.is_sharded(value) else value.detach()
    return whole.to(param.device)


def _part(param: Tensor, value: Any) -> Tensor:
    """Return this process's part of a tensor of the shape of ``param``, which is a DTensor."""
    part: Tensor = _sharding.local(_distributed(param, value))
    return part.to(param.device).contiguous()


def _placed(param: Tensor, layout: Layout, value: Any) -> Tensor:
    """Return a whole compact state as ``param`` is placed."""
    if not _sharding.is_sharded(param):
        return _whole(param, value).contiguous()
    return _compact(param, layout, _sharding.local(_distributed(param, value)).contiguous())


def _distributed(param: Any, value: Any) -> Tensor:
    """Return ``value``, of which every process has the whole if it is no DTensor, on the processes as ``param`` is."""
    from torch.distributed.tensor import distribute_tensor

    if _sharding.is_sharded(value) and (value.device_mesh, value.placements) == (param.device_mesh, param.placements):
        placed: Tensor = value
        return placed
    return distribute_tensor(_whole(param, value), param.device_mesh, param.placements, src_data_rank=None)


def _compact(param: Tensor, layout: Layout, shard: Tensor) -> Tensor:
    if not _sharding.is_sharded(param) or is_split(param, layout.place.axis):
        return shard
    from torch.distributed.tensor import DTensor

    placed: Any = param
    shape = torch.Size(Layout(whole_place(param.shape, layout.place.axis), layout.count).state_shape)
    return DTensor.from_local(shard, placed.device_mesh, placed.placements, run_check=False, shape=shape, stride=(shape[1], 1))


def _in_memory_order(param: Tensor, dense: Tensor) -> Tensor:
    """Return the elements of a tensor of the shape of ``param`` in the order in which that has them."""
    if _sharding.is_sharded(param) or param.is_contiguous():
        return dense.contiguous()
    moved = torch.empty_like(param, dtype=dense.dtype, requires_grad=False).copy_(dense)
    return moved.as_strided((moved.numel(),), (1,))
