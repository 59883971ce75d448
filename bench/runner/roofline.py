"""Achieved bytes per second over bytes per call, under the line that a plain copy draws."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.runner.results import Row

_MARKERS = "osD^vP*X"


def draw(path: Path, rows: Sequence[Row], title: str) -> None:
    """Write the plot; raises ``ImportError`` where matplotlib is missing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measured = [row for row in rows if row.rate]
    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    for index, name in enumerate(dict.fromkeys(row.contender for row in measured)):
        own = [row for row in measured if row.contender == name]
        axes.plot(
            [row.bytes_moved for row in own],
            [row.rate / 1e9 for row in own if row.rate],
            linestyle="",
            marker=_MARKERS[index % len(_MARKERS)],
            color=f"C{index}",
            alpha=0.8,
            label=name,
        )
    copy_rates = [row.copy_rate for row in measured if row.copy_rate]
    if copy_rates:
        copy_rate = statistics.median(copy_rates) / 1e9
        axes.axhline(copy_rate, color="black", linewidth=1, label=f"copy, {copy_rate:.0f} GB/s")
    axes.set(xscale="log", yscale="log", xlabel="bytes moved per step (least possible)", ylabel="GB/s", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
