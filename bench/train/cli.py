"""Command line of the training: options, and what is printed."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bench.train.corpus import Corpus, standard_library
from bench.train.loop import Settings, build_model
from bench.train.model import GPT, PRESETS, Shape, generate
from bench.train.optimizers import OptimizerError, choose
from bench.train.report import table
from bench.train.session import Session

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
_PROMPT = b"def "
_SAMPLE_BYTES = 200
_DISAGREES, _BAD_OPTION, _INTERRUPTED = 1, 2, 128 + signal.SIGINT
_RESULTS = Path(__file__).parents[2] / "results" / "train"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training; the exit code is 0, 1 (curves disagree), 2 (bad option) or 130 (interrupted)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        torch.set_num_threads(options.threads)
        settings = _settings(options)
        choices = [choose(label) for label in options.optimizers]
        model = build_model(settings)
        for choice in choices:
            choice.build(model, settings.lr, settings.weight_decay)
        options.out.mkdir(parents=True, exist_ok=True)
        corpus = standard_library()
    except (OptimizerError, ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return _BAD_OPTION

    print(_introduction(model, settings, corpus), flush=True)
    session = Session(corpus, settings)
    interrupted = False
    try:
        session.train(choices)
    except KeyboardInterrupt:
        interrupted = True
        print("\ninterrupted: these are the results so far", file=sys.stderr)
    files = session.save(options.out) if session.runs else []
    print()
    print(table(session.runs, settings))
    for line in [*(agreement.sentence() for agreement in session.agreements), *session.remarks]:
        print(line)
    if session.model is not None and not interrupted:
        print(f"\nwhat the last model writes after {_PROMPT.decode()!r}:")
        print(generate(session.model, _PROMPT, _SAMPLE_BYTES, settings.seed).decode(errors="replace"))
    print("\nwritten: " + ", ".join(str(file) for file in files))
    if interrupted:
        return _INTERRUPTED
    return 0 if all(agreement.agrees for agreement in session.agreements) else _DISAGREES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.train",
        description="Train a byte-level GPT on the standard library's sources, once with each optimizer: same weights, "
        "same batches. Two optimizers of the same class must give the same loss curve.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--optimizers",
        nargs="+",
        metavar="NAME",
        default=["torch.AdamW", "momentum.AdamW"],
        help="torch.CLASS or momentum.CLASS, constructor arguments behind a colon: momentum.Lion:lr=3e-4",
    )
    parser.add_argument("--model", choices=PRESETS, default="base", help="preset size; the next four options refine it")
    for name in ("layers", "width", "heads", "context"):
        parser.add_argument(f"--{name}", type=_positive, help="of the model", default=argparse.SUPPRESS)
    parser.add_argument("--steps", type=_positive, default=600, help="steps of each run")
    parser.add_argument("--batch", type=_positive, default=8, help="windows in a batch")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.1, help="decay of matrices")
    parser.add_argument("--evaluations", type=_positive, default=5, help="validations during a run, the last at its end")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="of the parameters")
    parser.add_argument("--threads", type=_positive, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--out", type=Path, default=_RESULTS, help="folder for train.json and train.png")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _settings(options: argparse.Namespace) -> Settings:
    refined = {name: getattr(options, name) for name in ("layers", "width", "heads", "context") if name in options}
    shape: Shape = replace(PRESETS[options.model], **refined)
    if shape.width % shape.heads:
        raise ValueError(f"--width {shape.width} is not a multiple of --heads {shape.heads}")
    if not options.lr > 0:
        raise ValueError(f"--lr {options.lr} is not positive")
    return Settings(
        shape=shape,
        steps=options.steps,
        batch=options.batch,
        lr=options.lr,
        weight_decay=options.weight_decay,
        evaluations=options.evaluations,
        seed=options.seed,
        device=_device(options.device),
        dtype=_DTYPES[options.dtype],
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda"}:
        raise ValueError(f"--device {name!r} is neither cpu nor cuda nor cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def _introduction(model: GPT, settings: Settings, corpus: Corpus) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"byte-level GPT of {parameters / 1e6:.2f} M parameters in {len(list(model.parameters()))} tensors on "
        f"{settings.device}; {corpus.train.numel() / 1e6:.1f} MB of Python sources to train on, "
        f"{corpus.held_out.numel() / 1e6:.1f} MB held out; {settings.steps} steps of "
        f"{settings.batch} x {settings.shape.context} bytes"
    )
