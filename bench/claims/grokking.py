"""Grokking of modular addition: perpendicular gradients and StableMax against Adam.

Prieto et al. (2501.04697) claim that without weight decay a network that fits its training data stops learning before it
generalises, because gradients then only scale its logits until softmax loses them to rounding; and that stepping along the part
of the gradient that is perpendicular to the weights, or StableMax in place of softmax, generalises early and without decay.
Here a perceptron with two hidden layers learns a + b modulo a prime from 70 % of all pairs, in full batches of float32.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.table import render
from momentum import optim
from momentum.functional import stablemax_cross_entropy

PRIME, WIDTH, SHARE, LR = 31, 200, 0.7, 1e-3
_EVERY = 20
"""Steps between two looks at the accuracy."""
_LEARNT = 0.95

Make = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]
CONTENDERS: dict[str, tuple[Make, Loss]] = {
    "Adam": (lambda params: optim.Adam(params, lr=LR), nn.functional.cross_entropy),
    "AdamW, weight decay 0.1": (lambda params: optim.AdamW(params, lr=LR, weight_decay=0.1), nn.functional.cross_entropy),
    "Adam, StableMax": (lambda params: optim.Adam(params, lr=LR), stablemax_cross_entropy),
    "Adam, orthograd": (lambda params: optim.Adam(params, lr=LR, orthograd=True), nn.functional.cross_entropy),
}


def measure(steps: int = 2500, seeds: int = 2) -> dict[str, Any]:
    """Train with every contender from ``seeds`` initialisations and choices of the training pairs."""
    runs = []
    for name in CONTENDERS:
        for seed in range(seeds):
            run = {"optimizer": name, "seed": seed, **_train(name, steps, seed)}
            runs.append(run)
            print(f"{name}, seed {seed}: {run['test'][-1]:.1%} of the unseen pairs", flush=True)
    settings = {"steps": steps, "seeds": seeds, "lr": LR, "prime": PRIME, "width": WIDTH, "training_share": SHARE}
    return {"settings": settings, "runs": runs}


def _train(name: str, steps: int, seed: int) -> dict[str, list[float]]:
    make, loss_of = CONTENDERS[name]
    torch.manual_seed(seed)
    pairs = torch.cartesian_prod(torch.arange(PRIME), torch.arange(PRIME))[torch.randperm(PRIME * PRIME)]
    inputs, targets = nn.functional.one_hot(pairs, PRIME).flatten(1).float(), pairs.sum(1) % PRIME
    count = int(SHARE * len(pairs))
    model = nn.Sequential(nn.Linear(2 * PRIME, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, PRIME))
    optimizer = make(model.parameters())
    found: dict[str, list[float]] = {"step": [], "training": [], "test": [], "loss": []}
    for step in range(1, steps + 1):
        logits = model(inputs[:count])
        loss = loss_of(logits, targets[:count])
        if step == 1 or step % _EVERY == 0 or step == steps:
            with torch.no_grad():
                unseen = model(inputs[count:]).argmax(1) == targets[count:]
            found["step"].append(step)
            found["training"].append(round((logits.argmax(1) == targets[:count]).float().mean().item(), 4))
            found["test"].append(round(unseen.float().mean().item(), 4))
            found["loss"].append(float(f"{loss.item():.3g}"))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return found


def _first(run: dict[str, Any], kind: str) -> int | None:
    """The first look at which the accuracy was reached."""
    return next((step for step, value in zip(run["step"], run[kind], strict=True) if value >= _LEARNT), None)


def _steps(values: list[int | None]) -> str:
    return ", ".join("never" if value is None else str(value) for value in values)


def table(results: dict[str, Any]) -> str:
    """When each contender knows the training pairs and the unseen ones, and what it knows of these at the end."""
    lines = []
    for name in CONTENDERS:
        runs = [run for run in results["runs"] if run["optimizer"] == name]
        ends = [run["test"][-1] for run in runs]
        lines.append(
            [
                name,
                _steps([_first(run, "training") for run in runs]),
                _steps([_first(run, "test") for run in runs]),
                f"{statistics.fmean(ends):.1%} ({min(ends):.1%} to {max(ends):.1%})",
            ]
        )
    title = f"{results['settings']['steps']} steps"
    return render([title, f"training {_LEARNT:.0%} at step", f"unseen {_LEARNT:.0%} at step", "unseen at the end"], lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the accuracy on unseen pairs, with that on the training pairs dotted, and the training loss."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (accuracy, loss) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    for index, name in enumerate(CONTENDERS):
        for run in results["runs"]:
            if run["optimizer"] != name:
                continue
            style = {"color": f"C{index}", "label": name if run["seed"] == 0 else None}
            accuracy.plot(run["step"], run["test"], **style)
            accuracy.plot(run["step"], run["training"], color=f"C{index}", linestyle=":", linewidth=0.8)
            loss.plot(run["step"], [max(value, 1e-9) for value in run["loss"]], **style)
    accuracy.set(xlabel="step", ylabel="accuracy: unseen pairs (dotted: training pairs)")
    loss.set(xlabel="step", ylabel="training loss", yscale="log")
    accuracy.legend(fontsize=8)
    for axis in (accuracy, loss):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
