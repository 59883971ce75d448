"""Quantised states saved, loaded, copied and converted."""

from __future__ import annotations

import copy
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from momentum import optim, quant
from momentum.quant import StateFormat
from optim.cases import CASES, Gradients, assert_same_bits, make_params, params_of, snapshot, train
from optim.quantised import KINDS, LARGE, SHAPES, format_of, state_names, trained, value_of
from optim.test_state_dict import copy_params, save_and_load

VARIANTS = {
    **{kind: (torch.float32, {"state_format": kind}) for kind in KINDS},
    "all sizes": (torch.float32, {"state_format": "int4", "quantize_min_numel": 0}),
    "24 bits": (torch.bfloat16, {"state_format": "int4", "compensation": "low_bits", "ema_decay": 0.9}),
    "rank one": (torch.float32, {"state_format": StateFormat("dynamic8", scaling="rank_one")}),
    "grid": (torch.float32, {"state_format": StateFormat("dynamic4", 64, scaling="grid")}),
    "stochastic": (
        torch.bfloat16,
        {"state_format": StateFormat("dynamic8", 64, torch.bfloat16, "stochastic"), "cautious": True},
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_round_trip_in_the_middle_of_training(name, variant):
    """Through torch.save and torch.load(weights_only=True), bit for bit, and so do six steps more."""
    dtype, options = VARIANTS[variant]
    params, optimizer, gradients = trained(name, dtype=dtype, **options)
    twins = copy_params(params)
    resumed = CASES[name].make(twins, lr=0.9, **options)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    assert_same_bits(snapshot(optimizer), snapshot(resumed))
    stream = copy.deepcopy(gradients)
    train(optimizer, params, 6, gradients)
    train(resumed, twins, 6, stream)
    assert_same_bits(snapshot(optimizer), snapshot(resumed))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", ["AdamW", "Lion", "StableSPAM", "SCALE-momentum"])
def test_copies_go_on_alike_and_apart(name, duplicate):
    _, optimizer, gradients = trained(name, state_format="int4")
    twin = duplicate(optimizer)
    params, twins = params_of(optimizer), params_of(twin)
    before = snapshot(twin)
    stream = copy.deepcopy(gradients)
    train(optimizer, params, 4, gradients)
    assert_same_bits(before, snapshot(twin))
    train(twin, twins, 4, stream)
    assert_same_bits(snapshot(optimizer), snapshot(twin))


FORMATS = ["fp32", *KINDS]


@pytest.mark.parametrize("after", FORMATS)
@pytest.mark.parametrize("before", FORMATS)
@pytest.mark.parametrize("name", ["AdamW", "Lion", "SPAM", "SGD-momentum"])
def test_loading_converts(name, before, after):
    """What is loaded is in the loading optimizer's format: the saved numbers, quantised once."""
    params, donor, _ = trained(name, state_format=before)
    twins = copy_params(params)
    other = CASES[name].make(twins, state_format=after)
    other.load_state_dict(save_and_load(donor.state_dict()))
    for i, (param, twin) in enumerate(zip(params, twins, strict=True)):
        old, new = donor.state[param], other.state[twin]
        names = [key for key in ("exp_avg", "exp_avg_sq", "momentum_buffer") if key in old]
        assert state_names(new) == (names if i < LARGE and after != "fp32" else [])
        for key in names:
            value = value_of(old, param, key)
            if i < LARGE and after not in ("fp32", before):
                chosen = quant.FORMATS[after][key == "exp_avg_sq"]
                assert format_of(new, key) == chosen
                value = quant.quantize(value, chosen).dequantize()
            assert torch.equal(value_of(new, twin, key), value), (i, key)
    train(other, twins, 2, Gradients())


@pytest.mark.parametrize("kind", KINDS)
def test_torch_checkpoint_is_quantised(kind):
    params = make_params(shapes=SHAPES)
    theirs = torch.optim.AdamW(params)
    train(theirs, params, 5, Gradients())
    twins = copy_params(params)
    ours = optim.AdamW(twins, state_format=kind)
    ours.load_state_dict(save_and_load(theirs.state_dict()))
    for i, (param, twin) in enumerate(zip(params, twins, strict=True)):
        for key, unsigned in (("exp_avg", False), ("exp_avg_sq", True)):
            value = theirs.state[param][key]
            if i < LARGE:
                value = quant.quantize(value, quant.FORMATS[kind][unsigned]).dequantize()
            assert torch.equal(value_of(ours.state[twin], twin, key), value)
        assert ours.state[twin]["step"] == 5
    train(ours, twins, 1, Gradients())


def test_torch_continues_by_way_of_float32():
    """A quantised state is loaded into float32, which torch's class reads."""
    params, quantised, gradients = trained("AdamW", state_format="int8")
    twins, theirs_params = copy_params(params), copy_params(params)
    ours = optim.AdamW(twins)
    ours.load_state_dict(save_and_load(quantised.state_dict()))
    theirs = torch.optim.AdamW(theirs_params)
    theirs.load_state_dict(save_and_load(ours.state_dict()))
    stream = copy.deepcopy(gradients)
    train(ours, twins, 5, gradients)
    train(theirs, theirs_params, 5, stream)
    for p, q in zip(twins, theirs_params, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "chosen",
    [
        StateFormat("dynamic4", 64),
        StateFormat("dynamic4", 128, torch.bfloat16),
        StateFormat("linear8"),
        StateFormat("dynamic4", scaling="rank_one"),
    ],
)
def test_other_blocks_and_scales_are_converted(chosen):
    params, donor, _ = trained("Lion", state_format=chosen)
    twins = copy_params(params)
    other = CASES["Lion"].make(twins, state_format="int4")
    other.load_state_dict(donor.state_dict())
    for param, twin in zip(params[:LARGE], twins[:LARGE], strict=True):
        expected = quant.quantize(value_of(donor.state[param], param, "exp_avg"), "int4")
        assert torch.equal(other.state[twin]["exp_avg"], expected.codes)
        assert torch.equal(other.state[twin]["exp_avg_scale"], expected.scales)


def test_rounding_is_no_other_storage():
    """From nearest to stochastic codes stay as they are."""
    params, donor, _ = trained("Lion", state_format=StateFormat("dynamic8"))
    other = CASES["Lion"].make(copy_params(params), state_format=StateFormat("dynamic8", rounding="stochastic"))
    other.load_state_dict(donor.state_dict())
    old, new = snapshot(donor), snapshot(other)
    assert_same_bits(old, new)


def test_other_memory_format_is_converted():
    """Blocks follow the memory: loaded into another order, the numbers are quantised anew in theirs."""
    weight = torch.randn(16, 8, 8, 8)
    param = nn.Parameter(weight.clone())
    donor = optim.AdamW8bit([param])
    train(donor, [param], 2, Gradients())
    last = nn.Parameter(param.detach().to(memory_format=torch.channels_last))
    other = optim.AdamW8bit([last])
    other.load_state_dict(save_and_load(donor.state_dict()))
    for key, unsigned in (("exp_avg", False), ("exp_avg_sq", True)):
        value = value_of(donor.state[param], param, key)
        flat = value.permute(0, 2, 3, 1).reshape(-1)
        expected = quant.quantize(flat, quant.FORMATS["int8"][unsigned])
        assert torch.equal(other.state[last][key], expected.codes)
        got = value_of(other.state[last], last, key)
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(got, expected.dequantize().view(16, 8, 8, 8).permute(0, 3, 1, 2))
    last.grad = torch.ones_like(last)
    other.step()


def damage(key, change):
    def apply(saved):
        state = saved["state"][1]
        state[key] = change(state[key])

    return apply


def remove(key):
    return lambda saved: saved["state"][1].pop(key)


WHERE = r"load_state_dict: parameter 1 \(group 0\)"
DAMAGED = {
    "no_scale": (remove("exp_avg_scale"), WHERE + r".*'exp_avg' is quantised and lacks the tensor 'exp_avg_scale'"),
    "no_format": (remove("exp_avg_format"), WHERE + r".*'exp_avg' has shape \(2500,\), expected \(5000,\)"),
    "no_codes": (remove("exp_avg_sq"), WHERE + r".*lacks the state 'exp_avg_sq'"),
    "codes_short": (damage("exp_avg", lambda t: t[:-1]), WHERE + r".*'exp_avg' has shape \(2499,\), expected \(2500,\)"),
    "codes_dtype": (
        damage("exp_avg", lambda t: t.float()),
        WHERE + r".*'exp_avg' has dtype torch.float32, expected torch.uint8",
    ),
    "scales_short": (
        damage("exp_avg_sq_scale", lambda t: t[:-1]),
        WHERE + r".*'exp_avg_sq_scale' has shape \(39,\), expected \(40,\)",
    ),
    "scales_dtype": (damage("exp_avg_scale", lambda t: t.double()), WHERE + r".*'exp_avg_format'.*scale_dtype must be one of"),
    "scales_list": (damage("exp_avg_scale", lambda t: t.tolist()), WHERE + r".*lacks the tensor 'exp_avg_scale'"),
    "format_short": (
        damage("exp_avg_format", lambda t: t[:3]),
        WHERE + r".*'exp_avg_format'.*expected a map, a block, a scaling and an order of 1 dimensions",
    ),
    "format_empty": (damage("exp_avg_format", lambda t: t[:0]), WHERE + r".*'exp_avg_format'"),
    "format_map": (
        damage("exp_avg_format", lambda t: t + torch.tensor([90, 0, 0, 0])),
        WHERE + r".*'exp_avg_format'.*map must be one of dynamic4",
    ),
    "format_block": (
        damage("exp_avg_format", lambda t: t * torch.tensor([1, 3, 1, 1])),
        WHERE + r".*block must be one of 64, 128, 256",
    ),
    "format_scaling": (damage("exp_avg_format", lambda t: t + torch.tensor([0, 0, 7, 0])), WHERE + r".*scaling must be one of"),
    "format_float": (damage("exp_avg_format", lambda t: t + 0.5), WHERE + r".*'exp_avg_format'"),
    "other_shape": (damage("exp_avg_format", lambda t: torch.cat([t, t[-1:]])), WHERE + r".*an order of 1 dimensions"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_truncated_checkpoints_are_refused(case):
    """By name of parameter and state, and nothing has changed."""
    change, pattern = DAMAGED[case]
    _, donor, _ = trained("AdamW", steps=2, state_format="int4")
    saved = save_and_load(donor.state_dict())
    change(saved)
    params, optimizer, gradients = trained("AdamW", state_format="int4", lr=0.5)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=pattern):
        optimizer.load_state_dict(saved)
    assert_same_bits(before, snapshot(optimizer))
    assert optimizer.param_groups[0]["lr"] == 0.5
    train(optimizer, params, 1, gradients)


class Allocations(TorchDispatchMode):
    """The most bytes that tensors allocated inside have at any one time: storages are counted while they live."""

    def __init__(self, existing) -> None:
        super().__init__()
        self.existing = {tensor.untyped_storage()._cdata for tensor in existing}
        self.live: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.live and storage._cdata not in self.existing:
                    self.live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.most = max(self.most, sum(self.live.values()))
        return result


def bytes_of(optimizer):
    return sum(v.untyped_storage().nbytes() for s in optimizer.state.values() for k, v in s.items() if k != "step")


@pytest.mark.parametrize(("before", "after"), [("fp32", "int4"), ("int8", "int4"), ("int4", "int8"), ("int4", "int4")])
def test_memory_of_loading(before, after):
    """Besides the loaded states at most one of them exists in float32 at a time: that of the largest parameter."""
    shapes = [(64, 1024)] * 8
    params = make_params(shapes=shapes)
    donor = optim.AdamW(params, state_format=before)
    train(donor, params, 1, Gradients())
    saved = save_and_load(donor.state_dict())
    other = optim.AdamW(copy_params(params), state_format=after)
    with Allocations([value for state in saved["state"].values() for value in state.values()]) as measured:
        other.load_state_dict(saved)
    one = 64 * 1024 * 4
    states = 0 if before == after else bytes_of(other)
    assert measured.most <= states + one + 4096
    assert measured.most >= states
