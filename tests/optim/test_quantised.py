"""Optimizers with quantised states: which states are, how many bytes they take, and options that change in between."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from blocks import DECODE, assert_encoded
from momentum import optim, quant
from momentum.quant import StateFormat
from optim.cases import CASES, CLASSES, Gradients, assert_same_bits, make_params, snapshot, train
from optim.quantised import KINDS, LARGE, SHAPES, format_of, state_names, trained, value_of
from optim.test_state_dict import save_and_load
from tolerances import ROUNDINGS, UNIT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLASSES)
def test_states_are_quantised_as_asked(name, kind):
    """Those of parameters with at least 4096 elements, moments with a sign and without one each in its table."""
    params, optimizer, _ = trained(name, state_format=kind)
    for i, param in enumerate(params):
        state = optimizer.state[param]
        rule = optimizer._rule_of(next(g for g in optimizer.param_groups if any(p is param for p in g["params"])))
        moments = [key for key in rule.states if key in state]
        assert state_names(state) == (moments if i < LARGE else [])
        for key in moments:
            expected = quant.FORMATS[kind][key in rule.non_negative] if i < LARGE else torch.float32
            assert format_of(state, key) == expected
            assert value_of(state, param, key).shape == param.shape


ALIASES = {
    **{f"{name}{bits}bit": (name, f"int{bits}") for name in ("Adam", "AdamW", "Lion", "SPAM") for bits in (4, 8)},
}


@pytest.mark.parametrize("alias", ALIASES)
def test_named_classes_are_the_option(alias):
    name, kind = ALIASES[alias]
    params, twins = make_params(shapes=SHAPES), make_params(shapes=SHAPES)
    named = getattr(optim, alias)(params, lr=0.01)
    option = getattr(optim, name)(twins, lr=0.01, state_format=kind)
    train(named, params, 3, Gradients())
    train(option, twins, 3, Gradients())
    assert_same_bits(snapshot(named), snapshot(option))
    assert named.param_groups[0]["state_format"] == kind
    assert not state_names(getattr(optim, alias)(make_params(), state_format="fp32").state)


def test_a_step_is_that_of_the_numbers_that_are_stored():
    """From the same codes, a float32 optimizer with the numbers they stand for makes the same step, up to rounding."""
    params, quantised, gradients = trained("AdamW", state_format="int8", quantize_min_numel=0)
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    plain = optim.AdamW(twins)
    plain.load_state_dict(save_and_load(quantised.state_dict()))
    gradients.fill(params)
    for p, twin in zip(params, twins, strict=True):
        twin.grad = p.grad.clone()
    before = [p.detach().clone() for p in params]
    moments = [plain.state[twin]["exp_avg"].clone() for twin in twins]
    quantised.step()
    plain.step()
    # Both are within as many roundings of the exact step, and the numbers themselves within those of decoding.
    roundings = 2 * ROUNDINGS["adam"].total + DECODE
    for p, twin, old, m in zip(params, twins, before, moments, strict=True):
        change = (twin.detach() - old).abs()
        # Two terms of the first moment may cancel; the step is as sensitive to them as to what is left of them.
        terms = (0.9 * m).abs() + (0.1 * p.grad).abs()
        amplified = change * (terms / plain.state[twin]["exp_avg"].abs()).nan_to_num(nan=1.0, posinf=1.0)
        bound = UNIT[torch.float32] * (2 * roundings * (amplified + change) + 4 * old.abs())
        assert ((p.detach() - twin.detach()).abs() <= bound).all()
        for key, unsigned in (("exp_avg", False), ("exp_avg_sq", True)):
            chosen, values = quant.FORMATS["int8"][unsigned], plain.state[twin][key].double().flatten()
            size = values if unsigned else terms.double().flatten()
            codes, scales = quantised.state[p][key], quantised.state[p][key + "_scale"]
            assert_encoded(codes, scales, values, UNIT[torch.float32] * roundings * size, chosen, None, key)


def test_formats_by_state():
    chosen = StateFormat("dynamic4_minus_one", 64, torch.bfloat16, "stochastic")
    params, optimizer, _ = trained(
        "AdamW-amsgrad", state_format={"exp_avg": chosen, "exp_avg_sq": "fp8", "max_exp_avg_sq": "bf16"}
    )
    for param in params[:LARGE]:
        state = optimizer.state[param]
        assert format_of(state, "exp_avg") == StateFormat(chosen.map, 64, torch.bfloat16)
        assert format_of(state, "exp_avg_sq") == StateFormat("float8")
        assert state["max_exp_avg_sq"].dtype == torch.bfloat16
    params, optimizer, _ = trained("AdamW", state_format={"exp_avg": "int4"})
    assert state_names(optimizer.state[params[0]]) == ["exp_avg"]
    assert optimizer.state[params[0]]["exp_avg_sq"].dtype == torch.float32


@pytest.mark.parametrize(("least", "quantised"), [(0, 6), (1, 5), (12, 4), (13, 2 + 1), (4550, 2), (4551, 1), (5001, 0)])
def test_smallest_parameter_that_is_quantised(least, quantised):
    """SHAPES have 4550, 5000, 33, 1, 0 and 12 elements."""
    params, optimizer, _ = trained("Lion", state_format="int4", quantize_min_numel=least)
    assert sum(bool(state_names(optimizer.state[p])) for p in params) == quantised


NAMES = ["embed.weight", "layers.0.weight", "layers.0.bias", "head.weight"]


@pytest.mark.parametrize(
    ("exceptions", "kept"),
    [
        ((), []),
        (("*.bias", "embed*"), [0, 2]),
        (["head.weight"], [3]),
        ((1, "head.*"), [1, 3]),
        (lambda name, param: param.ndim == 1 or name.startswith("embed"), [0, 2]),
    ],
)
def test_full_precision(exceptions, kept):
    params = make_params(shapes=[(64, 65), (65, 64), (4160,), (4160, 1)])
    optimizer = optim.AdamW4bit(list(zip(NAMES, params, strict=True)), full_precision=exceptions)
    train(optimizer, params, 2, Gradients())
    assert [i for i, p in enumerate(params) if not state_names(optimizer.state[p])] == kept
    assert all(optimizer.state[params[i]]["exp_avg"].dtype == torch.float32 for i in kept)


def test_full_precision_by_group():
    params = make_params(shapes=[(64, 65), (65, 64)])
    optimizer = optim.AdamW4bit([{"params": params[:1], "state_format": "fp32"}, {"params": params[1:]}])
    train(optimizer, params, 2, Gradients())
    assert [bool(state_names(optimizer.state[p])) for p in params] == [False, True]


BAD = [
    (
        {"state_format": "int2"},
        ValueError,
        r"one of 'fp32', 'bf16', 'fp16', 'int4', 'int8', 'fp8', a StateFormat or .*, got 'int2'",
    ),
    ({"state_format": torch.uint8}, ValueError, r"state_format must be one of"),
    ({"state_format": {"exp_avg": "nibble"}}, ValueError, r"got 'nibble'"),
    ({"state_format": {"moment": "int4"}}, ValueError, r"unknown state 'moment': expected one of exp_avg, exp_avg_sq, "),
    ({"state_format": {"exp_avg": StateFormat("linear4")}}, ValueError, r"linear4 has no sign, and state 'exp_avg' needs one"),
    ({"state_format": StateFormat("unsigned_dynamic8")}, ValueError, r"unsigned_dynamic8 has no sign"),
    ({"state_format": {"ema": "int8"}}, ValueError, r"'ema' is not quantised"),
    ({"quantize_min_numel": -1}, ValueError, r"quantize_min_numel must be in"),
    ({"quantize_min_numel": 1.5}, TypeError, r"quantize_min_numel must be an integer"),
    ({"full_precision": "bias"}, TypeError, r"full_precision must be a sequence"),
    ({"full_precision": 3}, TypeError, r"full_precision must be a sequence"),
    ({"full_precision": (1.5,)}, TypeError, r"full_precision holds 1.5"),
    ({"full_precision": ("*.bias",)}, ValueError, r"give the optimizer model.named_parameters\(\)"),
    ({"compensation": "low-bits"}, ValueError, r"compensation must be one of None, 'kahan', 'master', 'low_bits'"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD, ids=[f"{next(iter(o))}{i}" for i, (o, _, _) in enumerate(BAD)])
def test_options_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        optim.AdamW(make_params(), **options)
    optimizer = optim.AdamW(make_params())
    with pytest.raises(error, match=message):
        optimizer.add_param_group({"params": make_params(shapes=[(3,)]), **options})
    assert len(optimizer.param_groups) == 1


MOST_BYTES = {"int4": 1.07, "int8": 2.04, "fp8": 2.04}


@pytest.mark.parametrize("kind", MOST_BYTES)
@pytest.mark.parametrize("name", ["AdamW", "SPAM", "StableSPAM"])
def test_state_bytes(name, kind):
    """Of everything a state holds but the step count, per element of a parameter."""
    params = make_params(shapes=[(512, 512), (1000, 77)])
    optimizer = CASES[name].make(params, state_format=kind)
    train(optimizer, params, 1, Gradients())
    for param in params:
        tensors = [value for key, value in optimizer.state[param].items() if key != "step"]
        held = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        assert held <= MOST_BYTES[kind] * param.numel()


def test_bytes_of_24_bit_parameters_with_4_bit_states():
    """bfloat16 and 8 more bits, m and v in 4 bits: 4.07 bytes per parameter are kept."""
    params = make_params(torch.bfloat16, shapes=[(512, 512)])
    optimizer = optim.AdamW4bit(params, compensation="low_bits")
    train(optimizer, params, 1, Gradients())
    state = optimizer.state[params[0]]
    assert state["low_bits"].dtype == torch.int8
    assert params[0].nbytes + sum(v.untyped_storage().nbytes() for k, v in state.items() if k != "step") <= 4.07 * 512 * 512


@pytest.mark.parametrize("after", ["fp32", *KINDS])
@pytest.mark.parametrize("before", ["fp32", *KINDS])
def test_changing_the_format_between_steps(before, after):
    """The state is converted at the next step, which is then that of an optimizer made so."""
    params, optimizer, gradients = trained("AdamW", state_format=before)
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    other = CASES["AdamW"].make(twins, state_format=after)
    other.load_state_dict(save_and_load(optimizer.state_dict()))
    optimizer.param_groups[0]["state_format"] = after
    gradients.fill(params)
    for p, twin in zip(params, twins, strict=True):
        twin.grad = p.grad.clone()
    optimizer.step()
    other.step()
    assert_same_bits(snapshot(optimizer), snapshot(other))


def test_a_wrong_format_between_steps_is_refused():
    params, optimizer, gradients = trained("AdamW", state_format="int4")
    before = snapshot(optimizer)
    optimizer.param_groups[0]["state_format"] = "int3"
    gradients.fill(params)
    with pytest.raises(ValueError, match="got 'int3'"):
        optimizer.step()
    assert_same_bits(before, snapshot(optimizer))


def test_channels_last():
    """Blocks follow the memory: the codes are those of the same memory as a vector."""
    weight = torch.randn(16, 8, 8, 8).to(memory_format=torch.channels_last)
    param, twin = nn.Parameter(weight.clone()), nn.Parameter(weight.permute(0, 2, 3, 1).reshape(-1).clone())
    ours, theirs = optim.AdamW4bit([param]), optim.AdamW4bit([twin])
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        twin.grad = torch.randn(weight.numel(), generator=generator)
        param.grad = twin.grad.view(16, 8, 8, 8).permute(0, 3, 1, 2)
        ours.step()
        theirs.step()
    assert param.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(param.permute(0, 2, 3, 1).reshape(-1), twin)
    for key in ("exp_avg", "exp_avg_sq", "exp_avg_scale", "exp_avg_sq_scale"):
        assert torch.equal(ours.state[param][key], theirs.state[twin][key])


def test_rows_and_columns_are_those_of_contiguous_matrices():
    """Other parameters keep float32 states; vectors are scaled in blocks."""
    chosen = {"exp_avg_sq": StateFormat("linear4", scaling="rank_one")}
    params = make_params(shapes=[(64, 80), (5000,), (8, 16, 8, 8)])
    params.append(nn.Parameter(params[2].detach().to(memory_format=torch.channels_last)))
    optimizer = optim.AdamW(params, state_format=chosen)
    for _ in range(2):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    states = [optimizer.state[p] for p in params]
    assert [len(state["exp_avg_sq_scale"]) for state in states[:3]] == [64 + 80, 40, 8 + 1024]
    assert not state_names(states[3])


@pytest.mark.parametrize("kind", KINDS)
def test_float64_parameters_keep_float64_states(kind):
    params, optimizer, _ = trained("AdamW", dtype=torch.float64, state_format=kind)
    assert all(optimizer.state[p]["exp_avg"].dtype == torch.float64 for p in params)


def test_stepping_one_parameter_in_backward():
    """step_param draws and stores as step does."""
    options = {"state_format": StateFormat("dynamic8", rounding="stochastic"), "lr": 0.01}
    options["state_format"] = {"exp_avg": options["state_format"], "exp_avg_sq": "int8"}
    params, twins = make_params(shapes=SHAPES), make_params(shapes=SHAPES)
    whole, single = optim.AdamW(params, **options), optim.AdamW(twins, **options)
    ours, theirs = Gradients(), Gradients()
    for _ in range(3):
        train(whole, params, 1, ours)
        theirs.fill(twins)
        for twin in twins:
            single.step_param(twin)
    assert_same_bits(snapshot(whole), snapshot(single))
