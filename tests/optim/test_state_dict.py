"""Saving, loading and copying: bit for bit, between classes, and with clear refusals."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from momentum import optim
from optim.cases import CASES, CLASSES, SHAPES, TWINS, Gradients, assert_same_bits, make_params, params_of, snapshot, train


def save_and_load(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def trained(make, steps=5, **options):
    params = make_params()
    optimizer = make(params, **options)
    gradients = Gradients()
    train(optimizer, params, steps, gradients)
    return params, optimizer, gradients


def copy_params(params):
    return [nn.Parameter(p.detach().clone()) for p in params]


OPTIONS = [{}, {"ema_decay": 0.9, "state_format": torch.bfloat16}, {"cautious": "rescaled", "rounding": "stochastic"}]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "ema", "cautious"])
@pytest.mark.parametrize("name", CASES)
def test_round_trip_in_the_middle_of_training(name, options):
    make = CASES[name].make
    params, optimizer, gradients = trained(make, **options)
    twins = copy_params(params)
    resumed = make(twins, lr=0.9, **options)
    resumed.load_state_dict(save_and_load(optimizer.state_dict()))
    assert_same_bits(snapshot(optimizer), snapshot(resumed))
    stream = copy.deepcopy(gradients)
    train(optimizer, params, 6, gradients)
    train(resumed, twins, 6, stream)
    assert_same_bits(snapshot(optimizer), snapshot(resumed))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", CASES)
def test_copies_go_on_alike_and_apart(name, duplicate):
    _, optimizer, gradients = trained(CASES[name].make)
    twin = duplicate(optimizer)
    params, twins = params_of(optimizer), params_of(twin)
    before = snapshot(twin)
    stream = copy.deepcopy(gradients)
    train(optimizer, params, 4, gradients)
    assert_same_bits(before, snapshot(twin))
    train(twin, twins, 4, stream)
    assert_same_bits(snapshot(optimizer), snapshot(twin))


def test_pickle_does_not_grow_with_the_square_of_the_parameters():
    def size(count):
        params = make_params(shapes=[(1,)] * count)
        optimizer = optim.SGD(params)
        train(optimizer, params, 1, Gradients())
        return len(pickle.dumps(optimizer)) / count

    assert size(400) < 1.5 * size(100)


TORCH_WAYS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


@pytest.mark.parametrize("way", TORCH_WAYS)
@pytest.mark.parametrize("name", TWINS)
def test_torch_checkpoint_continues_here(name, way):
    case = CASES[name]
    params, theirs, gradients = trained(case.twin, **TORCH_WAYS[way])
    twins = copy_params(params)
    ours = case.make(twins, lr=0.9)
    ours.load_state_dict(save_and_load(theirs.state_dict()))
    assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    stream = copy.deepcopy(gradients)
    train(theirs, params, 10, gradients)
    train(ours, twins, 10, stream)
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("way", TORCH_WAYS)
@pytest.mark.parametrize("name", TWINS)
def test_our_checkpoint_continues_in_torch(name, way):
    case = CASES[name]
    params, ours, gradients = trained(case.make)
    twins = copy_params(params)
    theirs = case.twin(twins, lr=0.9, **TORCH_WAYS[way])
    theirs.load_state_dict(save_and_load(ours.state_dict()))
    stream = copy.deepcopy(gradients)
    train(ours, params, 10, gradients)
    train(theirs, twins, 10, stream)
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-6)


def test_decoupled_weight_decay_travels():
    params, ours, _ = trained(lambda p: optim.Adam(p, weight_decay_mode="decoupled", weight_decay=0.5))
    assert ours.state_dict()["param_groups"][0]["decoupled_weight_decay"] is True
    theirs = torch.optim.Adam(copy_params(params))
    theirs.load_state_dict(ours.state_dict())
    back = optim.Adam(copy_params(params))
    saved = theirs.state_dict()
    del saved["param_groups"][0]["weight_decay_mode"]  # as torch alone would have written it
    back.load_state_dict(saved)
    assert back.param_groups[0]["weight_decay_mode"] == "decoupled"
    assert "decoupled_weight_decay" not in back.param_groups[0]


def test_numbers_as_step_counts():
    """Checkpoints of torch before 1.12 hold them as plain numbers."""
    params, theirs, _ = trained(torch.optim.AdamW)
    saved = copy.deepcopy(theirs.state_dict())
    for state in saved["state"].values():
        state["step"] = int(state["step"])
    twins = copy_params(params)
    ours = optim.AdamW(twins)
    ours.load_state_dict(saved)
    assert [float(ours.state[p]["step"]) for p in twins] == [5.0] * len(twins)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_loaded_states_keep_their_dtype(dtype):
    """Not cast to the parameter's dtype, nor to the default, and not after the next step either."""
    params = make_params(torch.bfloat16)
    optimizer = optim.AdamW(params, state_format={"exp_avg": dtype})
    train(optimizer, params, 2, Gradients())
    twins = copy_params(params)
    other = optim.AdamW(twins)
    other.load_state_dict(save_and_load(optimizer.state_dict()))
    train(other, twins, 1, Gradients())
    for p in twins:
        assert other.state[p]["exp_avg"].dtype == dtype
        assert other.state[p]["exp_avg_sq"].dtype == torch.float32


def test_loading_keeps_no_second_copy():
    params, optimizer, _ = trained(optim.AdamW)
    saved = save_and_load(optimizer.state_dict())
    addresses = {saved["state"][i]["exp_avg"].data_ptr() for i in range(len(params))}
    optimizer.load_state_dict(saved)
    train(optimizer, params, 1, Gradients())
    assert {optimizer.state[p]["exp_avg"].data_ptr() for p in params} == addresses


