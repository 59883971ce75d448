"""Command line of the benchmarks: options, the loop over cases, what is printed and written."""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import gc
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bench import targets
from bench.machine import describe
from bench.runner import results, roofline, show
from bench.runner.case import Case
from bench.runner.clock import Clock
from bench.runner.families import FAMILIES, cases
from bench.runner.processors import Processors
from bench.runner.rounds import Copy, Rounds

_BAD_OPTION, _INTERRUPTED = 2, 128 + signal.SIGINT
_RESULTS = Path(__file__).parents[2] / "results" / "bench" / "bench.json"
_ROUNDS = 15
_QUICK_SHRINK, _QUICK_ROUNDS = 512, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; the exit code is 0, 2 (bad option) or 130 (interrupted, the cases so far are written)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _read(options.read) if options.read is not None else _run(options)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return _BAD_OPTION


def _read(path: Path) -> int:
    """Present results that were written before."""
    machine, _, rows = results.read(path)
    for _, measured in itertools.groupby(rows, key=lambda row: row.case):
        print(show.table(list(measured)) + "\n")
    print(targets.check(rows, machine["device"]))
    return 0


def _run(options: argparse.Namespace) -> int:
    device = _device(options.device)
    torch.set_num_threads(options.threads)
    shrink = _QUICK_SHRINK if options.quick else 1
    selected = _select(device, shrink, options.families, options.cases)
    if options.list:
        print("\n".join(f"{case.name:<32} {case.title}" for case in selected))
        return 0
    count = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    processors = Processors(options.threads if device.type == "cpu" else 1)
    rounds = Rounds(device, count, Copy(device, shrink), Clock(device), processors, options.seed)
    machine = describe(device)
    settings = {"rounds": count, "seed": options.seed, "quick": options.quick, "date": str(datetime.date.today())}
    rows: list[results.Row] = []
    interrupted = False
    try:
        for case in selected:
            measured = rounds.measure(case)
            print(show.table(measured) + "\n", flush=True)
            rows += measured
            results.write(options.out, machine, settings, rows)
            gc.collect()
    except KeyboardInterrupt:
        interrupted = True
        print("\ninterrupted: the cases so far are kept", file=sys.stderr)
    results.write(options.out, machine, settings, rows)
    picture = options.out.with_suffix(".png")
    try:
        roofline.draw(picture, rows, f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} threads")
        print(f"written: {options.out}, {picture}")
    except ImportError:
        print(f"written: {options.out}; no picture: matplotlib is not installed")
    if options.check_targets:
        print(targets.check(rows, device.type))
    return _INTERRUPTED if interrupted else 0


def _select(device: torch.device, shrink: int, families: Sequence[str], patterns: Sequence[str]) -> list[Case]:
    found = [case for family in families for case in cases(family, device, shrink)]
    for pattern in patterns:
        if not any(fnmatch.fnmatch(case.name, pattern) for case in found):
            names = ", ".join(case.name for case in found)
            raise ValueError(f"--cases {pattern!r} matches none of {names}")
    return [case for case in found if not patterns or any(fnmatch.fnmatch(case.name, p) for p in patterns)]


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device")
    return torch.device(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Time momentum's operations beside their peers, in interleaved rounds and against a plain copy.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="families to run")
    parser.add_argument("--cases", nargs="+", metavar="PATTERN", default=[], help="names, with * and ?; all by default")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument("--rounds", type=_positive, help=f"rounds of each case (default: {_ROUNDS})")
    parser.add_argument("--seed", type=int, default=0, help="of the order within rounds")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to run")
    parser.add_argument("--threads", type=_positive, default=os.cpu_count(), help="CPU threads")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"tensors {_QUICK_SHRINK} times smaller, {_QUICK_ROUNDS} rounds: tries the runner, not the speed",
    )
    parser.add_argument("--out", type=Path, default=_RESULTS, metavar="FILE", help="JSON; the plot goes beside it")
    parser.add_argument("--check-targets", action="store_true", help="compare with the declared targets at the end")
    parser.add_argument("--read", type=Path, metavar="FILE", help="show an earlier result and its targets")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
