"""How long a call takes on a device."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from bench.machine import last_level_cache
from bench.runner.case import Call

_SHORTEST_SAMPLE = 2e-3
"""A sample of a case without data repeats the call until it lasts about this many seconds."""


@dataclass(frozen=True)
class Sample:
    """Seconds per call: until the work is done, and until the call gives control back to the host."""

    total: float
    host: float


class Clock:
    """Times calls on one device; ``time.perf_counter`` on the CPU, events on CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cuda = device.type == "cuda"
        cache = torch.cuda.get_device_properties(device).L2_cache_size if self._cuda else last_level_cache()
        # Twice the cache, read but not written: a dirty line would be written back on the next call's account.
        self._scratch = torch.ones(2 * cache // 4, device=device)

    def sample(self, call: Call, *, loops: int = 1, cold: bool = True) -> Sample:
        """Time ``loops`` calls in a row, with caches emptied before the first of them if ``cold``."""
        if cold:
            self._scratch.sum()
        return self._on_cuda(call, loops) if self._cuda else self._on_cpu(call, loops)

    def loops(self, call: Call) -> int:
        """How often a call is to be repeated for a sample long enough to be timed."""
        return max(1, math.ceil(_SHORTEST_SAMPLE / self.sample(call, cold=False).total))

    def _on_cpu(self, call: Call, loops: int) -> Sample:
        start = time.perf_counter()
        for _ in range(loops):
            call()
        total = (time.perf_counter() - start) / loops
        return Sample(total, total)

    def _on_cuda(self, call: Call, loops: int) -> Sample:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        events[0].record()
        for _ in range(loops):
            call()
        events[1].record()
        host = (time.perf_counter() - start) / loops
        events[1].synchronize()
        return Sample(events[0].elapsed_time(events[1]) / 1e3 / loops, host)


def launches(call: Call, device: torch.device) -> int | None:
    """How much one call puts on the stream: kernels, copies and fills. Nothing to count on the CPU."""
    if device.type != "cuda":
        return None
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
        torch.cuda.synchronize(device)
    # Ranges that torch marks around an optimizer's step appear among the events of the device too.
    on_device = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not event.is_user_annotation for event in on_device)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    with open("/proc/meminfo") as file:
        available = next(line for line in file if line.startswith("MemAvailable"))
    return int(available.split()[1]) << 10
