"""``python -m bench.ot``: time to a marginal error of 1e-9, beside other solvers; writes ``results/ot/ot.json`` and ``.png``.

``--paper`` prints the published table of Sinkhorn-Newton-Sparse beside ours alone.

All contenders run on one thread, in turn within each round, a fresh clock for each call; times are medians over the rounds. A
solver that misses the error is shown with what it reached. Peers take part when they are installed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from bench.machine import describe
from bench.ot.batches import batch_rows, easy_rows, sweep_rows
from bench.ot.contenders import BUDGET, available, missing
from bench.ot.paper import paper_rows
from bench.ot.picture import draw
from bench.ot.problems import PROBLEMS

TOLERANCE = 1e-9
CURVE = ("assignment n=500, reg 1/1200", "points n=500, reg 1/1200", "digits n=784, L1, reg 1/1200")
TOLERANCES = (1e-2, 1e-4, 1e-6, 1e-9, 1e-12)
SLOW = 1.0
"""Seconds; a contender that takes longer is timed once."""


def timed(solve: Callable, problem, tol: float) -> tuple[float, float, str]:
    """Return seconds, the error reached, and the work in words."""
    start = time.perf_counter()
    plan, work = solve(problem, tol)
    seconds = time.perf_counter() - start
    return seconds, problem.error(plan() if callable(plan) else plan), work


def time_to_error(rounds: int) -> list[dict]:
    rows = []
    for name, make in PROBLEMS.items():
        try:
            problem = make()
        except ModuleNotFoundError as missing:
            print(f"{name}: left out, {missing}")
            continue
        runs: dict[str, list] = {solver: [] for solver in available()}
        for solve in available().values():  # imports, and what is compiled for a shape
            timed(solve, replace(problem, reg=1.0), TOLERANCE)
        for k in range(rounds):
            for solver, solve in available().items():
                if k > 0 and runs[solver][0][0] > SLOW:
                    continue
                runs[solver].append(timed(solve, problem, TOLERANCE))
        for solver, measured in runs.items():
            seconds = statistics.median(run[0] for run in measured)
            row = {"problem": name, "solver": solver, "seconds": seconds, "error": measured[-1][1], "work": measured[-1][2]}
            rows.append(row)
            print(f"{name:38} {solver:18} {seconds * 1e3:9.1f} ms  error {row['error']:.1e}  {row['work']}", flush=True)
    return rows


def curves() -> list[dict]:
    """Time and error reached for each of several tolerances."""
    rows = []
    for name in CURVE:
        try:
            problem = PROBLEMS[name]()
        except ModuleNotFoundError:
            continue
        for solver, solve in available().items():
            for tol in TOLERANCES:
                seconds, error, _ = timed(solve, problem, tol)
                rows.append({"problem": name, "solver": solver, "tol": tol, "seconds": seconds, "error": error})
                if seconds > SLOW:
                    break
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ot", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender (default: 5)")
    parser.add_argument("--out", type=Path, default=Path("results/ot/ot.json"))
    parser.add_argument("--peer-iterations", type=int, default=BUDGET.iterations, help="of first-order peers (default: 500)")
    parser.add_argument("--paper", action="store_true", help="the table of the paper alone, nothing is written")
    parser.add_argument("--read", type=Path, help="draw results that were written before")
    options = parser.parse_args()
    if options.read is not None:
        draw(json.loads(options.read.read_text()), options.read.with_suffix(".png"))
        return
    torch.set_num_threads(1)
    if options.paper:
        paper_rows()
        return
    BUDGET.iterations = options.peer_iterations
    results = {"machine": describe(torch.device("cpu")), "missing": missing(), "budget": vars(BUDGET)}
    print("not installed:", ", ".join(missing()) or "none")
    results["rows"] = time_to_error(options.rounds)
    results["paper"] = paper_rows()
    results["batches"] = batch_rows(options.rounds)
    results["easy"] = easy_rows(options.rounds)
    results["sweeps"] = sweep_rows(options.rounds)
    results["curves"] = curves()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    draw(results, options.out.with_suffix(".png"))
    print(f"written: {options.out}, {options.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
