"""Whether the machine gives as many processors as there are threads; a virtual one does not always."""

from __future__ import annotations

import time

import torch

_NUMBERS = 20_000  # in second-level cache, with the results
_TRIES, _REPEATS = 4, 5
_LEAST_SHARE = 0.4


class Processors:
    """Tells by arithmetic in cache how much faster all threads are than one.

    A host may run two virtual processors on one core for a while. What waits for memory hardly shows it, what computes takes
    twice as long, and a ratio of the two says nothing about either.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._numbers = torch.linspace(-0.9, 0.9, _NUMBERS)

    def speedup(self) -> float:
        """How many times as fast as one thread all of them are now."""
        if self._threads == 1:
            return 1.0
        try:
            torch.set_num_threads(1)
            alone = self._seconds()
        finally:
            torch.set_num_threads(self._threads)
        return alone / self._seconds()

    def are_given(self) -> bool:
        """Whether the threads besides the first add at least 40 % of their number to the speed.

        On the two processors that the bound was chosen on they added 50 to 80 % as a rule, some 10 in bad moments.
        """
        return self.speedup() >= 1 + _LEAST_SHARE * (self._threads - 1)

    def _seconds(self) -> float:
        """Return the shortest of a few times; the first has threads to wake and caches to fill."""
        times = []
        for _ in range(_TRIES):
            start = time.perf_counter()
            for _ in range(_REPEATS):
                torch.erfinv(self._numbers)
            times.append(time.perf_counter() - start)
        return min(times)
