"""Steps on a subset of a part of a tensor: the parts together are the whole, bit for bit."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch

from backends import BACKENDS
from momentum.enums import Units
from momentum.optim._subset_layout import Layout, Place, matrix_shape, unit_count, whole_place
from ops.cases import TensorCase
from ops.subset import SubsetCall, make_subset
from tolerances import bit_equal

ELEMENTS, COLUMNS, ROWS = Units
# Borders of parts at, before and after borders of blocks; parts without rows, columns or both; a part inside a block.
ROW_CUTS = {(700, 9): (0, 0, 3, 256, 700), (300, 257): (0, 1, 299, 300), (513, 40): (0, 100, 513), (5, 3): (0, 2, 5, 5)}
COL_CUTS = {(7, 1030): (0, 0, 250, 256, 259, 1030), (3, 2048): (0, 512, 1024, 2048), (40, 77): (0, 3, 77), (5, 3): (0, 2, 3, 3)}
OPTIONS = {"interval": 3, "phase": 1, "restart": True, "rest": 2, "rest_scale": 0.5}


def cut(call: SubsetCall, dim: int, begin: int, end: int) -> SubsetCall:
    """Return the call for rows or columns ``begin`` to ``end`` of the only tensor of ``call``."""
    axis, shape = Units(call.axis), torch.Size(call.cases[0].shape)
    part = call.clone()
    for name in ("params", "grads"):
        part.lists[name] = [call.lists[name][0].narrow(dim, begin, end - begin).contiguous()]
    rows, cols = local = tuple(part.lists["params"][0].shape)
    units = unit_count(shape, axis)
    if axis == ELEMENTS:
        start, lines = (begin * shape[1], 1) if dim == 0 else (begin, rows)
        place = Place(axis, lines, rows * cols // lines, units, start, shape[1] if lines > 1 else 0)
    else:
        place = Place(axis, *local, units, begin if (axis == COLUMNS) == (dim == 1) else 0)
    layout, whole = Layout(place, call.counts[0]), Layout(whole_place(shape, axis), call.counts[0])
    held = whole.chosen(call.lists["masks"][0])
    elements = whole.elements_of(held).reshape(shape).narrow(dim, begin, end - begin)
    chosen = layout.units_of(elements)
    part.lists["masks"] = [layout.mask(chosen)]
    for name in call.stored:
        dense = whole.spread(call.lists[name][0].reshape(whole.state_shape), held).reshape(shape)
        part.lists[name] = [layout.gather(dense.narrow(dim, begin, end - begin).contiguous(), chosen).flatten()]
    part.options["shards"] = place.op_numbers
    part.layout = layout
    return part


def dense_of(call: SubsetCall, layout: Layout, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Return the parameter, the choice and the states of every element."""
    chosen = layout.chosen(call.lists["masks"][0])
    found = {"param": call.lists["params"][0], "chosen": layout.elements_of(chosen).reshape(shape)}
    for name in call.stored:
        found[name] = layout.spread(call.lists[name][0].reshape(layout.state_shape), chosen).reshape(shape)
    return found


@pytest.mark.parametrize(("dim", "shape"), [*((0, shape) for shape in ROW_CUTS), *((1, shape) for shape in COL_CUTS)])
@pytest.mark.parametrize("axis", Units)
@pytest.mark.parametrize("rule", ["adam", "lion"])
def test_parts_make_the_whole(backend, rule, axis, dim, shape):
    """Over two draws; of elements also states that those chosen again keep."""
    cuts = (ROW_CUTS, COL_CUTS)[dim][shape]
    for options in (OPTIONS, OPTIONS | {"restart": False, "phase": 0}):
        if axis != ELEMENTS and not options["restart"]:
            continue
        call = make_subset(rule, [TensorCase(shape)], density=0.3, steps=(0,), device=backend.device, axis=int(axis), **options)
        parts = [cut(call, dim, begin, end) for begin, end in pairwise(cuts)]
        whole = Layout(whole_place(torch.Size(shape), axis), call.counts[0])
        assert whole.count == int(0.3 * unit_count(torch.Size(shape), axis))
        for _ in range(7):
            for c in (call, *parts):
                c.run(backend)
            expected = dense_of(call, whole, shape)
            found = [dense_of(part, part.layout, part.lists["params"][0].shape) for part in parts]
            for name, tensor in expected.items():
                assert bit_equal(torch.cat([f[name] for f in found], dim), tensor), name


