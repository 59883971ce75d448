"""What a CUDA graph may hold: steps on subsets and of selections, over draws of subsets, which are made on the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from momentum import _objects, _ops, optim
from optim.cases import Gradients, assert_same_bits, make_params, snapshot

GAP = 4
MAKES = {
    "SPAM": lambda p, **o: optim.SPAM(p, density=0.25, reset_interval=GAP, **o),
    "FRUGAL-columns": lambda p, **o: optim.FRUGAL(p, projector="columns", update_gap=GAP, **o),
    "FRUGAL-random": lambda p, **o: optim.FRUGAL(p, projector="random", update_gap=GAP, **o),
    "FRUGAL-block": lambda p, **o: optim.FRUGAL(p, projector="block", density=0.5, update_gap=GAP, **o),
    "Lion-top-k": lambda p, **o: optim.Lion(p, kernel="top_k", density=0.3, **o),
}
PERIODS = {"FRUGAL-block": GAP}
"""After how many steps a graph must be captured anew: the tensors are chosen on the host, and states come and go with them."""


def host_side(value: Any) -> Any:
    """Return what a captured call has baked in: numbers, and the addresses of tensors."""
    if isinstance(value, Tensor):
        return value.data_ptr(), tuple(value.shape), value.dtype
    if isinstance(value, dict):
        return {name: host_side(v) for name, v in value.items()}
    return [host_side(v) for v in value] if isinstance(value, (list, tuple, _objects.Gradients)) else value


class Run:
    """Steps on gradients that stay where they are."""

    def __init__(self, name: str, device: str) -> None:
        self.params = [nn.Parameter(p.detach().to(device)) for p in make_params()]
        self.lr = torch.tensor(0.01, device=device)
        self.optimizer = MAKES[name](self.params, lr=self.lr)
        self._gradients, self._sources = Gradients(), make_params()
        for p in self.params:
            p.grad = torch.zeros_like(p)

    def load(self, step: int) -> None:
        self._gradients.fill(self._sources)
        for p, source in zip(self.params, self._sources, strict=True):
            p.grad.copy_(source.grad)
        self.lr.fill_(0.01 / (1 + step))


@pytest.mark.parametrize("name", MAKES)
def test_nothing_on_the_host_changes_between_steps(backend, name, monkeypatch):
    """Over three draws, but for those that the host makes."""
    calls: list[list[Any]] = []
    for function in ("call", "step_", "step_subset_"):
        real = getattr(_ops, function)

        def record(*arguments: Any, real: Any = real, **options: Any) -> None:
            calls[-1].append(host_side([arguments, options]))
            real(*arguments, **options)

        monkeypatch.setattr(_ops, function, record)
    backend.op("adam_")  # loads the kernels
    run = Run(name, backend.device)
    period = PERIODS.get(name, 3 * GAP)
    with _ops.namespace(backend.namespace):
        for step in range(3 * GAP):
            run.load(step)
            calls.append([])
            run.optimizer.step()
    for first in range(0, 3 * GAP, period):
        assert calls[first]
        assert all(later == calls[first] for later in calls[first + 1 : first + period])


def test_blocks_are_chosen_on_the_host():
    """What the exception above is for: after a draw the graph of the steps before would step other tensors."""
    run = Run("FRUGAL-block", "cpu")
    active = []
    for step in range(2 * GAP):
        run.load(step)
        run.optimizer.step()
        active.append([run.optimizer.state[p]["exp_avg"].numel() > 0 for p in run.params])
    assert active[0] == active[GAP - 1] != active[GAP]


@pytest.mark.parametrize("name", MAKES)
def test_captured_steps_replay_bit_for_bit(backend, name):
    if backend.device != "cuda":
        pytest.skip(f"{backend.name}: graphs are CUDA's")
    period = PERIODS.get(name, 3 * GAP)

    def steps(captured: bool) -> dict[str, Tensor]:
        run = Run(name, "cuda")
        graph = None
        for step in range(3 * GAP):
            run.load(step)
            if step % period == 0:
                graph = None
            if captured and step % period == 1:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    run.optimizer.step()
            if graph is None:
                run.optimizer.step()
            else:
                graph.replay()
                if name in PERIODS and step % period > 1:  # the count of the host, which a replay does not advance
                    run.optimizer.param_groups[0]["block_step"] += 1
        torch.cuda.synchronize()
        return snapshot(run.optimizer)

    assert_same_bits(steps(captured=True), steps(captured=False))
