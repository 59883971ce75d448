"""Optimizer steps: cases by shape and format, with torch's optimizers beside ours."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from bench.bare import AdamW as AdamWLoop
from bench.graphs import captured, replays_bit_equal
from bench.parameters import Shapes, numel, parameters, shrunk
from bench.peers import OPTIONAL, TORCH_VARIANTS, Make, Parameters, PlainLoop, Steps, torch_optimizer
from bench.runner.case import Case, Contender, UnavailableError

GPT_SHAPES: Shapes = (((768, 768),) * 24) + (((768, 3072),) * 4) + (((768,),) * 120)
MATRICES: Shapes = tuple(shape for shape in GPT_SHAPES if len(shape) == 2)
_TINY = 4
FUSED = "torch fused"
FUSED_ADAMW = "torch AdamW fused"
BARE_LOOP = "bare loop"
OUR_ADAMW = "momentum AdamW fp32"


@dataclass(frozen=True)
class Algorithm:
    """An optimizer by its name in ``momentum.optim`` and the streams its step must move."""

    name: str
    states: float
    """Per element: a half where a quarter of the elements has two."""
    gradient_reads: int = 1
    parameter_reads: int = 0
    """Times that the parameter is read before the step."""
    state_reads: int = 0
    """And the states."""
    arguments: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    """What tells two rows of one optimizer apart."""
    plain_states: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    """States of the rule in ``momentum.reference``, with their shapes where they are not the parameter's."""

    def bytes_per_element(self, parameter: int, gradient: int, state: float) -> float:
        """Parameter and states are read and written, all is read as often as the mathematics asks."""
        states = (2 + self.state_reads) * self.states * state
        return (2 + self.parameter_reads) * parameter + self.gradient_reads * gradient + states


_MOMENTS: dict[str, tuple[int, ...] | None] = {"exp_avg": None, "exp_avg_sq": None}
ADAMW = Algorithm("AdamW", states=2)
SGD = Algorithm("SGD", states=1, arguments={"momentum": 0.9})
LION = Algorithm("Lion", states=1, plain_states={"exp_avg": None})
# Three passes over gradient and momentum select, then the step.
LION_TOP_K = Algorithm(
    "Lion",
    states=1,
    gradient_reads=4,
    state_reads=3,
    arguments={"kernel": "top_k", "density": 0.1},
    variant="top 0.1",
)
SPAM = Algorithm("SPAM", states=2, plain_states=_MOMENTS)
# Its largest magnitude, then its norm after clipping, then the step: three dependent passes over the gradient.
STABLE_SPAM = Algorithm("StableSPAM", states=2, gradient_reads=3, plain_states={**_MOMENTS, "scalars": (3,)})
SCALE = Algorithm("SCALE", states=0, gradient_reads=2)
SPAM_QUARTER = Algorithm("SPAM", states=0.5, arguments={"density": 0.25}, variant="density 0.25")
FRUGAL = Algorithm("FRUGAL", states=0.5, arguments={"density": 0.25}, variant="columns 0.25")
ADAN = Algorithm("Adan", states=4, plain_states=dict.fromkeys(("exp_avg", "exp_avg_diff", "exp_avg_sq", "neg_pre_grad")))
ADABELIEF = Algorithm("AdaBelief", states=2, plain_states=dict.fromkeys(("exp_avg", "exp_avg_var")))
DIFFGRAD = Algorithm("DiffGrad", states=3, plain_states={**_MOMENTS, "previous_grad": None})
SOPHIA_G = Algorithm("SophiaG", states=2, plain_states=dict.fromkeys(("exp_avg", "hessian")))
SGD_SAI = Algorithm("SGDSaI", states=1, plain_states={"momentum_buffer": None, "scalars": (1,)})
FAMILY = (LION, ADAN, ADABELIEF, DIFFGRAD, SOPHIA_G, SPAM, SGD_SAI)
"""One pass over the streams, one launch."""
# All is read before the step, to decide what is projected.
ADAMP = Algorithm("AdamP", states=2, gradient_reads=2, parameter_reads=1, state_reads=1, plain_states=_MOMENTS)
# Gradient and parameter are read once more, for the part of the one that is perpendicular to the other.
ORTHOGRAD = Algorithm(
    "AdamW", states=2, gradient_reads=2, parameter_reads=1, arguments={"orthograd": True}, variant="orthograd"
)
_REFERENCE_NAMES = {"SGDSaI": "sgd_sai", "StableSPAM": "stable_spam", "SophiaG": "sophia"}
"""Of the others the rule is the name in lower case."""


