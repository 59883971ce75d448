"""Whatever a user does to parameters, groups and state between two steps, the next step uses what is there.

Each test does something to one of two equal optimizers that are then trained on; the other one, made anew from the same
state, has never cached anything.
"""

from __future__ import annotations

import copy
import weakref

import pytest
import torch
from torch import Tensor, nn

from momentum import optim
from optim.cases import CASES, CLASSES, Gradients, assert_same_bits, make_params, params_of, snapshot, train


def fresh(optimizer):
    """Return the same optimizer without anything remembered: its parts, deep-copied."""
    clone = object.__new__(type(optimizer))
    clone.__setstate__(copy.deepcopy(optimizer.__getstate__()))
    return clone


def assert_steps_as_fresh(optimizer, steps=2):
    """Train ``optimizer`` and a copy that remembers nothing on the same gradients."""
    other = fresh(optimizer)
    train(optimizer, params_of(optimizer), steps, Gradients(7))
    train(other, params_of(other), steps, Gradients(7))
    assert_same_bits(snapshot(optimizer), snapshot(other))


def replace_data(optimizer):
    for p in params_of(optimizer):
        p.data = p.data * 2


def replace_data_by_other_dtype(optimizer):
    for p in params_of(optimizer):
        p.data = p.data.to(torch.bfloat16)
        p.grad = None


def edit_param_in_place(optimizer):
    with torch.no_grad():
        for p in params_of(optimizer):
            p.mul_(0.5)


def clear_state(optimizer):
    optimizer.state.clear()


def pop_state(optimizer):
    optimizer.state.pop(params_of(optimizer)[1])


def empty_state(optimizer):
    optimizer.state[params_of(optimizer)[1]] = {}


def replace_state_dict_of_param(optimizer):
    p = params_of(optimizer)[1]
    optimizer.state[p] = {name: value + 1 for name, value in optimizer.state[p].items()}


def replace_whole_state(optimizer):
    optimizer.state = copy.deepcopy(dict(optimizer.state.items()), {id(p): p for p in optimizer.state})


def replace_one_state(optimizer):
    state = optimizer.state[params_of(optimizer)[0]]
    name = next(name for name in state if name != "step")
    state[name] = state[name] + 0.5


def edit_state_in_place(optimizer):
    for state in optimizer.state.values():
        for value in state.values():
            value.add_(1)


def delete_one_state(optimizer):
    state = optimizer.state[params_of(optimizer)[0]]
    del state[next(name for name in state if name not in ("step", "scalars"))]


def replace_step(optimizer):
    optimizer.state[params_of(optimizer)[0]]["step"] = torch.tensor(41.0)


def step_as_number(optimizer):
    for state in optimizer.state.values():
        state["step"] = int(state["step"])


def replace_step_data(optimizer):
    for state in optimizer.state.values():
        state["step"].data = state["step"].data.clone() + 3


def move_state_as_the_recipe_does(optimizer):
    for state in optimizer.state.values():
        for name, value in state.items():
            state[name] = value.to("cpu", copy=True)


def swap_states(optimizer):
    a, b = params_of(optimizer)[:2]
    optimizer.state[a], optimizer.state[b] = optimizer.state[b], optimizer.state[a]


def rekey_last_state(optimizer):
    last = params_of(optimizer)[-1]
    state = optimizer.state.pop(last)
    group = optimizer.param_groups[-1]
    group["params"][-1] = nn.Parameter(last.detach().clone())
    optimizer.state[group["params"][-1]] = state


def drop_param_from_group(optimizer):
    del optimizer.param_groups[0]["params"][0]


def replace_param_in_group(optimizer):
    params = optimizer.param_groups[0]["params"]
    params[0] = nn.Parameter(params[0].detach() + 1)


def reorder_params(optimizer):
    optimizer.param_groups[0]["params"].reverse()


def replace_params_list(optimizer):
    optimizer.param_groups[0]["params"] = optimizer.param_groups[0]["params"][1:]


def replace_groups(optimizer):
    optimizer.param_groups = [dict(group, lr=0.3) for group in optimizer.param_groups]


def split_group(optimizer):
    group = optimizer.param_groups[0]
    optimizer.param_groups.append(dict(group, params=group["params"][1:], lr=0.7))
    group["params"] = group["params"][:1]


def drop_group_params(optimizer):
    optimizer.param_groups[0]["params"].clear()


def change_rates(optimizer):
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = 0.33, 0.2


def rates_as_tensors(optimizer):
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = torch.tensor(0.33), torch.tensor(0.2)


def change_options(optimizer):
    for group in optimizer.param_groups:
        group["maximize"] = True
        group["weight_decay_mode"] = "prox"


def rescale_cautiously(optimizer):
    for group in optimizer.param_groups:
        group["cautious"] = "rescaled"


def keep_more(optimizer):
    for group in optimizer.param_groups:
        group["ema_decay"] = 0.9
        group["state_format"] = torch.bfloat16


def toggle_requires_grad(optimizer):
    for p in params_of(optimizer):
        p.requires_grad_(not p.requires_grad)


def step_one_param(optimizer):
    p = params_of(optimizer)[0]
    Gradients(3).fill([p])
    optimizer.step_param(p)


def load_own_state(optimizer):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


