"""Memory of optimizer states: SGD-SaI, SCALE, FRUGAL and sparse SPAM beside Adam, measured.

Xu et al. (2412.11768) claim half of AdamW's state memory for SGD-SaI, Glentis et al. (2506.16659) little more than none for
SCALE, Zmushko et al. (2411.07837) and Huang et al. (2501.06842) their density's share for FRUGAL and sparse SPAM. Here each
optimizer steps the GPT of ``bench.train`` once, and the memory behind every tensor of its state is added up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bench.table import render
from bench.train.corpus import VOCABULARY
from bench.train.model import GPT, PRESETS
from bench.train.optimizers import state_bytes
from momentum import optim

MODEL = "base"
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "AdamW": ("AdamW", {}),
    "StableSPAM": ("StableSPAM", {}),
    "Lion": ("Lion", {}),
    "SGD-SaI": ("SGDSaI", {}),
    "SPAM, density 0.25": ("SPAM", {"density": 0.25}),
    "FRUGAL, columns 0.25": ("FRUGAL", {"density": 0.25}),
    "FRUGAL, entries 0.25": ("FRUGAL", {"density": 0.25, "projector": "random"}),
    "FRUGAL, tensors 0.25": ("FRUGAL", {"density": 0.25, "projector": "block"}),
    "AdamW8bit": ("AdamW8bit", {}),
    "AdamW4bit": ("AdamW4bit", {}),
    "SCALE": ("SCALE", {}),
}


def measure() -> dict[str, Any]:
    """Step once with each optimizer."""
    rows = []
    for name, (kind, arguments) in CONTENDERS.items():
        model = GPT(PRESETS[MODEL])
        optimizer = optim.create(kind, model, lr=1e-4, **arguments)
        tokens = torch.randint(VOCABULARY, (1, 17))
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.step()
        held = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        rows.append({"optimizer": name, "parameters": held, "state_bytes": state_bytes(optimizer)})
    return {"settings": {"model": MODEL, "dtype": "float32"}, "rows": rows}


def table(results: dict[str, Any]) -> str:
    """State bytes of each, per parameter and as a share of AdamW's."""
    adamw = results["rows"][0]["state_bytes"]
    lines = [
        [
            row["optimizer"],
            f"{row['state_bytes'] / 1e6:.2f} MB",
            f"{row['state_bytes'] / row['parameters']:.3f}",
            f"{row['state_bytes'] / adamw:.1%}",
        ]
        for row in results["rows"]
    ]
    title = f"GPT of {results['rows'][0]['parameters'] / 1e6:.2f} M parameters, fp32"
    return render([title, "state", "bytes per parameter", "of AdamW"], lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw a bar for each optimizer."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5))
    values = [row["state_bytes"] / row["parameters"] for row in results["rows"]]
    bars = axis.barh([row["optimizer"] for row in results["rows"]], values)
    axis.bar_label(bars, [f"{value:.2f}" for value in values], padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlabel("state bytes per parameter, measured after a step")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