@dataclass(frozen=True)
class Work:
    """A case before it is spelled out: which tensors, in which formats."""

    algorithm: Algorithm
    tensors: str
    """The shapes in words."""
    shapes: Shapes
    dtype: torch.dtype = torch.float32
    states: torch.dtype | str | None = None
    """Format of the states where it is not the parameters' dtype: only some contenders have this choice."""
    cold: bool = True

    @property
    def name(self) -> str:
        """Such as ``adamw-bf16-fp32-states-1x20m``."""
        parts = [self.algorithm.name.lower(), *self.algorithm.variant.split(), _SHORT[self.dtype]]
        if self.states is not None:
            parts.append(f"{self.short_states}-states")
        return "-".join([*parts, self.tensors.replace(" x ", "x").replace(" ", "-").lower()])

    @property
    def title(self) -> str:
        """For the table's head."""
        states = f", states {self.short_states}" if self.states is not None else ""
        name = f"{self.algorithm.name} {self.algorithm.variant}".strip()
        return f"{name} {_SHORT[self.dtype]}{states}, {self.tensors}"

    @property
    def short_states(self) -> str:
        """The format of the states in a few letters."""
        return self.states if isinstance(self.states, str) else _SHORT[self.states or self.dtype]

    @property
    def is_plain_adamw(self) -> bool:
        """Whether the bare loop does the same."""
        return self.algorithm is ADAMW and self.dtype == torch.float32 and self.states is None

    @property
    def state_bytes(self) -> float:
        """Bytes of one element of a state, its share of a scale included."""
        return _QUANTISED[self.states] if isinstance(self.states, str) else (self.states or self.dtype).itemsize


_SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16"}
_QUANTISED = {"int4": 0.5 + 4 / 128, "int8": 1 + 4 / 256, "fp8": 1 + 4 / 256}


def cases(device: torch.device, shrink: int) -> list[Case]:
    """All cases for ``device``; ``shrink`` divides the number of elements, for a quick look at the runner itself."""
    bf16, fp32 = torch.bfloat16, torch.float32
    work = [
        Work(ADAMW, "1 x 20M", ((20_000_000,),)),
        Work(ADAMW, "1000 x 4096", ((4096,),) * 1000),
        Work(ADAMW, "148 GPT", GPT_SHAPES),
        Work(ADAMW, "1 x 20M", ((20_000_000,),), bf16),
        Work(ADAMW, "1 x 20M", ((20_000_000,),), bf16, fp32),
        *(Work(ADAMW, "1 x 20M", ((20_000_000,),), dtype, states) for dtype in (fp32, bf16) for states in ("int4", "int8")),
        *(Work(ADAMW, "1000 x 4096", ((4096,),) * 1000, fp32, states) for states in ("int4", "int8")),
        Work(SGD, "1 x 20M", ((20_000_000,),)),
        *(Work(algorithm, "1 x 20M", ((20_000_000,),)) for algorithm in FAMILY),
        *(Work(algorithm, "1000 x 4096", ((4096,),) * 1000) for algorithm in FAMILY if OPTIONAL.get(algorithm.name)),
        Work(SPAM, "148 GPT", GPT_SHAPES),
        Work(STABLE_SPAM, "148 GPT", GPT_SHAPES),
        *(Work(algorithm, "28 GPT matrices", MATRICES) for algorithm in (SCALE, SPAM_QUARTER, FRUGAL, ADAMP)),
        Work(ORTHOGRAD, "148 GPT", GPT_SHAPES),
        Work(LION_TOP_K, "148 GPT", GPT_SHAPES),
        Work(ADAMW, "400 tiny", ((_TINY,),) * 400, cold=False),
        Work(ADAMW, "4000 tiny", ((_TINY,),) * 4000, cold=False),
    ]
    if device.type == "cuda":
        for tensors, shapes in (("1 x 100M", ((100_000_000,),)), ("1 x 1B", ((1_000_000_000,),))):
            work += [
                Work(ADAMW, tensors, shapes, *formats)
                for formats in ((fp32,), (bf16,), (bf16, fp32), (bf16, "int4"), (bf16, "int8"))
            ]
        work.append(Work(ADAMW, "1000 x 100K", ((100_000,),) * 1000))
    found = [_case(item, device, shrink) for item in work]
    return [*found, _graph_case(device, shrink)] if device.type == "cuda" else found


def _case(work: Work, device: torch.device, shrink: int, contenders: Sequence[Contender] | None = None) -> Case:
    shapes = shrunk(work.shapes, shrink)
    count = numel(shapes)
    tiny: Shapes = tuple((2,) * len(shape) if len(shape) > 1 else (_TINY,) for shape in shapes)
    contenders = contenders or _contenders(work, shapes, device)
    return Case(
        name=work.name,
        title=work.title,
        elements=count,
        inputs=lambda device: parameters(shapes, work.dtype, device),
        memory=2 * count * work.dtype.itemsize,
        contenders=tuple(contenders),
        peer=FUSED if any(contender.name == FUSED for contender in contenders) else FUSED_ADAMW,
        twin=lambda device: parameters(tiny, work.dtype, device),
        cold=work.cold,
    )


