"""The norm test: against its definition, on gradients of known variance, over processes, and what is refused."""

from __future__ import annotations

import doctest
import math
from dataclasses import asdict

import pytest
import torch
import torch.distributed as dist

import momentum.norm_test
import ranks
from momentum import _ops
from momentum.gradients import norm_test
from tolerances import TOTAL, UNIT

SHAPES = [(300, 7), (33,), (), (0,)]


@pytest.fixture(autouse=True)
def chosen(request):
    if "backend" not in request.fixturenames:
        yield
        return
    backend = request.getfixturevalue("backend")
    backend.op("segment_reduce")  # loads the kernels
    with _ops.namespace(backend.namespace):
        yield


def make(parts, device="cpu", seed=0, noise=1.0):
    generator = torch.Generator().manual_seed(seed)
    signal = [torch.randn(shape, generator=generator) for shape in SHAPES]
    drawn = [[(s + noise * torch.randn(s.shape, generator=generator)).to(device) for s in signal] for _ in range(parts)]
    return [torch.stack(members).mean(0) for members in zip(*drawn, strict=True)], drawn


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize("eta", [0.1, 10.0])
def test_definition(backend, parts, eta):
    grads, drawn = make(parts, backend.device)
    found = norm_test(grads, drawn, batch_size=60, eta=eta)
    away = sum((g.double() - m.double()).square().sum() for part in drawn for g, m in zip(part, grads, strict=True))
    square = sum(g.double().square().sum() for g in grads)
    # Of the difference of two totals each rounds by itself; the mean itself was rounded to float32.
    total = sum(g.double().square().sum() for part in drawn for g in part)
    variance = 60 / parts / (parts - 1) * away
    slack = 60 / parts / (parts - 1) * 2 * (TOTAL + parts) * float(total) * UNIT[torch.float32]
    torch.testing.assert_close(found.variance, variance, rtol=0, atol=slack)
    torch.testing.assert_close(found.square_norm, square, rtol=TOTAL * UNIT[torch.float32], atol=0)
    assert bool(found.passed) == bool(variance / 60 <= eta**2 * square) == (eta == 10.0)
    wanted = float(variance / (eta**2 * square))
    assert abs(float(found.batch_size) - (60 if eta == 10.0 else math.ceil(wanted))) <= (
        0 if eta == 10.0 else 1 + 1e-4 * wanted
    )


def test_the_estimate_is_unbiased():
    """Per-sample gradients of known variance: the mean of 400 estimates is within five standard errors, for any J."""
    generator = torch.Generator().manual_seed(1)
    samples, size = 24, 10
    for parts in (2, 3, 8):
        estimates = []
        for _ in range(400):
            each = 1 + 2 * torch.randn(samples, size, generator=generator)
            members = [[part.mean(0)] for part in each.split(samples // parts)]
            estimates.append(norm_test([each.mean(0)], members, batch_size=samples, eta=1.0).variance)
        estimates = torch.stack(estimates)
        assert abs(estimates.mean() - 4 * size) < 5 * estimates.std() / 20


def test_the_wanted_batch_would_pass():
    grads, drawn = make(4, noise=20.0)
    found = norm_test(grads, drawn, batch_size=16, eta=0.3)
    assert not found.passed
    assert found.variance / found.batch_size <= 0.09 * found.square_norm
    assert found.variance / (found.batch_size - 1) > 0.09 * found.square_norm


def test_edges():
    zero, one = torch.zeros(3), torch.ones(3)
    same = norm_test([one], [[one], [one]], batch_size=4, eta=0.1)
    assert same.variance == 0
    assert same.passed
    assert same.batch_size == 4
    opposite = norm_test([zero], [[one], [-one]], batch_size=4, eta=0.1)
    assert not opposite.passed
    assert opposite.batch_size == math.inf
    nothing = norm_test([zero], [[zero], [zero]], batch_size=4, eta=0.1)
    assert nothing.passed
    bad = norm_test([one], [[one], [torch.full((3,), math.nan)]], batch_size=4, eta=0.1)
    assert not bad.passed
    assert bad.batch_size.isnan()


def run_parts(rank, folder):
    grads, drawn = make(4)
    found = norm_test(grads, drawn[2 * rank : 2 * rank + 2], batch_size=16, eta=0.3, group=dist.group.WORLD)
    torch.save(asdict(found), folder / f"found-{rank}.pt")


def test_two_processes(tmp_path):
    """Each holds two of four parts: the same as one process with all, to the last sum."""
    ranks.run(run_parts, tmp_path)
    grads, drawn = make(4)
    alone = norm_test(grads, drawn, batch_size=16, eta=0.3)
    for rank in range(ranks.WORLD):
        found = torch.load(tmp_path / f"found-{rank}.pt")
        assert found["variance"].item() == pytest.approx(alone.variance.item(), rel=1e-12)
        assert found["passed"].item() == alone.passed.item()
        assert found["batch_size"].item() == alone.batch_size.item()


def test_refusals():
    one = torch.ones(3)
    with pytest.raises(ValueError, match="there are 1 parts, expected at least 2"):
        norm_test([one], [[one]], batch_size=4, eta=0.1)
    with pytest.raises(ValueError, match="there are 0 parts"):
        norm_test([one], [], batch_size=4, eta=0.1)
    with pytest.raises(ValueError, match=r"parts\[1\] has 2 gradients, grads 1"):
        norm_test([one], [[one], [one, one]], batch_size=4, eta=0.1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        norm_test([one], [[one], [one]], batch_size=0, eta=0.1)
    for eta in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="eta must be a finite number > 0"):
            norm_test([one], [[one], [one]], batch_size=4, eta=eta)
    with pytest.raises(RuntimeError, match="int64"):
        norm_test([one], [[one], [one.long()]], batch_size=4, eta=0.1)


def test_examples_in_docstrings():
    result = doctest.testmod(momentum.norm_test)
    assert result.failed == 0
    assert result.attempted
