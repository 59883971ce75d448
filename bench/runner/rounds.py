"""Interleaved rounds: every contender once per round, in a new random order, next to a plain copy.

A round before or after which the machine did not give a processor to every thread is repeated, for all contenders alike.
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.runner.case import Call, Case, Contender, UnavailableError
from bench.runner.clock import Clock, Sample, free_memory, launches
from bench.runner.processors import Processors
from bench.runner.results import Row

_COPY = "copy"
_COPIED_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}
_WARM_UP_CALLS = 3
_USABLE_MEMORY = 0.9
_MOST_TRIES = 4
"""Rounds tried for each that counts: on a machine that is busy for good, those that are left count as they are."""


class Copy:
    """``destination.copy_(source)`` of buffers that no cache holds; moves twice their size."""

    def __init__(self, device: torch.device, shrink: int) -> None:
        count = _COPIED_BYTES[device.type] // 4 // shrink
        self._source, self._destination = torch.ones(count, device=device), torch.empty(count, device=device)
        self.bytes_moved = 8 * count

    def __call__(self) -> object:
        return self._destination.copy_(self._source)


@dataclass
class Rounds:
    """Measures cases on one device. ``count`` rounds each; the order within a round depends on ``seed`` alone."""

    device: torch.device
    count: int
    copy: Copy
    clock: Clock
    processors: Processors
    seed: int = 0
    report: Callable[[str], None] = field(default=lambda line: None)

    def measure(self, case: Case) -> list[Row]:
        """Time all contenders of a case; one that cannot take part gets a row with the reason."""
        calls, skipped = self._prepare(case)
        verified = {c.name: c.verify() for c in case.contenders if c.verify and c.name in calls}
        samples, repeated, disturbed = self._interleave({**calls, _COPY: self.copy}, cold=case.cold)
        copy_rate = self.copy.bytes_moved / _median(samples[_COPY])
        launched = {name: launches(call, self.device) for name, call in calls.items()}
        hosts = {name: statistics.median(s.host for s in samples[name]) for name in calls}
        del calls
        if self.device.type == "cpu" and case.cold:
            hosts = self._time_twins(case, set(hosts))
        rows = []
        for contender in case.contenders:
            row = Row(case.name, case.title, contender.name, case.peer, case.elements, contender.bytes_moved)
            if contender.name in skipped:
                row.skipped = skipped[contender.name]
            else:
                times = [sample.total for sample in samples[contender.name]]
                row.seconds, row.samples = statistics.median(times), times
                row.copy_rate, row.repeated, row.disturbed = copy_rate, repeated, disturbed
                row.host_seconds, row.launches = hosts[contender.name], launched[contender.name]
                row.verified = verified.get(contender.name)
                if case.peer in samples:
                    peers = [sample.total for sample in samples[case.peer]]
                    row.ratio = statistics.median(own / peer for own, peer in zip(times, peers, strict=True))
            rows.append(row)
        return rows

    def _prepare(self, case: Case) -> tuple[dict[str, Call], dict[str, str]]:
        """Build as many contenders, in their order, as the memory holds; run each a few times."""
        calls: dict[str, Call] = {}
        skipped: dict[str, str] = {}
        free = _USABLE_MEMORY * free_memory(self.device)
        taken = case.memory
        inputs: Any = case.inputs(self.device) if taken <= free else None
        for contender in case.contenders:
            if taken + contender.memory > free:
                needed, left = (taken + contender.memory) / 1e9, free / 1e9
                skipped[contender.name] = f"needs {needed:.1f} GB with those before it, {left:.1f} GB are free"
                continue
            try:
                calls[contender.name] = self._ready(contender, inputs)
                taken += contender.memory
            except UnavailableError as reason:
                skipped[contender.name] = str(reason)
            except torch.OutOfMemoryError:
                skipped[contender.name] = "ran out of memory"
        return calls, skipped

    def _ready(self, contender: Contender, inputs: Any) -> Call:
        call = contender.build(inputs)
        for _ in range(_WARM_UP_CALLS):
            call()
        return call

    def _time_twins(self, case: Case, names: set[str]) -> dict[str, float]:
        inputs = case.twin(self.device)
        calls = {c.name: self._ready(c, inputs) for c in case.contenders if c.name in names}
        return {name: _median(samples) for name, samples in self._interleave(calls, cold=False)[0].items()}

    def _interleave(self, calls: dict[str, Call], *, cold: bool) -> tuple[dict[str, list[Sample]], int, int]:
        """Return every contender's samples, one per round that counts, and `repeated` and `disturbed` of a row."""
        order = random.Random(self.seed)
        loops = {name: 1 if cold or name == _COPY else self.clock.loops(call) for name, call in calls.items()}
        samples: dict[str, list[Sample]] = {name: [] for name in calls}
        names = list(calls)
        gc.collect()
        gc.disable()  # a collection would be charged to whoever runs when it starts
        try:
            given = self.processors.are_given()
            counted = tries = disturbed = 0
            while counted < self.count:
                tries += 1
                order.shuffle(names)
                found = {name: self.clock.sample(calls[name], loops=loops[name], cold=cold) for name in names}
                given, given_before = self.processors.are_given(), given
                if not (given and given_before):
                    if tries - counted <= (_MOST_TRIES - 1) * self.count:
                        continue
                    disturbed += 1
                counted += 1
                for name in names:
                    samples[name].append(found[name])
        finally:
            gc.enable()
        return samples, tries - counted, disturbed


def _median(samples: list[Sample]) -> float:
    return statistics.median(sample.total for sample in samples)