EDITS = [
    replace_data,
    replace_data_by_other_dtype,
    edit_param_in_place,
    clear_state,
    pop_state,
    empty_state,
    replace_state_dict_of_param,
    replace_whole_state,
    replace_one_state,
    edit_state_in_place,
    delete_one_state,
    replace_step,
    step_as_number,
    replace_step_data,
    move_state_as_the_recipe_does,
    swap_states,
    rekey_last_state,
    drop_param_from_group,
    replace_param_in_group,
    reorder_params,
    replace_params_list,
    replace_groups,
    split_group,
    drop_group_params,
    change_rates,
    rates_as_tensors,
    change_options,
    rescale_cautiously,
    keep_more,
    toggle_requires_grad,
    step_one_param,
    load_own_state,
]
SHAPES = [(4, 3)] * 4


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
@pytest.mark.parametrize("name", CLASSES)
def test_edit_between_steps(name, edit):
    params = make_params(shapes=SHAPES)
    optimizer = CASES[name].make(params)
    train(optimizer, params, 2, Gradients())
    edit(optimizer)
    assert_steps_as_fresh(optimizer)


@pytest.mark.parametrize("edit", [change_options, change_rates, replace_step, replace_one_state, drop_param_from_group])
def test_edit_between_single_steps(edit):
    """The plan of `step_param` notices the same."""
    params = make_params(shapes=SHAPES)
    optimizer = optim.AdamW(params)
    Gradients().fill(params)
    optimizer.step_param(params[1])
    optimizer.step_param(params[0])
    edit(optimizer)
    other = fresh(optimizer)
    for one in (optimizer, other):
        last = params_of(one)[0]
        Gradients(5).fill([last])
        one.step_param(last)
    assert_same_bits(snapshot(optimizer), snapshot(other))


def test_state_on_another_device_is_refused_and_forgotten():
    """A state that did not move with its parameter is an error; back again, the optimizer goes on."""
    param = nn.Parameter(torch.ones(3))
    optimizer = optim.AdamW([param])
    train(optimizer, [param], 1, Gradients())
    state = optimizer.state[param]
    here = state["exp_avg"]
    state["exp_avg"] = torch.ones(3, device="meta")
    before = param.detach().clone()
    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)meta"):
        train(optimizer, [param], 1, Gradients())
    assert torch.equal(param, before)
    state["exp_avg"] = here
    train(optimizer, [param], 1, Gradients())
    assert int(state["step"]) == 2


def test_new_shape_without_new_state_is_refused():
    param = nn.Parameter(torch.ones(3))
    optimizer = optim.AdamW([param])
    train(optimizer, [param], 1, Gradients())
    param.grad = None
    param.data = torch.ones(4)
    param.grad = torch.ones(4)
    with pytest.raises(RuntimeError, match=r"exp_avgs\[0\]"):
        optimizer.step()
    assert torch.equal(param, torch.ones(4))


def test_new_shape_where_no_state_has_one():
    """SCALE keeps nothing of the shape of a normalised matrix."""
    param = nn.Parameter(torch.ones(3, 2))
    optimizer = optim.SCALE([param])
    train(optimizer, [param], 1, Gradients())
    param.grad = None
    param.data = torch.ones(5, 4)
    assert_steps_as_fresh(optimizer)


def test_low_precision_after_the_first_step():
    """A parameter that becomes bfloat16 gets the compensation asked for, one that becomes float32 is done with it."""
    param = nn.Parameter(torch.ones(5))
    optimizer = optim.AdamW([param], compensation="kahan")
    train(optimizer, [param], 1, Gradients())
    assert "compensation" not in optimizer.state[param]
    param.grad, param.data = None, param.data.bfloat16()
    train(optimizer, [param], 1, Gradients())
    assert optimizer.state[param]["compensation"].dtype == torch.bfloat16
    param.grad, param.data = None, param.data.float()
    assert_steps_as_fresh(optimizer)


def test_module_to_after_construction():
    model = nn.Linear(3, 2)
    optimizer = optim.AdamW(model.parameters())
    model.to(torch.float64)
    model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    optimizer.step()
    assert optimizer.state[model.weight]["exp_avg"].dtype == torch.float64


def test_old_step_tensor_is_not_written():
    """A step count that was taken out of the state stays what it was."""
    params = make_params()
    optimizer = optim.AdamW(params)
    train(optimizer, params, 1, Gradients())
    taken = {i: optimizer.state[p].pop("step") for i, p in enumerate(params)}
    train(optimizer, params, 1, Gradients())
    assert all(int(step) == 1 for step in taken.values())


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "SPAM", "StableSPAM"])
def test_what_is_moved_away_between_steps_is_freed(name):
    """Offloading replaces states by copies elsewhere, for the sake of their memory."""
    param = nn.Parameter(torch.randn(64, 128))
    param.grad = torch.randn(64, 128)
    optimizer = getattr(optim, name)([param])
    for _ in range(3):
        optimizer.step()
    state = optimizer.state[param]
    held = {key: weakref.ref(value) for key, value in state.items() if isinstance(value, Tensor) and key != "step"}
    held["grad"] = weakref.ref(param.grad)
    assert len(held) >= 3
    for key in held.keys() - {"grad"}:
        state[key] = state[key].clone()
    param.grad = param.grad.clone()
    assert not [key for key, reference in held.items() if reference() is not None]
    optimizer.step()
