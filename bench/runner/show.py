"""Rows as text."""

from __future__ import annotations

from collections.abc import Sequence

from bench.runner.case import NOT_INSTALLED
from bench.runner.results import Row
from bench.table import render


def table(rows: Sequence[Row]) -> str:
    """The rows of one case under its title."""
    first = rows[0]
    copy_rate = next((row.copy_rate for row in rows if row.copy_rate), None)
    header = [first.title, "time", f"x {first.peer}", "GB/s", "of copy", "B/elem", "host", "launches"]
    lines = [_line(row) for row in rows if row.skipped is None]
    text = render(header, lines)
    if copy_rate:
        text += f"\n(copy in the same rounds: {copy_rate / 1e9:.1f} GB/s)"
    if repeated := max(row.repeated for row in rows):
        text += f"\n({repeated} rounds repeated: the machine had fewer processors to give than there are threads)"
    if disturbed := max(row.disturbed for row in rows):
        text += f"\n({disturbed} MORE SUCH ROUNDS COUNT, because too many had been repeated)"
    missing = [row.contender for row in rows if row.skipped == NOT_INSTALLED]
    if missing:
        text += f"\n{NOT_INSTALLED}: {', '.join(missing)}"
    for row in rows:
        if row.skipped not in (None, NOT_INSTALLED):
            text += f"\n{row.contender}: skipped, {row.skipped}"
        if row.verified is not None:
            text += f"\n{row.contender}: {'bit-equal' if row.verified else 'NOT BIT-EQUAL'} to the plain call"
    return text


def duration(seconds: float | None) -> str:
    """Seconds with three digits and a fitting unit."""
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _line(row: Row) -> list[str]:
    return [
        row.contender,
        duration(row.seconds),
        "-" if row.ratio is None else f"{row.ratio:.2f}",
        "-" if row.rate is None else f"{row.rate / 1e9:.1f}",
        "-" if row.share is None else f"{row.share:.0%}",
        f"{row.bytes_moved / max(row.elements, 1):.4g}",
        duration(row.host_seconds),
        "-" if row.launches is None else str(row.launches),
    ]
