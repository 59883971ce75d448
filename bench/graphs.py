"""Steps captured in CUDA graphs."""

from __future__ import annotations

import torch

from bench.parameters import Shapes, parameters
from bench.peers import Make
from bench.runner.case import Call


def captured(optimizer: torch.optim.Optimizer, device: torch.device) -> Call:
    """Capture a step in a CUDA graph, after the warm-up on a side stream that torch asks for; returns its replay."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            optimizer.step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    return graph.replay


def replays_bit_equal(make: Make, device: torch.device) -> bool:
    """Whether five steps, the last two of them replayed, leave the same bits as five plain steps."""
    shapes: Shapes = ((5,), (769, 33), (4096,))
    eager, graphed = (parameters(shapes, torch.float32, device) for _ in range(2))
    optimizer = make(eager)
    for _ in range(5):
        optimizer.step()
    replay = captured(make(graphed), device)
    for _ in range(2):
        replay()
    return all(torch.equal(a, b) for a, b in zip(eager, graphed, strict=True))
