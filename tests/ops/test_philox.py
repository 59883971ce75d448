"""The generator's op: published vectors, and the words that stochastic rounding uses."""

from __future__ import annotations

import pytest
import torch

from momentum.reference.formats import words
from vectors import PHILOX4X32_10


def draw(backend, seed: int, step: int, offset: int, count: int) -> torch.Tensor:
    out = torch.zeros(count, dtype=torch.int32, device=backend.device)
    backend.op("philox")(seed, step, offset, out)
    return out.cpu().long() & 0xFFFFFFFF


@pytest.mark.parametrize(("counter", "key", "expected"), [v for v in PHILOX4X32_10 if v[0][3] == 0])
def test_published_vector(backend, counter, key, expected):
    """Of the published vectors the op can reach those whose last counter word is 0."""
    seed, group = key[0] + (key[1] << 32), counter[0] + (counter[1] << 32)
    assert draw(backend, seed, counter[2], 4 * group, 4).tolist() == list(expected)


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 1021, 4 * 2**32 + 1, 2**40 + 3])
@pytest.mark.parametrize("count", [0, 1, 7, 3000])
def test_words(backend, offset, count):
    """Element i of a tensor has one word for each seed and step, wherever the draw starts."""
    seed, step = 0x0123_4567_89AB_CDEF, 41
    assert torch.equal(draw(backend, seed, step, offset, count), words(seed, step, torch.arange(offset, offset + count)))


def test_negative_seed_is_its_bits(backend):
    assert torch.equal(draw(backend, -5, 1, 0, 100), words(2**64 - 5, 1, torch.arange(100)))
