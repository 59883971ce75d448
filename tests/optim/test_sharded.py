"""Parameters spread over two processes step as they do in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ranks
from optim.cases import assert_same_bits
from optim.sharded import (
    MODEL_SIZES,
    MODELS,
    RUNS,
    STEPS,
    load,
    make_model,
    run_shards,
    save,
    train_model,
    train_tensors,
    whole_state,
)
from tolerances import ROUNDINGS, UNIT

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized"),
    pytest.mark.xdist_group("sharded"),  # the two processes run once
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Run the two processes once, with checkpoints of one process beside them, and return their folder."""
    folder = tmp_path_factory.mktemp("sharded")
    for name, make in MODELS.items():
        model = make_model(*MODEL_SIZES.get(name, ()))
        optimizer = make(model.parameters())
        train_model(model, optimizer, 5)
        save(model, optimizer, folder / f"{name}-from-1")
    ranks.run(run_shards, folder)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return torch.load(folder / "found.pt", weights_only=True)


REDUCING = {
    "AMAdamW": "adaptive_memory",
    "AdamP": "adamp",
    "AdamW-orthograd": "adam",
    "Adan-clipped": "adan",
    "Lion-row": "scale",
    "NormalizedSGD": "normalized",
    "NormalizedSGD-all": "normalized",
    "SCALE": "scale",
    "SGDP": "sgdp",
    "StableSPAM-orthograd": "stable_spam",
    "SCALE-momentum": "scale",
    "SGDSaI": "sgd_sai",
    "StableSPAM": "stable_spam",
}
"""Optimizers whose steps depend on totals of tensors, and their ops."""


def assert_close(ours, whole, op: str) -> None:
    """Totals are summed in another order: each step may differ by what the reduction's bound allows."""
    assert ours.keys() == whole.keys()
    for name, value in whole.items():
        bound = STEPS * ROUNDINGS[op].total * UNIT[torch.float32] * max(value.abs().max().item(), 1e-3)
        torch.testing.assert_close(ours[name], value, rtol=0, atol=bound, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("label", RUNS)
def test_shards_step_as_the_whole(found, label):
    """Bit for bit, stochastic rounding included; but for the order of sums where a rule reduces."""
    run = RUNS[label]
    whole = train_tensors(torch.Tensor.clone, {**run, "options": run["options"] | run["whole"]})
    name = run["name"]
    if name in REDUCING:
        assert_close(found[label], whole, REDUCING[name])
    else:
        assert_same_bits(found[label], whole)


def test_rows_in_parts_are_refused(folder):
    text = (folder / "refusal").read_text()
    assert "parameter 0 of the step, of shape (4, 6)" in text
    assert "expected rows that lie whole on one process" in text


def assert_near(ours, whole) -> None:
    """Gradients are averaged in another order. A code may be the neighbouring one where that decides: few do."""
    if whole.dtype == torch.uint8:
        assert ours.shape == whole.shape
        assert (ours != whole).float().mean() < 0.02
    else:
        torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_fsdp_trains_as_one_process(found, name):
    model = make_model(*MODEL_SIZES.get(name, ()))
    optimizer = MODELS[name](model.parameters())
    train_model(model, optimizer, 5)
    for key, value in whole_state(model, optimizer).items():
        assert_near(found[f"model {name}"][key], value)


@pytest.mark.parametrize("name", MODELS)
def test_checkpoint_of_two_processes_continues_in_one(folder, found, name):
    model = make_model(*MODEL_SIZES.get(name, ()))
    optimizer = MODELS[name](model.parameters())
    load(model, optimizer, folder / f"{name}-from-2")
    assert_same_bits(found[f"model {name}"], whole_state(model, optimizer))
    train_model(model, optimizer, 3, seed=1)
    for key, value in whole_state(model, optimizer).items():
        assert_near(found[f"model {name} continued"][key], value)


@pytest.mark.parametrize("name", MODELS)
def test_checkpoint_of_one_process_continues_in_two(folder, found, name):
    model = make_model(*MODEL_SIZES.get(name, ()))
    optimizer = MODELS[name](model.parameters())
    train_model(model, optimizer, 5)
    assert_same_bits(found[f"model {name} loaded"], whole_state(model, optimizer))
    train_model(model, optimizer, 3, seed=1)
    for key, value in whole_state(model, optimizer).items():
        assert_near(found[f"model {name} resumed"][key], value)


def test_overflow_on_one_process_skips_the_step_on_all(found):
    good, overflow = found["scaler good"], found["scaler overflow"]
    assert good.pop("scale") == 1024
    assert overflow.pop("scale") == 512
    assert all(value == 1 for name, value in good.items() if name.startswith("step"))
    assert_same_bits(good, overflow)


def test_place_of_a_shard_in_the_whole():
    ranks.run_programs([str(Path(__file__).with_name("shard_layout.py"))])
