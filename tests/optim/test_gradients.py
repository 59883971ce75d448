"""Statistics of gradients against torch's own, in float64."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from momentum import _ops, gradients
from optim.cases import Gradients, make_params
from tolerances import TOTAL, UNIT

CLOSE = {"rtol": 2 * TOTAL * UNIT[torch.float32], "atol": 0}
SHAPES = [(300, 70), (33,), (), (0,), (3, 2, 2), (40_001,)]


@pytest.fixture
def tensors(backend):
    backend.op("segment_reduce")  # loads the kernels
    generator = torch.Generator().manual_seed(0)
    kinds = [torch.float32, torch.bfloat16, torch.float64, torch.float32, torch.float16, torch.float32]
    with _ops.namespace(backend.namespace):
        yield [
            torch.randn(shape, generator=generator).to(backend.device, kind) for shape, kind in zip(SHAPES, kinds, strict=True)
        ]


def test_norms(tensors):
    expected = torch.stack([x.double().norm() for x in tensors])
    torch.testing.assert_close(gradients.tensor_norms(tensors), expected, **CLOSE)
    torch.testing.assert_close(gradients.global_norm(tensors), expected.norm(), **CLOSE)


def test_signal_to_noise(tensors):
    """Of a mean as large as the deviation the variance loses one bit."""
    shifted = [x + 1 for x in tensors]
    found = gradients.signal_to_noise_ratios(shifted, eps=0.5)
    for x, ratio in zip(shifted, found, strict=True):
        deviation = x.double().std() if x.numel() > 1 else 0.0
        expected = x.double().norm() / (deviation + 0.5)
        torch.testing.assert_close(ratio, expected, rtol=4 * CLOSE["rtol"], atol=0)


def test_sign_agreement(tensors):
    others = [x.flip(0) if x.dim() else -x for x in tensors]
    tensors[0][0, 0] = others[0][0, 0] = 0
    found = gradients.sign_agreement(tensors, others)
    for x, y, share in zip(tensors, others, found, strict=True):
        expected = (x.sign() * y.sign() > 0).double().mean()
        torch.testing.assert_close(share, expected, rtol=1e-15, atol=0, equal_nan=True)
    tiny = torch.full((4,), 1e-30, device=tensors[0].device)
    assert gradients.sign_agreement([tiny], [tiny]).item() == 1.0


@pytest.mark.parametrize("max_norm", [0.5, 1e6, 0.0])
def test_clipping_is_torchs(max_norm):
    params, twins = make_params(torch.float64), make_params(torch.float64)
    Gradients().fill(params)
    Gradients().fill(twins)
    params[1].grad = twins[1].grad = None
    found = gradients.clip_norm_(params, max_norm)
    expected = torch.nn.utils.clip_grad_norm_(twins, max_norm)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-13, atol=0)


def test_clipping_of_mixed_dtypes_and_of_nothing():
    params = [nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32)]
    assert gradients.clip_norm_(params, 1.0).item() == 0.0
    for p in params:
        p.grad = 2 * torch.ones_like(p)
    assert gradients.clip_norm_(params, 1.0).item() == pytest.approx(24**0.5)
    for p in params:
        assert p.grad.dtype == p.dtype
        torch.testing.assert_close(p.grad.double(), torch.full((3,), 6**-0.5).double(), rtol=2.0**-8, atol=0)


def test_clipping_of_what_is_not_finite():
    params = make_params(shapes=[(3,), (2,)])
    Gradients().fill(params)
    params[0].grad[1] = float("nan")
    assert gradients.clip_norm_(params, 1.0).isnan()
    assert all(p.grad.isnan().all() for p in params)


def test_refusals():
    with pytest.raises(ValueError, match="max_norm must be a number >= 0, got -1"):
        gradients.clip_norm_(make_params(), -1.0)
    with pytest.raises(ValueError, match="eps must be a number >= 0, got nan"):
        gradients.clip_norm_(make_params(), 1.0, float("nan"))
    with pytest.raises(ValueError, match="no tensor"):
        gradients.tensor_norms([])
    with pytest.raises(ValueError, match="no tensor"):
        gradients.global_norm([])
    with pytest.raises(RuntimeError, match=r"xs\[1\].*int64"):
        gradients.tensor_norms([torch.ones(2), torch.ones(2, dtype=torch.int64)])
    with pytest.raises(RuntimeError, match=r"ys has length 0, expected 1"):
        gradients.sign_agreement([torch.ones(2)], [])


def test_examples_in_docstrings():
    result = doctest.testmod(gradients)
    assert result.failed == 0
    assert result.attempted
