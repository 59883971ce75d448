"""Calls of optimizer ops whose states are quantised, and their comparison with the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from blocks import DECODE, assert_encoded, find_scales, spread_scales
from momentum.quant import StateFormat
from momentum.reference import quant
from momentum.reference.formats import words
from ops.call import Call, check_param, check_stored, expected, make_call
from ops.cases import BF16, EDGES, FP16, FP32, FP64, GUARD, TensorCase, layouts
from rules import POSITIVE

Which = Callable[[str, int], bool]

SIGNED = {
    "int4": StateFormat("dynamic4"),
    "int8": StateFormat("dynamic8"),
    "fp8": StateFormat("float8"),
    "small": StateFormat("dynamic4_minus_one", 64, BF16),
    "linear": StateFormat("linear8", 128, FP16),
    "stochastic": StateFormat("dynamic4", 256, rounding="stochastic"),
    "rank_one": StateFormat("dynamic8", scaling="rank_one"),
    "grid": StateFormat("linear8", 64, rounding="stochastic", scaling="grid"),
}
UNSIGNED = {
    "int4": StateFormat("linear4"),
    "int8": StateFormat("unsigned_dynamic8"),
    "fp8": StateFormat("float8"),
    "small": StateFormat("unsigned_dynamic4", 256, BF16),
    "linear": StateFormat("linear4", 64, FP16),
    "stochastic": StateFormat("unsigned_dynamic8", rounding="stochastic"),
    "rank_one": StateFormat("linear4", scaling="rank_one"),
    "grid": StateFormat("linear4", 64, scaling="grid"),
}
CODE_GUARD = 0xA5


def formats_of(call: Call, kind: str) -> dict[str, StateFormat]:
    """Return a format for each state that the call stores."""
    names = call.rule.stored(call.variant)
    return {name: (UNSIGNED if name in POSITIVE else SIGNED)[kind] for name in names}


def memory_order(tensor: Tensor, case: TensorCase) -> Tensor:
    """Return the elements in the order in which the case's tensors lie in memory."""
    laid = torch.empty_strided(case.shape, case.strides(), dtype=tensor.dtype).copy_(tensor)
    return laid.as_strided((laid.numel(),), (1,))


def in_shape(flat: Tensor, case: TensorCase) -> Tensor:
    return flat.as_strided(case.shape, case.strides()) if flat.numel() else flat.reshape(case.shape)


def place_codes(codes: Tensor, case: TensorCase, device: str) -> Tensor:
    """Return codes at the case's offset in bytes, between guards."""
    memory = torch.full((GUARD + case.offset + codes.numel() + GUARD,), CODE_GUARD, dtype=torch.uint8, device=device)
    begin = GUARD + case.offset
    memory[begin : begin + codes.numel()] = codes.to(device)
    return memory[begin : begin + codes.numel()]


def guards_of_codes_intact(codes: Tensor) -> bool:
    whole = torch.empty(0, dtype=torch.uint8, device=codes.device).set_(codes.untyped_storage())
    first = codes.storage_offset()
    return bool((whole[:first] == CODE_GUARD).all() and (whole[first + codes.numel() :] == CODE_GUARD).all())


def quantise(call: Call, formats: dict[str, StateFormat], which: Which = lambda name, i: True) -> Call:
    """Put codes and scales in the place of the states that ``which`` chooses; those of float64 parameters stay."""
    numbers: list[int] = []
    scales: list[Tensor] = []
    device = call.steps.device.type
    for name in call.rule.states:
        chosen = formats.get(name)
        numbers += chosen.op_numbers() if chosen else [0, 0, 0, 0]
        if chosen is None:
            continue
        for i, case in enumerate(call.cases):
            scattered = chosen.scaling != "block" and case.layout != "contiguous"
            if case.param == FP64 or scattered or not which(name, i):
                scales.append(torch.empty(0, device=device))
                continue
            values = memory_order(call.lists[name][i].cpu(), case).double()
            stored = find_scales(chosen, values, case.shape).to(chosen.scale_dtype)
            codes, _, _ = quant.quantize(values, spread_scales(chosen, stored, case.shape), chosen.map)
            call.lists[name][i] = place_codes(quant.pack(codes, chosen.map), case, device)
            case_of_scales = replace(case, shape=(stored.numel(),), layout="contiguous")
            scales.append(case_of_scales.place(stored.double(), chosen.scale_dtype, device))
    call.lists["scales"] = scales
    call.options["state_formats"] = numbers
    return call


