"""The speeds this library is meant to reach, and whether a run reached them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.optim import (
    ADAMP,
    ADAMW,
    BARE_LOOP,
    FAMILY,
    FRUGAL,
    ORTHOGRAD,
    OUR_ADAMW,
    SCALE,
    SPAM_QUARTER,
    STABLE_SPAM,
    Algorithm,
    Work,
)
from bench.peers import OPTIONAL
from bench.runner.results import Row
from bench.table import render

Rows = dict[tuple[str, str], Row]
Measure = Callable[[Rows], float]

_OURS = "momentum"


@dataclass(frozen=True)
class Target:
    """A figure that should not pass its limit; ``measure`` raises ``KeyError`` or ``TypeError`` where it is missing."""

    text: str
    measure: Measure
    limit: float
    at_least: bool = False

    def met(self, measured: float) -> bool:
        """Whether the figure is on the right side."""
        return measured >= self.limit if self.at_least else measured <= self.limit


def ratio(case: str) -> Measure:
    """Time over the peer's."""
    return lambda rows: _number(rows[case, _OURS].ratio)


def share(case: str) -> Measure:
    """Achieved bytes per second over the copy's."""
    return lambda rows: _number(rows[case, _OURS].share)


def versus(case: str, other: str, factor: float = 1.0) -> Measure:
    """Time in a case over our time in another, divided by ``factor``."""
    return lambda rows: _number(rows[case, _OURS].seconds) / _number(rows[other, _OURS].seconds) / factor


def beside(case: str, contender: str, factor: float = 1.0) -> Measure:
    """Our time over that of another contender of the same case, divided by ``factor``: the median over the rounds."""

    def measure(rows: Rows) -> float:
        ours, other = rows[case, _OURS].samples, rows[case, contender].samples
        if not other:
            raise KeyError(contender)
        return median(a / b for a, b in zip(ours, other, strict=True)) / factor

    return measure


def over_fastest(case: str, peers: Sequence[str]) -> Measure:
    """Time over that of the fastest of ``peers`` that took part: the median over the rounds."""

    def measure(rows: Rows) -> float:
        ours = rows[case, _OURS]
        timed = [rows[case, peer] for peer in peers if (case, peer) in rows and rows[case, peer].samples]
        fastest = min(timed, key=lambda row: _number(row.seconds), default=None)
        if fastest is None:
            raise KeyError(case)
        return median(a / b for a, b in zip(ours.samples, fastest.samples, strict=True))

    return measure


def bit_equal(case: str, contender: str) -> Measure:
    """1 if the bits were equal, 0 if not."""
    return lambda rows: float(_number(rows[case, contender].verified))


def _bytes(algorithm: Algorithm) -> float:
    return algorithm.bytes_per_element(4, 4, 4)


_REDUCING = (
    *(Work(algorithm, "148 GPT", ()) for algorithm in (STABLE_SPAM, ORTHOGRAD)),
    *(Work(algorithm, "28 GPT matrices", ()) for algorithm in (SCALE, SPAM_QUARTER, FRUGAL, ADAMP)),
)
"""Steps of several passes, and of shares of the entries."""

