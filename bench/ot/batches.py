"""Batches of small problems, easy problems, and single sweeps."""

from __future__ import annotations

import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable

import torch

from bench.ot.problems import assignment, points
from momentum import ot

SLOW = 5.0
"""Seconds; what takes longer is run once."""


def _interleaved(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            if seconds[name][:1] > [SLOW]:
                continue
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:] or times) for name, times in seconds.items()}


def batch_rows(rounds: int, count: int = 128, n: int = 64, eta: float = 300) -> list[dict]:
    """128 problems of 64 points each to 1e-9, in one call and in a loop over POT."""
    problems = [points(n, eta, seed) for seed in range(count)]
    cost, a, b = (torch.stack([getattr(p, name) for p in problems]) for name in ("cost", "a", "b"))
    contenders: dict[str, Callable[[], object]] = {
        "momentum auto, one call": lambda: ot.solve(cost, a, b, 1 / eta, tol=1e-9),
        "momentum auto, a loop": lambda: [ot.solve(p.cost, p.a, p.b, p.reg, tol=1e-9) for p in problems],
    }
    if importlib.util.find_spec("ot") is not None:
        import ot as pot

        def loop() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for p in problems:
                    arguments = (p.a.numpy(), p.b.numpy(), p.cost.numpy(), p.reg)
                    pot.bregman.sinkhorn_log(*arguments, numItermax=1000, stopThr=1e-9 / n**0.5)

        contenders["POT sinkhorn_log, a loop"] = loop
    rows = [
        {"case": f"{count} x points n={n}, reg 1/{eta:g}", "solver": k, "seconds": s}
        for k, s in _interleaved(contenders, rounds).items()
    ]
    for row in rows:
        print(f"{row['case']:38} {row['solver']:26} {row['seconds'] * 1e3:9.1f} ms", flush=True)
    return rows


def easy_rows(rounds: int) -> list[dict]:
    """To 1e-3 where sweeps are all that is needed: `auto` must not cost more than they do."""
    rows = []
    for name, problem in (("assignment n=500, reg 1/50", assignment(500, 50)), ("points n=500, reg 1/20", points(500, 20))):
        solve = {
            m: (lambda m=m, p=problem: ot.solve(p.cost, p.a, p.b, p.reg, method=m, tol=1e-3)) for m in ("auto", "sinkhorn")
        }
        for method, seconds in _interleaved(solve, 20 * rounds).items():
            row = {"case": f"{name}, to 1e-3", "solver": f"momentum {method}", "seconds": seconds}
            rows.append(row | {"sweeps": int(solve[method]().sweeps)})
            print(
                f"{rows[-1]['case']:38} {rows[-1]['solver']:26} {seconds * 1e3:9.2f} ms  {rows[-1]['sweeps']} sweeps",
                flush=True,
            )
    return rows


def sweep_rows(rounds: int, n: int = 2000, sweeps: int = 10) -> list[dict]:
    """One Sinkhorn iteration on 2000 x 2000, both marginals: ours, and two passes of torch's logsumexp."""
    rows = []
    for dtype in (torch.float32, torch.float64):
        problem = assignment(n, 50)
        cost = problem.cost.to(dtype)
        log_a, log_b = problem.a.log().to(dtype), problem.b.log().to(dtype)
        kernel = -cost / problem.reg

        def composite(kernel=kernel, log_a=log_a, log_b=log_b) -> None:
            y = torch.zeros_like(log_b)
            for _ in range(sweeps):
                x = log_a - (kernel + y).logsumexp(1)
                y = log_b - (kernel + x[:, None]).logsumexp(0)

        def ours(count: int, cost=cost, problem=problem) -> Callable[[], object]:
            return lambda: ot.solve(
                cost, problem.a, problem.b, problem.reg, method="sinkhorn", tol=0, max_sweeps=count, grad="detach"
            )

        # The difference of two runs leaves out what a call does once.
        times = _interleaved({"long": ours(2 * sweeps), "short": ours(sweeps), "torch": composite}, rounds)
        name = str(dtype).removeprefix("torch.")
        for solver, seconds in (("momentum", times["long"] - times["short"]), ("torch, two logsumexp", times["torch"])):
            rows.append({"case": f"sweep {n} x {n} {name}", "solver": solver, "seconds": seconds / sweeps})
            print(f"{rows[-1]['case']:38} {solver:26} {rows[-1]['seconds'] * 1e3:9.2f} ms", flush=True)
    return rows
