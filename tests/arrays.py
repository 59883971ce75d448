"""What the tests of `momentum.array` share: tensors as NumPy arrays, calls of its functions, equality of bits."""

from __future__ import annotations

import numpy as np
import torch

from momentum import array


def as_array(value):
    """Return NumPy's view of a tensor (torch's own where NumPy has no such dtype), of tensors in a list, or the value."""
    if isinstance(value, list):
        return [as_array(item) for item in value]
    return value.numpy() if isinstance(value, torch.Tensor) and value.dtype != torch.bfloat16 else value


def run_on_arrays(call):
    lists = {name: as_array(tensors) for name, tensors in call.lists.items()}
    options = {name: as_array(value) for name, value in call.options.items()}
    function = getattr(array, f"{call.rule.name}_")
    function(**lists, steps=as_array(call.steps), totals=as_array(call.totals), **call.variant.hypers, **options)


def bits(value) -> bytes:
    """Return the memory of a contiguous array or tensor."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.view(torch.int16).numpy() if value.dtype == torch.bfloat16 else value.numpy()
    return np.asarray(value).tobytes()


def assert_same_bits(ours, theirs):
    """Compare every tensor of two calls."""
    for (name, ran), expected in zip(ours.tensors().items(), theirs.tensors().values(), strict=True):
        assert bits(ran) == bits(expected), name
