"""The picture of a training: loss over steps, loss over time, time of the optimizer's step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.train.loop import Run

_WINDOW = 0.02
"""Curves are smoothed over this share of the steps."""


def draw(path: Path, runs: Sequence[Run], title: str) -> None:
    """Write the picture; raises ``ImportError`` where matplotlib is missing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (over_steps, over_time, optimizer) = pyplot.subplots(1, 3, figsize=(15, 4.5), width_ratios=[3, 3, 2])
    runs = [run for run in runs if run.losses]
    for index, run in enumerate(runs):
        smooth = _smooth(run.losses)
        # Curves lie on each other when the optimizers agree: dashes and growing circles keep all of them visible.
        line = {"color": f"C{index}", "linestyle": "--" if index else "-", "label": run.label}
        dots = {"color": f"C{index}", "marker": "o", "linestyle": "", "markersize": 6 + 3 * index, "fillstyle": "none"}
        for axes, at in ((over_steps, range(1, len(smooth) + 1)), (over_time, run.seconds)):
            axes.plot(at, smooth, **line)
            axes.plot([at[step - 1] for step, _ in run.validation], [loss for _, loss in run.validation], **dots)
    medians = [statistics.median(run.optimizer_seconds) * 1e3 for run in runs]
    bars = optimizer.bar(range(len(runs)), medians, color=[f"C{index}" for index in range(len(runs))])
    optimizer.bar_label(bars, [f"{median:.2f} ms" for median in medians])
    optimizer.set_ylabel("optimizer step, median (ms)")
    optimizer.margins(y=0.15)
    optimizer.set_xticks(range(len(runs)), [run.label for run in runs], rotation=20, ha="right")
    for axes, label in ((over_steps, "step"), (over_time, "training time (s)")):
        axes.set(xlabel=label, ylabel="loss (nats per byte); circles: held out")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _smooth(losses: Sequence[float]) -> list[float]:
    """Mean over the window that ends at each step."""
    width = max(1, round(_WINDOW * len(losses)))
    return [statistics.fmean(losses[max(0, end - width) : end]) for end in range(1, len(losses) + 1)]