def test_other_memory_format_is_rearranged():
    weight = torch.randn(4, 2, 3, 3)
    param = nn.Parameter(weight.clone())
    optimizer = optim.AdamW([param])
    train(optimizer, [param], 1, Gradients())
    channels_last = nn.Parameter(param.detach().to(memory_format=torch.channels_last))
    other = optim.AdamW([channels_last])
    other.load_state_dict(optimizer.state_dict())
    state = other.state[channels_last]["exp_avg"]
    assert state.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(state, optimizer.state[param]["exp_avg"])
    channels_last.grad = torch.ones_like(channels_last)
    other.step()


def break_shape(saved):
    saved["state"][1]["exp_avg"] = torch.zeros(2)


def break_dtype(saved):
    saved["state"][1]["exp_avg"] = saved["state"][1]["exp_avg"].long()


def break_wide_dtype(saved):
    saved["state"][1]["exp_avg"] = saved["state"][1]["exp_avg"].double()


def break_type(saved):
    saved["state"][1]["exp_avg"] = [1.0]


def break_missing(saved):
    del saved["state"][1]["exp_avg"]


def break_unknown(saved):
    saved["state"][1]["exp_average"] = torch.zeros(33)


def break_step(saved):
    saved["state"][1]["step"] = torch.tensor(float("nan"))


def break_step_shape(saved):
    saved["state"][1]["step"] = torch.zeros(2)


def break_sparse(saved):
    saved["state"][1]["exp_avg"] = saved["state"][1]["exp_avg"].to_sparse()


BREAKS = {
    break_shape: r"parameter 1 \(group 0\): state 'exp_avg' has shape \(2,\), expected \(33,\)",
    break_dtype: r"parameter 1 .*'exp_avg' has dtype torch.int64",
    break_wide_dtype: r"parameter 1 .*'exp_avg' has dtype torch.float64",
    break_type: r"parameter 1 .*'exp_avg' is a list",
    break_missing: r"parameter 1 .*lacks the state 'exp_avg'",
    break_unknown: r"parameter 1 .*unknown state 'exp_average'",
    break_step: r"parameter 1 .*'step' is nan",
    break_step_shape: r"parameter 1 .*'step' has shape \(2,\)",
    break_sparse: r"parameter 1 .*'exp_avg' has layout",
}


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["Adam", "AdamW", "Lion", "SPAM", "StableSPAM"])
def test_state_that_does_not_fit_is_refused(name, damage):
    make = CASES[name].make
    _, donor, _ = trained(make, steps=2)
    saved = save_and_load(donor.state_dict())
    damage(saved)
    params, optimizer, gradients = trained(make, steps=3, lr=0.5)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=BREAKS[damage]):
        optimizer.load_state_dict(saved)
    assert_same_bits(before, snapshot(optimizer))
    assert optimizer.param_groups[0]["lr"] == 0.5
    train(optimizer, params, 1, gradients)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("donor", CLASSES)
def test_state_of_another_optimizer_is_refused(name, donor):
    """Unless the states are the same by name and meaning enough to be continued."""
    moments, averages = {"Adam", "AdamP", "AdamW", "AdamW-orthograd", "SPAM"}, {"Lion", "NormalizedSGD"}
    alike = [moments, averages, {"SophiaG", "SophiaH"}, {"SGD-momentum", "SGDP"}]
    if name == donor or any({name, donor} <= names for names in alike):
        pytest.skip("continues")
    if "SCALE-momentum" in (name, donor) and {name, donor} & averages:
        pytest.skip("SCALE's groups differ in number")
    _, other, _ = trained(CASES[donor].make)
    _, optimizer, _ = trained(CASES[name].make)
    before = snapshot(optimizer)
    # The saved options are looked at first: a pair of betas is none of Adan's, a threshold none of Lion's sign, and SPAM has
    # no step without a density.
    refusal = r"load_state_dict: .*(state|groups)|betas must be|has no threshold|nesterov=True needs|density must be"
    with pytest.raises((ValueError, TypeError), match=refusal):
        optimizer.load_state_dict(other.state_dict())
    assert_same_bits(before, snapshot(optimizer))


def test_groups_that_do_not_match_are_refused():
    params = make_params()
    saved = optim.AdamW([{"params": params[:2]}, {"params": params[2:]}]).state_dict()
    with pytest.raises(ValueError, match="2 parameter groups were saved, the optimizer has 1"):
        optim.AdamW(make_params()).load_state_dict(saved)
    saved = optim.AdamW(make_params(shapes=SHAPES[:2])).state_dict()
    with pytest.raises(ValueError, match="group 0 was saved with 2 parameters and has 6"):
        optim.AdamW(make_params()).load_state_dict(saved)


def test_invalid_saved_options_are_refused():
    _, optimizer, _ = trained(optim.AdamW)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["eps"] = -1.0
    with pytest.raises(ValueError, match="eps"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["eps"] == 1e-8


def test_hooks_around_saving_and_loading():
    _, optimizer, _ = trained(optim.AdamW)
    seen = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("save"))
    optimizer.register_load_state_dict_pre_hook(lambda o, saved: seen.append("load") or {**saved, "extra": 1})
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["save", "load", "loaded"]


def test_options_added_since_a_pickle_was_written_get_defaults():
    _, optimizer, _ = trained(optim.AdamW)
    state = optimizer.__getstate__()
    del state["param_groups"][0]["cautious"]
    other = object.__new__(optim.AdamW)
    other.__setstate__(state)
    assert other.param_groups[0]["cautious"] is False