@pytest.mark.parametrize("density", [0.0, 0.003, 1.0])
@pytest.mark.parametrize("axis", Units)
def test_densities(backend, axis, density):
    shape, cuts = (300, 257), (0, 1, 299, 300)
    options = OPTIONS | {"axis": int(axis)}
    call = make_subset("adam", [TensorCase(shape)], density=density, steps=(0,), device=backend.device, **options)
    parts = [cut(call, 0, begin, end) for begin, end in pairwise(cuts)]
    for _ in range(2):
        for c in (call, *parts):
            c.run(backend)
    expected = dense_of(call, Layout(whole_place(torch.Size(shape), axis), call.counts[0]), shape)
    found = [dense_of(part, part.layout, part.lists["params"][0].shape) for part in parts]
    for name, tensor in expected.items():
        assert bit_equal(torch.cat([f[name] for f in found]), tensor), name


def test_a_part_without_rows_draws_its_columns(backend):
    """Whichever process saves the choice of columns, it is the whole's."""
    call = make_subset("adam", [TensorCase((4, 700))], steps=(0,), device=backend.device, axis=int(COLUMNS), **OPTIONS)
    part = cut(call, 0, 2, 2)
    for _ in range(4):
        call.run(backend)
        part.run(backend)
        assert part.lists["masks"][0].any()
        assert torch.equal(part.lists["masks"][0], call.lists["masks"][0])


def test_states_of_a_part_take_what_its_share_does():
    """A shard of whole blocks has no unused room; another has less than the share of two blocks."""
    whole, count = 4096 * 4096, 4096 * 1024
    assert Layout(Place(ELEMENTS, 1, whole // 8, whole, whole // 8), count).state_shape == (count // 8,)
    assert Layout(Place(ELEMENTS, 4096, 512, whole, 512, 4096), count).state_shape == (count // 8,)
    assert Layout(Place(COLUMNS, 100, 512, 4096, 512), 1024).state_shape == (100, 128)
    odd = Layout(Place(ELEMENTS, 1, 100_000, whole, 12_345), count).state_shape[0]
    assert 25_000 <= odd < 25_000 + 2 * 64


REFUSED = {
    "short": ([24, 0, 24], r"shards has length 3, expected 4"),
    "another size": ([48, 0, 5, 0], r"shards\[0\] says that 24 units are lines of 5, the first from unit 0 of 48 on"),
    "outside": ([48, 25, 24, 0], r"the first from unit 25 of 48 on, one every 0, expected lines that make up the tensor"),
    "negative": ([48, -1, 24, 0], r"from unit -1"),
    "lines over each other": ([48, 0, 6, 5], r"lines of 6, the first from unit 0 of 48 on, one every 5"),
    "lines outside": ([48, 0, 6, 15], r"one every 15"),
    "lines in one place": ([48, 0, 6, 0], r"one every 0, expected"),
    "a large whole": ([2**40, 0, 24, 0], r"from unit 0 of 1099511627776 on"),
    "states of the whole": ([48, 0, 24, 0], r"exp_avgs\[0\] has shape \[6\], expected 12"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(backend, name):
    if backend.device != "cpu":
        pytest.skip("the checks are the same code")
    shards, pattern = REFUSED[name]
    call = make_subset("adam", [TensorCase((6, 4))], shards=shards)
    call.counts = [6 if name != "states of the whole" else 12]
    before = call.clone()
    with pytest.raises(RuntimeError) as caught:
        call.run(backend)
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert all(bit_equal(t, before.tensors()[key]) for key, t in call.tensors().items())


def test_rows_are_no_lines(backend):
    options = OPTIONS | {"axis": int(ROWS), "shards": [12, 0, 3, 6]}
    call = make_subset("adam", [TensorCase((6, 4))], density=0.5, **options)
    with pytest.raises(RuntimeError, match=r"shards\[0\] says that 6 units are lines of 3"):
        call.run(backend)


def test_opcheck():
    call = make_subset("adam", [TensorCase((33, 5))], density=0.5, steps=(0,), axis=int(ROWS), **OPTIONS)
    part = cut(call, 0, 7, 20)
    tensors = [part.lists[name] for name in ("params", "grads", *part.stored, "masks")]
    torch.library.opcheck(BACKENDS["cpu"].op("adam_subset_"), (*tensors, part.steps), {"counts": part.counts, **part.options})


def test_matrix_of_a_tensor():
    assert matrix_shape(torch.Size((3, 4, 5)), COLUMNS) == (3, 20)
    assert matrix_shape(torch.Size(()), ROWS) == (1, 1)
