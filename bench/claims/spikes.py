"""Spikes in the gradients: SPAM and Stable-SPAM against Adam.

Huang et al. (2501.06842, 2502.17055) claim that Adam loses much to rare gradients of hundreds of times the usual size, and that
clipping each entry by its own second moment, beside resets of the momentum, makes up for it. Here a GPT of 0.1 M parameters is
trained on bytes, as it is and with spikes: at one step in twenty a share of the entries of every gradient is multiplied by
1000. All optimizers have the same learning rate, weights, batches and spikes; Adam is also shown behind the usual clipping by
the global norm.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from bench.table import render
from bench.train.corpus import Corpus, standard_library
from bench.train.model import GPT, PRESETS
from momentum import optim

LR, BATCH, WARM_UP = 2e-3, 8, 20
SPIKED_STEPS, SIZE = 0.05, 1000.0
SHARES = (0.0, 0.01, 0.1, 1.0)
"""Of the entries that a spike hits."""
_FIRST_SPIKE = 60
_WINDOW = 20
_EVALUATION_BATCHES = 16
_RESETS: dict[str, Any] = {"reset_interval": 120, "warmup_steps": 20}

Make = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
CONTENDERS: dict[str, tuple[Make, float | None]] = {
    "Adam": (lambda params: optim.Adam(params, lr=LR), None),
    "Adam, norm clipped to 1": (lambda params: optim.Adam(params, lr=LR), 1.0),
    "SPAM": (lambda params: optim.SPAM(params, lr=LR, **_RESETS), None),
    "SPAM, density 0.25": (lambda params: optim.SPAM(params, lr=LR, density=0.25, **_RESETS), None),
    "StableSPAM": (lambda params: optim.StableSPAM(params, lr=LR, reset_interval=120), None),
}


def measure(steps: int = 300, seeds: int = 2) -> dict[str, Any]:
    """Train with every contender and each share of spiked entries, from ``seeds`` initialisations."""
    corpus = standard_library()
    runs = []
    for name in CONTENDERS:
        for share in SHARES:
            for seed in range(seeds):
                losses, held_out = _train(name, corpus, steps, seed, share)
                runs.append({"optimizer": name, "share": share, "seed": seed, "losses": losses, "held_out": held_out})
                print(f"{name}, seed {seed}, {share:.0%} of the entries: {held_out:.3f} nats per byte", flush=True)
    settings = {
        "steps": steps, "seeds": seeds, "lr": LR, "batch": BATCH, "model": "tiny", "warm_up": WARM_UP, "resets": _RESETS,
        "spiked_steps": SPIKED_STEPS, "size": SIZE,
    }  # fmt: skip
    return {"settings": settings, "runs": runs}


def _train(name: str, corpus: Corpus, steps: int, seed: int, share: float) -> tuple[list[float], float]:
    make, norm = CONTENDERS[name]
    torch.manual_seed(seed)
    shape = PRESETS["tiny"]
    model = GPT(shape)
    optimizer = make(model.parameters())
    batches, spikes = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 + seed)
    losses = []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, step / WARM_UP)
        loss = model.loss(*corpus.batch(BATCH, shape.context, batches))
        loss.backward()
        hit = float(torch.rand((), generator=spikes)) < SPIKED_STEPS and step >= _FIRST_SPIKE
        if share > 0 and hit:
            for p in model.parameters():
                chosen = torch.rand(p.shape, generator=spikes) < share
                p.grad = torch.where(chosen, SIZE * p.grad, p.grad) if p.grad is not None else None
        if norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 4))
    with torch.no_grad():
        held_out = [model.loss(x, y).item() for x, y in corpus.held_out_batches(_EVALUATION_BATCHES, BATCH, shape.context)]
    return losses, statistics.fmean(held_out)


def _held_out(results: dict[str, Any], name: str, share: float) -> list[float]:
    return [run["held_out"] for run in results["runs"] if run["optimizer"] == name and run["share"] == share]


def table(results: dict[str, Any]) -> str:
    """Held-out loss of each contender at each share, with its range over the seeds."""
    lines = []
    for name in CONTENDERS:
        values = [_held_out(results, name, share) for share in SHARES]
        lines.append([name, *(f"{statistics.fmean(x):.3f} ({min(x):.3f} to {max(x):.3f})" for x in values)])
    return render(["held-out loss by entries spiked", *(f"{share:.0%}" for share in SHARES)], lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw training losses without spikes and with the largest, and the held-out losses at the end by share."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5))
    for index, name in enumerate(CONTENDERS):
        style = {"color": f"C{index}", "label": name}
        for axis, share in zip(axes, (SHARES[0], SHARES[-1]), strict=False):
            curves = [r["losses"] for r in results["runs"] if r["optimizer"] == name and r["share"] == share]
            mean = [statistics.fmean(values) for values in zip(*curves, strict=True)]
            axis.plot([statistics.fmean(mean[max(0, end - _WINDOW) : end]) for end in range(1, len(mean) + 1)], **style)
            axis.set_title(f"spikes of {share:.0%} of the entries")
            axis.set(xlabel="step", ylabel="training loss (nats per byte), mean of the seeds")
        ends = [_held_out(results, name, share) for share in SHARES]
        axes[2].plot(range(len(SHARES)), list(map(statistics.fmean, ends)), marker="o", **style)
        axes[2].vlines(range(len(SHARES)), list(map(min, ends)), list(map(max, ends)), color=f"C{index}")
    axes[2].set_xticks(range(len(SHARES)), [f"{share:.0%}" for share in SHARES])
    axes[2].set(xlabel="entries that a spike hits", ylabel="held-out loss at the end; bars: range of the seeds")
    axes[2].legend(fontsize=8)
    axes[0].sharey(axes[1])
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
