"""Command line of the claims."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bench.claims import grokking, memory, spikes
from bench.machine import describe

CLAIMS: dict[str, ModuleType] = {"memory": memory, "spikes": spikes, "grokking": grokking}
_RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the claims that are named, print them, and write their files."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.claims",
        description="Try what papers claim of optimizers, at small scale on one CPU thread: "
        + "; ".join(f"{name}: {str(module.__doc__).splitlines()[0]}" for name, module in CLAIMS.items()),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("names", nargs="+", choices=CLAIMS, metavar="NAME", help=", ".join(CLAIMS))
    parser.add_argument("--steps", type=int, help="steps of each training; default: the claim's own")
    parser.add_argument("--seeds", type=int, help="trainings of each kind; default: the claim's own")
    parser.add_argument("--out", type=Path, default=_RESULTS, help="folder for claim-NAME.json and claim-NAME.png")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = {name: value for name, value in (("steps", options.steps), ("seeds", options.seeds)) if value is not None}
    for name in options.names:
        known = inspect.signature(CLAIMS[name].measure).parameters
        if unknown := chosen.keys() - known:
            parser.error(f"{name} has no --{min(unknown)}")
    for name in options.names:
        run(name, options.out, **chosen)
    return 0


def run(name: str, folder: Path, **settings: int) -> dict[str, Any]:
    """Measure one claim and write its files."""
    claim = CLAIMS[name]
    measured: dict[str, Any] = claim.measure(**settings)
    results = {"claim": name, "machine": describe(torch.device("cpu")), **measured}
    print(claim.table(results))
    file = folder / f"claim-{name}.json"
    text = json.dumps(results, indent=1)
    file.write_text(re.sub(r"\[[-+\d.e,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n")
    written = [file]
    try:
        claim.draw(results, file.with_suffix(".png"))
        written.append(file.with_suffix(".png"))
    except ModuleNotFoundError as error:
        print(f"no picture: {error}")
    print("written: " + ", ".join(map(str, written)))
    return results
