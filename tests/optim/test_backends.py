"""The classes over every backend: the same path, and on a GPU a step that can be captured in a graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from momentum import _ops, optim
from optim.cases import CASES, CLASSES, Gradients, assert_same_bits, make_params, snapshot, train
from tolerances import ROUNDINGS, UNIT

STEPS = 12
OPS = {
    "AMAdamW": "adaptive_memory",
    "Adam": "adam",
    "AdamW": "adam",
    "AdamW-orthograd": "adam",
    "SGD-momentum": "sgd",
    "NormalizedSGD": "normalized",
    "SCALE-momentum": "scale",
    "SGDSaI": "sgd_sai",
    "SophiaG": "sophia",
    "SophiaH": "sophia",
    "StableSPAM": "stable_spam",
}
"""Of the others the op is the name in lower case."""


def path(name, backend=None):
    params = make_params()
    device = backend.device if backend else "cpu"
    params = [nn.Parameter(p.detach().to(device)) for p in params]
    optimizer = CASES[name].make(params, lr=0.01, cautious="rescaled", ema_decay=0.9)
    gradients = Gradients()
    for _ in range(STEPS):
        sources = make_params()
        gradients.fill(sources)
        for p, source in zip(params, sources, strict=True):
            p.grad = source.grad.to(device)
        optimizer.step()
    return [p.detach().cpu() for p in params]


@pytest.mark.parametrize("name", CLASSES)
def test_path_is_that_of_the_cpu(backend, name):
    expected = path(name)
    backend.op("adam_")  # loads the kernels
    with _ops.namespace(backend.namespace):
        found = path(name, backend)
    rounding = ROUNDINGS[OPS.get(name, name.lower())].total
    for got, value in zip(found, expected, strict=True):
        size = value.abs().max().item() if value.numel() else 0.0
        torch.testing.assert_close(got, value, rtol=0, atol=STEPS * rounding * UNIT[torch.float32] * max(size, 1.0))


@pytest.mark.parametrize("name", CLASSES)
def test_captured_steps_replay_bit_for_bit(backend, name):
    """Rates as tensors change between replays; everything else of a step already lives on the device."""
    if backend.device != "cuda":
        pytest.skip(f"{backend.name}: graphs are CUDA's")

    def run(graph_from):
        params = [nn.Parameter(p.detach().cuda()) for p in make_params()]
        lr = torch.tensor(0.01, device="cuda")
        optimizer = CASES[name].make(params, lr=lr)
        gradients, sources, graph = Gradients(), make_params(), None
        for p in params:
            p.grad = torch.zeros_like(p)
        for step in range(STEPS):
            gradients.fill(sources)
            for p, source in zip(params, sources, strict=True):
                p.grad.copy_(source.grad)
            lr.fill_(0.01 / (1 + step))
            if step == graph_from:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    optimizer.step()
            if graph is None:
                optimizer.step()
            else:
                graph.replay()
        torch.cuda.synchronize()
        return snapshot(optimizer)

    assert_same_bits(run(graph_from=3), run(graph_from=STEPS))


def test_step_does_not_wait_for_the_gpu(backend):
    if backend.device != "cuda":
        pytest.skip(f"{backend.name}: does not run beside the host")
    params = [nn.Parameter(p.detach().cuda()) for p in make_params()]
    optimizer = optim.AdamW(params, lr=torch.tensor(0.01, device="cuda"))
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_state_moves_to_the_gpu_with_a_checkpoint(backend):
    if backend.device != "cuda":
        pytest.skip(f"{backend.name}: there is one device")
    params = make_params()
    optimizer = optim.AdamW(params)
    train(optimizer, params, 2, Gradients())
    moved = [nn.Parameter(p.detach().cuda()) for p in params]
    other = optim.AdamW(moved)
    other.load_state_dict(optimizer.state_dict())
    for p in moved:
        p.grad = torch.ones_like(p)
        assert {value.device.type for value in other.state[p].values()} == {"cuda"}
    other.step()
    assert [int(other.state[p]["step"]) for p in moved] == [3] * len(moved)
