"""Subsets of parameters that are spread over two processes are those of one, and so is everything that follows."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

import ranks
from momentum import optim
from optim.cases import assert_same_bits, snapshot
from optim.sharded import contents, load, make_model, train_model
from optim.sharded_subsets import KINDS, MODEL, PLACEMENTS, resume_models, run_subsets, train_models, train_tensors, whole_model
from ranks import WORLD

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")


@pytest.fixture(scope="module")
def mesh():
    """A mesh of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("subsets")


@pytest.fixture(scope="module")
def alone(folder, mesh):
    """What one process finds, with shards that are everything."""
    return train_models(folder, mesh, 1)


def plain_model(kind):
    model = make_model(*MODEL)
    return model, KINDS[kind](model.parameters())


@pytest.fixture(scope="module")
def plain(folder):
    """What one process finds without shards, after 5 steps."""
    found = {}
    for kind in KINDS:
        model, optimizer = plain_model(kind)
        train_model(model, optimizer, 5)
        found[kind] = copy.deepcopy(whole_model(model, optimizer))
        torch.save(get_optimizer_state_dict(model, optimizer), folder / f"{kind}-plain.pt")
    return found


@pytest.fixture(scope="module")
def found(folder, alone, plain):
    """What two processes find; their checkpoints are in the folder then."""
    ranks.run(run_subsets, folder)
    return torch.load(folder / "found.pt", weights_only=False)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_shards_step_as_the_whole(found, kind, placement):
    """Bit for bit, over three choices, the choices and the states included."""
    whole, ours = train_tensors(KINDS[kind]), found[f"{kind} sharded by {placement}"]
    for a, b in zip(ours["params"], whole["params"], strict=True):
        assert torch.equal(a, b)
    states = []
    for run in (ours, whole):
        optimizer = KINDS[kind]([nn.Parameter(p) for p in run["params"]])
        optimizer.load_state_dict(run["optimizer"])
        states.append(snapshot(optimizer))
    assert_same_bits(*states)


def as_plain(kind, run):
    """Return a run's tensors as an optimizer of plain parameters has them after loading its state."""
    model, optimizer = plain_model(kind)
    model.load_state_dict(run["params"])
    set_optimizer_state_dict(model, optimizer, copy.deepcopy(run["optimizer"]))
    return snapshot(optimizer)


def assert_near(ours, theirs):
    """The same choices; the gradients behind the rest are averaged in another order."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].shape == value.shape, name
        if value.dtype == torch.int32:
            assert torch.equal(ours[name], value), name
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_fsdp_trains_as_one_process(found, alone, plain, kind):
    for run in (found[f"{kind} at 5"], alone[f"{kind} at 5"]):
        assert_near(as_plain(kind, run), as_plain(kind, plain[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoint_of_one_process_continues_in_two(found, alone, kind):
    assert_same_bits(as_plain(kind, found[f"{kind} loaded"]), as_plain(kind, alone[f"{kind} at 5"]))
    assert_near(as_plain(kind, found[f"{kind} resumed"]), as_plain(kind, alone[f"{kind} at 8"]))


def test_checkpoint_of_two_processes_continues_in_one(folder, found, mesh):
    again = resume_models(folder, mesh, WORLD)
    for kind in KINDS:
        assert_same_bits(as_plain(kind, again[f"{kind} loaded"]), as_plain(kind, found[f"{kind} at 5"]))
        assert_near(as_plain(kind, again[f"{kind} resumed"]), as_plain(kind, found[f"{kind} at 8"]))


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoint_of_two_processes_continues_without_shards(folder, found, tmp_path, kind):
    dcp_to_torch_save(folder / f"{kind}-from-2", tmp_path / "whole.pt")
    saved = torch.load(tmp_path / "whole.pt", weights_only=False)
    model, optimizer = plain_model(kind)
    model.load_state_dict(saved["model"])
    set_optimizer_state_dict(model, optimizer, saved["optimizer"])
    assert_same_bits(snapshot(optimizer), as_plain(kind, found[f"{kind} at 5"]))
    train_model(model, optimizer, 3, seed=1)
    assert_near(snapshot(optimizer), as_plain(kind, found[f"{kind} at 8"]))


@pytest.mark.parametrize("kind", KINDS)
def test_state_of_whole_tensors_is_loaded_in_two_processes(found, plain, kind):
    loaded = {"params": plain[kind]["params"], "optimizer": found[f"{kind} from plain"]["optimizer"]}
    assert_same_bits(as_plain(kind, loaded), as_plain(kind, plain[kind]))


def test_columns_of_shards_are_saved_as_of_whole_tensors(folder, found):
    """Nothing is made dense, so that a checkpoint of shards is one of whole tensors."""
    model, optimizer = plain_model("columns")
    load(model, optimizer, folder / "columns-from-2")
    assert_same_bits(snapshot(optimizer), as_plain("columns", found["columns at 5"]))
    assert contents(model, optimizer)["optimizer"]["state"]["0.weight"]["exp_avg"].shape == (41, 1)


def sparse(shard, mesh):
    p = nn.Parameter(DTensor.from_local(shard, mesh, [Shard(0)]))
    p.grad = torch.ones_like(p)
    return optim.SPAM([p], lr=0.01, density=0.25), p


def test_shards_that_are_no_lines_are_refused(mesh):
    optimizer, p = sparse(torch.ones(6, 4).t(), mesh)
    message = r"SPAM: parameter 0 of its group, of shape \(4, 6\), has placements .*whose elements are evenly spaced"
    with pytest.raises(NotImplementedError, match=message):
        optimizer.step()
    assert not optimizer.state
    assert torch.equal(p.full_tensor(), torch.ones(4, 6))


BROKEN = [
    (lambda s: s.pop("mask"), "lacks the state 'mask'"),
    (lambda s: s.update(more=1), "unknown state 'more'"),
    (lambda s: s.update(count=torch.tensor(5)), "state 'count' is 5, expected 16"),
    (lambda s: s.update(exp_avg=torch.zeros(3)), r"parameter 0 .* state 'exp_avg' has shape \(3,\) .* expected \(8, 8\)"),
    (lambda s: s.update(mask=s["mask"].float()), "state 'mask' has shape .* and dtype torch.float32, expected .* torch.uint8"),
    (lambda s: s.update(mask=torch.ones_like(s["mask"])), "state 'mask' is no choice of 16 of 64 elements"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_states_that_do_not_fit_are_refused(mesh, change, message):
    optimizer, _ = sparse(torch.ones(8, 8), mesh)
    optimizer.step()
    saved = optimizer.state_dict()
    change(saved["state"][0])
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    assert_same_bits(snapshot(optimizer), before)


def test_states_take_what_the_density_says(mesh):
    """8 bytes for each chosen entry and a bit for each, less than a word of rounding."""
    optimizer, p = sparse(torch.ones(1000, 1001), mesh)
    optimizer.step()
    tensors = [t for name, t in optimizer.state[p].items() if name not in ("step", "count")]
    assert sum(t.untyped_storage().nbytes() for t in tensors) == pytest.approx(1_001_000 * (8 * 0.25 + 1 / 8), abs=16)