TARGETS = {
    "cpu": (
        Target("AdamW fp32 1 x 20M, time over torch fused", ratio("adamw-fp32-1x20m"), 1.0),
        Target("  the same, as hoped for", ratio("adamw-fp32-1x20m"), 0.95),
        Target("AdamW fp32 1000 x 4096, time over torch fused", ratio("adamw-fp32-1000x4096"), 0.35),
        Target("AdamW fp32 148 GPT tensors, time over torch fused", ratio("adamw-fp32-148-gpt"), 0.9),
        *(
            Target(f"AdamW fp32 {tensors}, time over a bare loop's", beside(case, BARE_LOOP), 1.05)
            for tensors, case in (("1 x 20M", "adamw-fp32-1x20m"), ("148 GPT tensors", "adamw-fp32-148-gpt"))
        ),
        Target(
            "bf16 parameters with fp32 states, time over fp32's by their bytes",
            beside("adamw-bf16-fp32-states-1x20m", OUR_ADAMW, ADAMW.bytes_per_element(2, 2, 4) / _bytes(ADAMW)),
            1.15,
        ),
        *(
            Target(f"AdamW {dtype} parameters, {states} states, time over torch fused {dtype}", ratio(f"{case}-1x20m"), limit)
            for dtype, limit in (("fp32", 1.0), ("bf16", 0.8))
            for states in ("int4", "int8")
            for case in (f"adamw-{dtype}-{states}-states",)
        ),
        *(
            Target(f"1000 x 4096, {states} states, time over torch fused", ratio(f"adamw-fp32-{states}-states-1000x4096"), 0.5)
            for states in ("int4", "int8")
        ),
        *(
            Target(f"{algorithm.name} {tensors}, time over its fastest peer", over_fastest(case, names), limit)
            for tensors, limit in (("1 x 20M", 0.5), ("1000 x 4096", 0.3))
            for algorithm in FAMILY
            for case in (f"{algorithm.name}-fp32-{tensors.replace(' ', '')}".lower(),)
            for names in ([peer.name for peer in OPTIONAL.get(algorithm.name, ())],)
            if names
        ),
        *(
            Target(
                f"{algorithm.name} 1 x 20M, time over our AdamW's by their bytes",
                beside(f"{algorithm.name}-fp32-1x20m".lower(), OUR_ADAMW, _bytes(algorithm) / _bytes(ADAMW)),
                1.15,
            )
            for algorithm in FAMILY
        ),
        *(
            Target(
                f"{work.title}, time over our AdamW's by their bytes",
                beside(work.name, OUR_ADAMW, _bytes(work.algorithm) / _bytes(ADAMW)),
                1.15,
            )
            for work in _REDUCING
        ),
        Target("400 tiny tensors, time over torch fused", ratio("adamw-fp32-400-tiny"), 1.0),
        Target("4000 tiny tensors, time over torch fused", ratio("adamw-fp32-4000-tiny"), 1.0),
    ),
    "cuda": (
        *(
            Target(f"AdamW {text} {size}, share of copy", share(f"adamw-{name}-1x{size.lower()}"), limit, at_least=True)
            for size, limit in (("1B", 0.9), ("100M", 0.8))
            for text, name in (("fp32", "fp32"), ("bf16", "bf16"), ("bf16 + fp32 states", "bf16-fp32-states"))
        ),
        *(
            Target(
                f"AdamW bf16 + {states} states 1B, share of copy",
                share(f"adamw-bf16-{states}-states-1x1b"),
                0.85,
                at_least=True,
            )
            for states in ("int4", "int8")
        ),
        Target(
            "AdamW bf16 + int4 states 1B, time over fp32 AdamW's",
            versus("adamw-bf16-int4-states-1x1b", "adamw-fp32-1x1b"),
            1 / 3,
        ),
        Target("1000 x 100K, time over 1 x 100M", versus("adamw-fp32-1000x100k", "adamw-fp32-1x100m"), 1.1),
        Target(
            "capture and replay, bits equal",
            bit_equal("adamw-fp32-148-gpt-graph", f"{_OURS}, replayed"),
            1.0,
            at_least=True,
        ),
    ),
}


def check(rows: Sequence[Row], device: str) -> str:
    """A table of targets, measured figures and verdicts."""
    by_name = {(row.case, row.contender): row for row in rows}
    lines = []
    for target in TARGETS[device]:
        limit = f"{'>=' if target.at_least else '<='} {target.limit:g}"
        try:
            measured = target.measure(by_name)
        except (KeyError, TypeError):
            lines.append([target.text, limit, "-", "not measured"])
        else:
            lines.append([target.text, limit, f"{measured:.3f}", "met" if target.met(measured) else "NOT MET"])
    return render(["target", "limit", "measured", ""], lines)


def _number(value: float | None) -> float:
    if value is None:
        raise TypeError("not measured")
    return value
