"""What a training leaves: a table for the eye, JSON for the machine."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.machine import describe
from bench.table import render
from bench.train.agreement import Agreement
from bench.train.corpus import Corpus
from bench.train.loop import Run, Settings

_LAST_STEPS = 0.05
"""The final training loss is the mean over this share of the steps."""


def final_loss(run: Run) -> float:
    """Mean training loss over the last steps; not a number before the first."""
    last = run.losses[-max(1, round(_LAST_STEPS * len(run.losses))) :]
    return statistics.fmean(last) if last else float("nan")


def table(runs: Sequence[Run], settings: Settings) -> str:
    """One line for each optimizer."""
    return render(
        ["optimizer", "steps", "train loss", "val loss", "bytes/s", "optimizer step", "state"],
        [_line(run, settings) for run in runs],
    )


def document(runs: Sequence[Run], agreements: Sequence[Agreement], corpus: Corpus, settings: Settings) -> dict[str, Any]:
    """Everything that was measured, with what it takes to repeat it."""
    return {
        "schema": 1,
        "machine": describe(settings.device),
        "settings": {key: _plain(value) for key, value in asdict(settings).items()},
        "corpus": {
            "files": corpus.files,
            "train_bytes": corpus.train.numel(),
            "held_out_bytes": corpus.held_out.numel(),
            "sha256": corpus.digest,
        },
        "runs": [asdict(run) for run in runs],
        "agreements": [asdict(agreement) for agreement in agreements],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace ``path`` in one go, so that an interruption leaves the old file or the new one."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def _line(run: Run, settings: Settings) -> list[str]:
    if not run.losses:
        return [run.label, "0", "-", "-", "-", "-", "-"]
    step_seconds = statistics.median(b - a for a, b in zip([0.0, *run.seconds], run.seconds, strict=False))
    return [
        run.label,
        f"{len(run.losses)}" + ("" if run.finished else " (stopped)"),
        f"{final_loss(run):.4f}",
        f"{run.validation[-1][1]:.4f}" if run.validation else "-",
        f"{settings.batch * settings.shape.context / step_seconds:,.0f}",
        f"{statistics.median(run.optimizer_seconds) * 1e3:.3f} ms",
        f"{run.state_bytes / 1e6:.2f} MB",
    ]


def _plain(value: object) -> object:
    return value if isinstance(value, dict | int | float | str) else str(value).removeprefix("torch.")
