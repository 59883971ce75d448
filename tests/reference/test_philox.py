"""The reference generator against the known-answer vectors published with Random123."""

from __future__ import annotations

import pytest
import torch

from momentum.reference import philox4x32
from vectors import PHILOX4X32_10


@pytest.mark.parametrize(("counter", "key", "expected"), PHILOX4X32_10)
def test_published_vectors(counter, key, expected):
    words = philox4x32(tuple(torch.tensor(word) for word in counter), key)
    assert words.tolist() == list(expected)


def test_is_elementwise():
    """A vector of counters gives the words of each, so batches and shards see the same bits."""
    groups = torch.arange(1000)
    zero = torch.zeros_like(groups)
    together = philox4x32((groups, zero, zero + 7, zero), (3, 4))
    for group in (0, 1, 999):
        scalar = tuple(torch.tensor(word) for word in (group, 0, 7, 0))
        assert torch.equal(together[group], philox4x32(scalar, (3, 4)))


def test_words_are_uniform():
    """The mean of n uniform words has standard deviation 2^32 / sqrt(12 n); six of them are allowed."""
    groups = torch.arange(50_000)
    zero = torch.zeros_like(groups)
    words = philox4x32((groups, zero, zero, zero), (1, 2)).double() / 2**32
    assert abs(words.mean().item() - 0.5) < 6 / (12 * words.numel()) ** 0.5
