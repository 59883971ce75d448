"""Optimizers by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from momentum import optim
from optim.cases import make_params


def test_every_class_has_its_name():
    made = {name: optim.create(name, nn.Linear(2, 2)) for name in optim.names()}
    assert {type(optimizer).__name__ for optimizer in made.values()} == set(made)
    assert {"AdamW", "Lion", "SPAM", "StableSPAM", "SCALE", "SGD", "Adan"} <= made.keys()
    assert "FusedOptimizer" not in made


@pytest.mark.parametrize("name", ["StableSPAM", "stablespam", "stable-spam", "Stable_Spam", "STABLE SPAM"])
def test_spelling_does_not_matter(name):
    assert type(optim.create(name, make_params(), lr=0.5)) is optim.StableSPAM


def test_options_and_groups_are_passed_on():
    params = make_params()
    optimizer = optim.create("adan", [{"params": params[:2]}, {"params": params[2:], "lr": 0.25}], lr=0.5, no_prox=True)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]
    assert optimizer.defaults["weight_decay_mode"] == "decoupled"


def test_a_module_is_sorted_for_scale():
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 5))
    names = [group["name"] for group in optim.create("scale", model).param_groups]
    assert names == ["column", "last", "adamw"]
    assert len(optim.create("lion", model).param_groups) == 1


@pytest.mark.parametrize(
    ("name", "nearest"), [("adamv", "Adam"), ("lyon", "Lion"), ("sofia-g", "SophiaG"), ("spamm", "SPAM"), ("", "")]
)
def test_nearest_name_is_suggested(name, nearest):
    with pytest.raises(
        ValueError, match=f"there is no optimizer '{name}': did you mean '{nearest}.*There are AdaBelief, Adam,"
    ):
        optim.create(name, [torch.zeros(2)])


def test_unknown_option_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
        optim.create("lion", make_params(), speed=3)
