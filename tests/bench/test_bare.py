"""The loop that benchmarks show as the floor of AdamW's step does that step."""

from __future__ import annotations

import pytest
import torch
from bench.bare import AdamW
from bench.runner.case import UnavailableError

from bench import bare
from tolerances import UNIT

SIZES = (1, 1023, 1024, 1025, 70_000, 200_001)
STEPS = 3
LR = 0.1


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.usefixtures("threads")
def test_steps_are_those_of_torch_in_float64():
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.ones(size)) for size in SIZES]
    exact = [torch.nn.Parameter(param.detach().double()) for param in params]
    for param in params:
        param.grad = torch.empty_like(param)
    loop, peer = AdamW(params, lr=LR), torch.optim.AdamW(exact, lr=LR)
    for _ in range(STEPS):
        for param, other in zip(params, exact, strict=True):
            param.grad.uniform_(0.5, 1.5)  # of one sign: no moment loses digits
            other.grad = param.grad.double()
        loop.step()
        peer.step()
    # Each step rounds the parameter, at most 1, three times, and an update of at most 1.5 LR sixteen times at most.
    bound = STEPS * (3 + 16 * 1.5 * LR) * UNIT[torch.float32]
    for param, other in zip(params, exact, strict=True):
        torch.testing.assert_close(param.double(), other, rtol=0, atol=bound)


def test_without_a_compiler_it_is_unavailable(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    bare.library.cache_clear()
    with pytest.raises(UnavailableError, match="no-such-compiler"):
        AdamW([torch.nn.Parameter(torch.ones(3))])
