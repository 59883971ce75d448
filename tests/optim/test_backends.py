"""The classes over every backend: the same path, and on a GPU a step that can be captured in a graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from backends import BACKENDS
from momentum import _ops, optim, ot
from ops import emulator
from optim.cases import CASES, CLASSES, Gradients, assert_same_bits, make_params, snapshot, train
from tolerances import ROUNDINGS, UNIT

STEPS = 12
EMULATED = BACKENDS["emulated"]
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


class Reads(TorchDispatchMode):
    """Counts the numbers of tensors that Python asks for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


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


@pytest.mark.skipif(EMULATED.missing() is not None, reason=str(EMULATED.missing()))
@pytest.mark.parametrize("name", CASES)
def test_no_step_waits_for_the_device(name):
    """From the first on and past the ends of intervals no step copies to the host, synchronises or reads a tensor's number."""
    emulator.library()
    params = [nn.Parameter(p.detach()) for p in make_params()]
    gradients = Gradients()
    with _ops.namespace(EMULATED.namespace):
        optimizer = CASES[name].make(params, lr=0.01, cautious="rescaled", ema_decay=0.9)
        for _ in range(STEPS):
            gradients.fill(params)
            with emulator.waits() as counted, Reads() as reads:
                optimizer.step()
            assert counted == [0]
            assert reads.count == 0


@pytest.mark.skipif(EMULATED.missing() is not None, reason=str(EMULATED.missing()))
def test_waits_are_counted():
    """A large transport problem, whose host reads a few numbers after each sweep; a number that Python asks for."""
    emulator.library()
    n = 600
    with _ops.namespace(EMULATED.namespace), emulator.waits() as counted:
        ot.solve(torch.zeros(n, n), torch.full((n,), 1 / n), torch.full((n,), 1 / n), 1.0, method="sinkhorn")
    assert counted[0] >= 2
    with Reads() as reads:
        assert torch.ones(1).item() == 1
    assert reads.count == 1


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
