"""One training run, written as a user would write it, with a stopwatch around ``optimizer.step()``."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch

from bench.train.corpus import Corpus
from bench.train.model import GPT, Shape
from bench.train.optimizers import Choice, state_bytes, state_dtypes
from bench.train.progress import Progress

_CLIP_NORM = 1.0
_WARM_UP = 0.05
_FINAL_LR = 0.1
_EVALUATION_BATCHES = 8


@dataclass(frozen=True)
class Settings:
    """What all runs share: with equal settings every optimizer sees the same weights and the same batches."""

    shape: Shape
    steps: int
    batch: int
    lr: float
    weight_decay: float
    evaluations: int
    seed: int
    device: torch.device
    dtype: torch.dtype


@dataclass
class Run:
    """What one run left behind; filled step by step, so an interrupted run keeps what it has."""

    label: str
    parameters: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Training time at the end of each step, validation left out."""
    optimizer_seconds: list[float] = field(default_factory=list)
    """Time of each ``optimizer.step()`` alone."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    state_bytes: int = 0
    state_dtypes: list[str] = field(default_factory=list)
    finished: bool = False


class Stopwatch:
    """Times a stretch of work on the device: by the clock on the CPU, by events on CUDA."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        if self._cuda:
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def __enter__(self) -> Stopwatch:
        if self._cuda:
            self._events[0].record()
        else:
            self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._cuda:
            self._events[1].record()
        else:
            self._seconds = time.perf_counter() - self._start

    def seconds(self) -> float:
        """Length of the stretch; on CUDA, to be asked for once the device is known to have passed its end."""
        return self._events[0].elapsed_time(self._events[1]) / 1e3 if self._cuda else self._seconds


def build_model(settings: Settings) -> GPT:
    """The model every run starts from."""
    torch.manual_seed(settings.seed)
    return GPT(settings.shape).to(settings.device, settings.dtype)


@torch.no_grad()
def perturb(model: GPT, settings: Settings) -> None:
    """Move every parameter by one rounding error, up or down at random: of itself or of its update, the greater."""
    generator = torch.Generator().manual_seed(settings.seed)
    for parameter in model.parameters():
        sign = torch.randint(2, parameter.shape, generator=generator).to(parameter) * 2 - 1
        error = parameter.abs().clamp_min(settings.lr) * torch.finfo(parameter.dtype).eps
        parameter.add_(sign * error)


def train(run: Run, model: GPT, choice: Choice, corpus: Corpus, settings: Settings, steps: int | None = None) -> None:
    """Train ``model`` with the chosen optimizer and write what happens into ``run``.

    ``steps`` stops before the schedule of ``settings.steps`` has ended.
    """
    steps = settings.steps if steps is None else min(steps, settings.steps)
    optimizer = choice.build(model, settings.lr, settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, settings.steps))
    batches = torch.Generator().manual_seed(settings.seed)
    evaluate_at = {round(settings.steps * (i + 1) / settings.evaluations) for i in range(settings.evaluations)}
    stopwatch = Stopwatch(settings.device)
    run.parameters = sum(parameter.numel() for parameter in model.parameters())
    elapsed = 0.0
    with Progress(run.label, steps) as progress:
        for step in range(1, steps + 1):
            start = time.perf_counter()
            tokens, targets = corpus.batch(settings.batch, settings.shape.context, batches)
            loss = model.loss(tokens.to(settings.device), targets.to(settings.device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
            with stopwatch:
                optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            value = loss.item()  # waits for the device, the optimizer's step included
            elapsed += time.perf_counter() - start
            run.losses.append(value)
            run.seconds.append(elapsed)
            run.optimizer_seconds.append(stopwatch.seconds())
            if step == 1:
                run.state_bytes = state_bytes(optimizer)
                run.state_dtypes = sorted(str(dtype).removeprefix("torch.") for dtype in state_dtypes(optimizer))
            if step in evaluate_at:
                run.validation.append((step, evaluate(model, corpus, settings)))
            progress.advance(f"loss {value:.3f}")
    run.finished = True


@torch.no_grad()
def evaluate(model: GPT, corpus: Corpus, settings: Settings) -> float:
    """Mean loss over a fixed set of held-out batches."""
    batches = corpus.held_out_batches(_EVALUATION_BATCHES, settings.batch, settings.shape.context)
    losses = [model.loss(x.to(settings.device), y.to(settings.device)).item() for x, y in batches]
    return sum(losses) / len(losses)


def _schedule(step: int, steps: int) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine down to a tenth."""
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return _FINAL_LR + (1 - _FINAL_LR) * 0.5 * (1 + math.cos(math.pi * done))