def _contenders(work: Work, shapes: Shapes, device: torch.device) -> list[Contender]:
    """Ours first, then torch's, then whoever is installed; memory is given out in this order."""
    algorithm, size, count = work.algorithm, work.dtype.itemsize, numel(shapes)
    largest = max(numel((shape,)) for shape in shapes)

    def contender(
        name: str, make: Callable[[Parameters], Steps], of: Algorithm = algorithm, state: float = size, temporaries: int = 0
    ) -> Contender:
        """``state`` is the size of one state's element. Peers without that choice keep them like the parameters."""
        moved = of.bytes_per_element(size, size, state) * count
        return Contender(name, lambda inputs: make(inputs).step, moved, int(of.states * state * count) + temporaries)

    ours = momentum_optimizer(algorithm.name, state_format=work.states or work.dtype, **algorithm.arguments)
    found = [contender("momentum", ours, state=work.state_bytes)]
    if algorithm.name in ("AdamW", "SGD") and not algorithm.variant:
        temporaries = {"torch foreach": 2 * count * size, "torch for-loop": 2 * largest * size}
        for variant in TORCH_VARIANTS:
            make = torch_optimizer(algorithm.name, variant, **algorithm.arguments)
            found.append(contender(variant, make, temporaries=temporaries.get(variant, 0)))
        if isinstance(work.states, torch.dtype) and work.dtype != torch.float32:
            moved, memory = ADAMW.bytes_per_element(4, 4, 4) * count, (2 + ADAMW.states) * 4 * count
            found.append(Contender(OUR_ADAMW, lambda inputs: momentum_optimizer("AdamW")(widened(inputs)).step, moved, memory))
        if work.is_plain_adamw and device.type == "cpu":
            found.append(contender(BARE_LOOP, AdamWLoop))
    else:
        found.append(contender(FUSED_ADAMW, torch_optimizer("AdamW", FUSED), of=ADAMW))
        found.append(contender(OUR_ADAMW, momentum_optimizer("AdamW"), of=ADAMW))
        if not algorithm.variant:
            found.append(contender("plain torch", _plain(algorithm), temporaries=4 * largest * size))
    for peer in OPTIONAL.get(algorithm.name, ()):
        if device.type in peer.devices and not algorithm.variant:
            state = size if peer.state_bytes is None else peer.state_bytes / algorithm.states
            found.append(contender(peer.name, peer.make, state=state))
    return found


def widened(inputs: Parameters) -> Parameters:
    """Return copies in float32, with their gradients."""
    copies = [torch.nn.Parameter(param.detach().float()) for param in inputs]
    for copy, param in zip(copies, inputs, strict=True):
        copy.grad = None if param.grad is None else param.grad.float()
    return copies


def momentum_optimizer(kind: str, **arguments: Any) -> Make:
    """One of ours."""

    def make(inputs: Parameters) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = getattr(_imported("momentum.optim"), kind)(inputs, lr=1e-3, **arguments)
        return optimizer

    return make


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UnavailableError(str(error)) from error


def _plain(algorithm: Algorithm) -> Make:
    def make(inputs: Parameters) -> torch.optim.Optimizer:
        rule = getattr(_imported("momentum.reference"), _REFERENCE_NAMES.get(algorithm.name, algorithm.name.lower()))
        run = _imported("momentum.reference.frame").run_rule
        return PlainLoop(inputs, lambda *arguments: run(rule, *arguments, {})[:2], algorithm.plain_states)

    return make


def _graph_case(device: torch.device, shrink: int) -> Case:
    """Capture and replay in a CUDA graph, ours beside torch's."""
    work = Work(ADAMW, "148 GPT graph", GPT_SHAPES)
    count = numel(shrunk(work.shapes, shrink))
    makes = {
        "momentum": momentum_optimizer("AdamW", capturable=True),
        FUSED: torch_optimizer("AdamW", FUSED, capturable=True),
    }
    moved, states = ADAMW.bytes_per_element(4, 4, 4) * count, 8 * count
    found = []
    for name, make in makes.items():
        found.append(Contender(name, lambda inputs, make=make: make(inputs).step, moved, states))
        found.append(
            Contender(
                f"{name}, replayed",
                lambda inputs, make=make: captured(make(inputs), device),
                moved,
                states,
                verify=lambda make=make: replays_bit_equal(make, device),
            )
        )
    return _case(work, device, shrink, found)