def scales_of(call: Call, formats: dict[str, StateFormat], name: str, i: int) -> Tensor:
    names = [n for n in call.rule.states if n in formats]
    return call.lists["scales"][names.index(name) * len(call.cases) + i]


def dequantised(call: Call, formats: dict[str, StateFormat]) -> Call:
    """Return the call with the exact numbers that its codes stand for as states, in float64."""
    lists = {name: list(tensors) for name, tensors in call.lists.items() if name != "scales"}
    for name, chosen in formats.items():
        for i, case in enumerate(call.cases):
            if lists[name][i].dtype == torch.uint8:
                codes = quant.unpack(lists[name][i].cpu(), chosen.map, torch.Size(case.shape).numel())
                each = spread_scales(chosen, scales_of(call, formats, name, i).cpu(), case.shape)
                exact = quant.dequantize(codes, each, chosen.map)
                lists[name][i] = in_shape(exact, case)
    return replace(call, lists=lists)


def state_words(call: Call, i: int, k: int) -> Tensor:
    """Return the random word of every element of state number ``k``, in the order of memory."""
    seed = (call.option("seeds", i, 0) ^ (k + 1) * 0x9E3779B97F4A7C15) % 2**64
    index = torch.arange(torch.Size(call.cases[i].shape).numel())
    shards = call.options.get("shards")
    if shards:
        offset, inner, outer = shards[3 * i : 3 * i + 3]
        index = offset + index // inner * outer + index % inner
    return words(seed, int(call.steps[i].item()) + 1, index)


def check(before: Call, after: Call, formats: dict[str, StateFormat]) -> None:
    """Compare every tensor of ``after`` with the reference's step from the numbers that the codes of ``before`` stand for.

    The parameter is stepped with the new states as they are; what is kept of them is rounded.
    """
    exact = dequantised(before, formats)
    rule = before.rule
    for i, case in enumerate(before.cases):
        outputs, bounds = expected(exact, i, DECODE)
        check_param(before, after, i, outputs["param"], bounds["param"])
        if "ema" in outputs:
            check_stored(after.lists["ema_params"][i], outputs["ema"], bounds["ema"], f"ema_params[{i}] of {case}")
        if rule.scalars:
            check_stored(after.lists["scalars"][i], outputs["scalars"], bounds["scalars"], f"scalars[{i}] of {case}")
        for k, (name, state) in enumerate(rule.stored(before.variant).items()):
            what, got = f"{name}[{i}] of {case}", after.lists[name][i]
            if got.dtype != torch.uint8:
                check_stored(got, outputs[state], bounds[state], what)
                continue
            random = state_words(before, i, k) if formats[name].rounding == "stochastic" else None
            value, bound = memory_order(outputs[state], case), memory_order(bounds[state], case)
            assert_encoded(got, scales_of(after, formats, name, i), value, bound, formats[name], random, what, case.shape)
            assert guards_of_codes_intact(got), f"{what}: written outside"
    completed = before.steps + 1
    completed[-1] = 0
    assert torch.equal(after.steps, completed), "steps"


def mixed_cases(lines: bool = False) -> list[TensorCase]:
    """Return every edge size with dtypes, alignments and layouts that take turns."""
    mixes = [(FP32, FP32), (BF16, BF16), (FP16, FP16), (BF16, FP32), (FP32, BF16), (FP64, FP64)]
    shapes = [(n,) for n in (*EDGES, 63, 64, 65, 2048)] + [(5, 7), (33, 65), (), (4, 0), (129, 65)]
    cases = [
        TensorCase(shape, *mixes[i % 6], (FP64,) * 3 if i % 6 == 5 else (FP32, BF16, FP16), offset=i % 4)
        for i, shape in enumerate(shapes)
    ]
    return cases if lines else cases + layouts()


def quantised_call(rule, variant, kind: str, cases: list[TensorCase] | None = None, *, which: Which | None = None, **options):
    """Return a call with quantised states, and their formats; by default some tensors keep plain ones."""
    call = make_call(rule, variant, mixed_cases(rule.lines) if cases is None else cases, **options)
    formats = formats_of(call, kind)
    return quantise(call, formats, which or (lambda name, i: i % 5 != 3)), formats
