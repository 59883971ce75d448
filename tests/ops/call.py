"""One call of an optimizer op: its tensors, the reference's answer, and the comparison."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from backends import Backend
from momentum.enums import Cautious, Residual, Rounding
from momentum.reference import apply_step, weight_average
from momentum.reference.formats import kahan_split, low_bits_join, low_bits_split, nearest, stochastic, words
from momentum.reference.frame import run_rule, seen_gradient
from ops.cases import TensorCase, guards_intact
from rules import POSITIVE, RuleCase, Variant
from tolerances import PERPENDICULAR, ROUNDINGS, TOTAL, UNIT, Values, assert_stored, first_order, total_conditions


@dataclass
class Call:
    """Arguments of ``rule.name + "_"``. ``lists`` are the tensor lists by schema name, ``options`` the keywords."""

    rule: RuleCase
    variant: Variant
    cases: list[TensorCase]
    lists: dict[str, list[Tensor]]
    steps: Tensor
    totals: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, backend: Backend) -> None:
        op = backend.op(self.rule.name + "_")
        arguments = []
        for argument in op._schema.arguments:
            if argument.kwarg_only:
                break
            arguments.append(getattr(self, argument.name, self.lists.get(argument.name, [])))
        op(*arguments, **self.variant.hypers, **self.options)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the call by name."""
        named = {f"{name}[{i}]": t for name, tensors in self.lists.items() for i, t in enumerate(tensors)}
        extra = {name: t for name, t in self.options.items() if isinstance(t, Tensor)}
        return {**named, "steps": self.steps, "totals": self.totals, **extra}

    def clone(self) -> Call:
        """Return a copy in fresh memory of the same layout."""

        def copy(tensor: Tensor) -> Tensor:
            storage = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            storage.set_(tensor.untyped_storage().clone())
            return storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

        lists = {name: [copy(t) for t in tensors] for name, tensors in self.lists.items()}
        options = {name: copy(v) if isinstance(v, Tensor) else v for name, v in self.options.items()}
        return Call(self.rule, self.variant, self.cases, lists, copy(self.steps), copy(self.totals), options)

    def select(self, indices: list[int]) -> Call:
        """Return the same call for some of its tensors (shared memory, own steps)."""
        n = len(self.cases)  # the scales of several states follow each other in one list
        lists = {name: [ts[k + i] for k in range(0, len(ts), n) for i in indices] for name, ts in self.lists.items()}
        options = dict(self.options)
        for name in ("lr", "weight_decay", "seeds"):
            if len(options.get(name, ())) > 1:
                options[name] = [options[name][i] for i in indices]
        cases = [self.cases[i] for i in indices]
        steps = torch.cat([self.steps[indices], self.steps[-1:]])
        totals = make_totals(self.rule, self.variant, cases, options, self.steps.device.type)
        return Call(self.rule, self.variant, cases, lists, steps, totals, options)

    def option(self, name: str, i: int, default: Any = None) -> Any:
        """Return a number as tensor ``i`` sees it: per tensor or shared, from the list or the device tensor."""
        tensor = self.options.get(name + "_tensor")
        if tensor is not None:
            return tensor.double().expand(len(self.cases))[i].item() if tensor.dim() else tensor.double().item()
        value = self.options.get(name, self.variant.hypers.get(name, default))
        return value[i if len(value) > 1 else 0] if isinstance(value, list) else value


def make_totals(rule: RuleCase, variant: Variant, cases: list[TensorCase], options: dict[str, Any], device: str) -> Tensor:
    """Return the workspace of the reductions: the rule's own, then the count of the rescaled cautious mask."""
    axis = variant.hypers.get("axis", 1)
    segments = 0
    for case in cases:
        rows = case.shape[0] if case.shape else 1
        columns = torch.Size(case.shape[1:]).numel()
        if rule.matrices and len(case.shape) < 2:
            rows = 0
        segments += (rows if axis else columns) if rule.lines else 1
    widths = rule.widths or (rule.reductions,)
    own = widths[0] * segments + sum(widths[1:]) * len(cases)
    count = own + (len(cases) if options.get("cautious") == Cautious.RESCALED else 0)
    count += 3 * len(cases) if options.get("perpendicular") else 0
    return torch.zeros(count, dtype=torch.float64, device=device)


def make_call(
    rule: RuleCase,
    variant: Variant,
    cases: list[TensorCase],
    *,
    device: str = "cpu",
    seed: int = 0,
    ema: bool = False,
    residual: int = Residual.NONE,
    **options: Any,
) -> Call:
    """Return a call on random tensors; numbers come from a CPU generator, so all backends get the same."""
    generator = torch.Generator().manual_seed(seed)

    def random(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    stored = rule.stored(variant)
    names = ["params", "grads", *stored]
    names += ["residuals"] * (residual != Residual.NONE) + ["ema_params"] * ema + ["scalars"] * (rule.scalars > 0)
    lists: dict[str, list[Tensor]] = {name: [] for name in names}
    for case in cases:
        exact = random(case.shape)
        lists["params"].append(case.place(exact, case.param, device))
        lists["grads"].append(case.place(random(case.shape), case.grad, device))
        for k, name in enumerate(stored):
            # First moments of the size of a gradient's average; second moments positive.
            values = random(case.shape)
            values = values.square() * 0.5 + 1e-3 if name in POSITIVE else values * 0.5
            lists[name].append(case.place(values, case.states[k % len(case.states)], device))
        if residual != Residual.NONE and not has_residual(case, residual):
            # A parameter that needs no residual has an empty one.
            lists["residuals"].append(torch.empty(0, device=device))
        elif residual == Residual.KAHAN:
            high, low = kahan_split(exact.float().double(), case.param)
            lists["params"][-1].copy_(high)
            lists["residuals"].append(case.place(low, case.param, device))
        elif residual == Residual.MASTER:
            lists["residuals"].append(case.place(exact, torch.float32, device))
        elif residual == Residual.LOW_BITS:
            high, low = low_bits_split(exact)
            lists["params"][-1].copy_(high)
            lists["residuals"].append(case.place(low, torch.int8, device))
        if ema:
            lists["ema_params"].append(case.place(exact + 0.1 * random(case.shape), case.ema, device))
        if rule.scalars:
            size = max(torch.Size(case.shape).numel(), 1) ** 0.5
            averages = torch.tensor([1.5, size, size * size]) * (1 + torch.rand(3, generator=generator))
            lists["scalars"].append(averages[: rule.scalars].to(device))
    steps = [float(variant.steps[i % len(variant.steps)]) for i in range(len(cases))]
    options = {"lr": [0.01], "weight_decay": [0.0], **options}
    options = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in options.items()}
    if residual != Residual.NONE:
        options["residual"] = residual
    totals = make_totals(rule, variant, cases, options, device)
    return Call(rule, variant, cases, lists, torch.tensor([*steps, 0.0], device=device), totals, options)


def exact_inputs(call: Call, i: int) -> Values:
    """Return what tensor ``i`` enters the arithmetic with, in float64."""
    values = {"param": call.lists["params"][i], "grad": call.lists["grads"][i]}
    for name, state in call.rule.stored(call.variant).items():
        values[state] = call.lists[name][i]
    values |= {"ema": call.lists["ema_params"][i]} if call.lists.get("ema_params") else {}
    values |= {"scalars": call.lists["scalars"][i]} if call.rule.scalars else {}
    exact = {name: value.cpu().double() for name, value in values.items()}
    kind = residual_kind(call, i)
    if kind == Residual.KAHAN:
        exact["param"] = exact["param"] + call.lists["residuals"][i].cpu().double()
    if kind == Residual.MASTER:
        exact["param"] = call.lists["residuals"][i].cpu().double()
    if kind == Residual.LOW_BITS:
        exact["param"] = low_bits_join(values["param"].cpu(), call.lists["residuals"][i].cpu())
    return exact


@dataclass(frozen=True)
class Numbers:
    """What the arithmetic of one tensor is given besides tensors."""

    step: int
    hypers: dict[str, Any]
    frame: dict[str, Any]

    @classmethod
    def of(cls, call: Call, i: int) -> Numbers:
        hypers = {name: call.option(name, i, value) for name, value in call.variant.hypers.items()}
        hypers |= {name: call.option(name, i) for name in ("beta1", "beta2") if f"{name}_tensor" in call.options}
        frame = {
            name: call.options[name]
            for name in ("decay", "max_lr", "maximize", "cautious", "perpendicular")
            if name in call.options
        }
        frame |= {name: call.option(name, i) for name in ("lr", "weight_decay")}
        if call.options.get("grad_scale") is not None:
            frame["grad_scale"] = call.options["grad_scale"].item()
        return cls(int(call.steps[i].item()) + 1, hypers, frame)


def state_of(x: Values) -> Values:
    return {name: value for name, value in x.items() if name not in ("param", "grad", "ema")}


def expected(call: Call, i: int, more: int = 0) -> tuple[Values, Values]:
    """Return the reference's results for tensor ``i`` and the error that each may have before it is stored.

    ``more`` roundings are made before the rule sees its inputs.
    """
    rule, numbers = call.rule, Numbers.of(call, i)

    def step_once(x: Values) -> Values:
        param, new = apply_step(
            rule.reference, x["param"], x["grad"], state_of(x), numbers.step, **numbers.frame, **numbers.hypers
        )
        ema = {"ema": weight_average(x["ema"], param, call.options["ema_decay"])} if "ema" in x else {}
        return {"param": param, **new, **ema}

    inputs = exact_inputs(call, i)
    outputs, conditions = first_order(step_once, inputs)
    # The reference itself rounds in float64, as often as the kernel: that is twice the error for float64 parameters.
    # Persistent scalars are stored in float32 and read back before they are used.
    wide = call.cases[i].arithmetic == torch.float64 and not rule.scalars
    if call.options.get("perpendicular"):
        more += PERPENDICULAR
    allowed = (ROUNDINGS[rule.name].total + more) * (2 * UNIT[torch.float64] if wide else UNIT[torch.float32])
    bounds = {name: allowed * value for name, value in conditions.items()}
    # A total is off by the rounding of its terms, which the rule's count covers, and by that of adding them.
    unit = allowed / (ROUNDINGS[rule.name].total + more)
    for name, change in total_conditions(step_once, inputs).items():
        bounds[name] = bounds[name] + (ROUNDINGS[rule.name].rule + more + TOTAL) * unit * change
    cautious = numbers.frame.get("cautious", Cautious.OFF)
    if inputs["grad"].numel() and (rule.jump is not None or cautious != Cautious.OFF):
        slack = numbers.frame["lr"] * undecided(rule, inputs, numbers, cautious, allowed)
        bounds["param"] = bounds["param"] + slack
        if "ema" in bounds:
            bounds["ema"] = bounds["ema"] + slack
    return outputs, bounds


def undecided(rule: RuleCase, inputs: Values, numbers: Numbers, cautious: int, allowed: float) -> Tensor:
    """Return by how much directions may be off because rounding decides a sign: the rule's own, or one that a mask looks at.

    A rescaled mask also divides by the share it keeps: each undecided element adds one to the count or takes it off.
    """
    frame = numbers.frame

    def signs(x: Values) -> Values:
        options = {name: value for name, value in frame.items() if name not in ("lr", "max_lr", "cautious")}
        grad = seen_gradient(x["grad"], x["param"], **options)
        update = run_rule(rule.reference, grad, x["param"], state_of(x), numbers.step, numbers.hypers)[0]
        jump = {"jump": rule.jump(grad, state_of(x), numbers.hypers)} if rule.jump else {}
        return {"grad": grad, "update": update, **jump}

    values, conditions = first_order(signs, inputs)
    loose = torch.zeros_like(values["grad"], dtype=torch.bool)
    for name in (*(("update", "grad") if cautious != Cautious.OFF else ()), *(("jump",) if rule.jump else ())):
        loose = loose | (values[name].abs() <= allowed * conditions[name])
    size = values["update"].abs().clamp(min=2.0 if rule.jump else 0.0)
    if cautious != Cautious.RESCALED:
        return size * loose
    kept = values["update"] * values["grad"] > 0
    fewest = (kept.sum() - loose.sum()).clamp(min=1)
    return kept.numel() / fewest * size * (loose + loose.sum() / fewest)


def check(before: Call, after: Call) -> None:
    """Compare every tensor of ``after`` with the reference's step from ``before``."""
    for i, case in enumerate(before.cases):
        outputs, bounds = expected(before, i)
        for name, state in before.rule.stored(before.variant).items():
            check_stored(after.lists[name][i], outputs[state], bounds[state], f"{name}[{i}] of {case}")
        check_param(before, after, i, outputs["param"], bounds["param"])
        if "ema" in outputs:
            check_stored(after.lists["ema_params"][i], outputs["ema"], bounds["ema"], f"ema_params[{i}] of {case}")
        if before.rule.scalars:
            check_stored(after.lists["scalars"][i], outputs["scalars"], bounds["scalars"], f"scalars[{i}] of {case}")
        for name, tensors in after.lists.items():
            guarded = name != "scalars" and tensors[i].numel() == before.lists["params"][i].numel()
            assert not guarded or guards_intact(tensors[i]), f"{name}[{i}] of {case}: written outside"
    completed = before.steps + 1
    completed[-1] = 0
    assert torch.equal(after.steps, completed), "steps"


def check_stored(got: Tensor, reference: Tensor, bound: Tensor, what: str) -> None:
    assert_stored(got, reference, bound, lambda x: nearest(x, got.dtype), what)


def check_param(before: Call, after: Call, i: int, reference: Tensor, bound: Tensor) -> None:
    case, got = before.cases[i], after.lists["params"][i].cpu()
    what = f"params[{i}] of {case}"
    kind = residual_kind(before, i)
    stochastically = case.narrow and before.options.get("rounding") == Rounding.STOCHASTIC
    random_bits = memory_words(before, i) if stochastically else None

    def store(x: Tensor) -> Tensor:
        return nearest(x, case.param) if random_bits is None else stochastic(x.float(), case.param, random_bits)

    if kind == Residual.MASTER:
        master = after.lists["residuals"][i].cpu()
        check_stored(master, reference, bound, f"master of {what}")
        assert torch.equal(got, store(master)), f"{what}: not the rounded master copy"
        return
    if kind == Residual.LOW_BITS:
        low = after.lists["residuals"][i].cpu()

        def store_24(x: Tensor) -> Tensor:
            return low_bits_join(*low_bits_split(x, random_bits))

        both = low_bits_join(got, low)
        assert_stored(both, reference, bound, store_24, f"24 bits of {what}")
        high, rest = low_bits_split(both)
        assert torch.equal(high, got), f"{what}: not the nearest bfloat16"
        assert torch.equal(rest, low), f"{what}: low bits"
        return
    assert_stored(got, reference, bound, store, what)
    if kind == Residual.KAHAN:
        low = after.lists["residuals"][i].cpu().double()
        lost = reference - got.double()
        assert_stored(low, lost, bound, lambda x: nearest(x, case.param), f"compensation of {what}")


def has_residual(case: TensorCase, kind: int) -> bool:
    return case.param == torch.bfloat16 if kind == Residual.LOW_BITS else case.narrow


def residual_kind(call: Call, i: int) -> int:
    kind = call.options.get("residual", Residual.NONE)
    return kind if has_residual(call.cases[i], kind) else Residual.NONE


def memory_words(call: Call, i: int) -> Tensor:
    """Return the random word of every element: keyed by its place in memory, of the whole tensor if sharded."""
    case = call.cases[i]
    index = torch.arange(torch.Size(case.shape).numel())
    shards = call.options.get("shards")
    if shards:
        offset, inner, outer = shards[3 * i : 3 * i + 3]
        index = offset + index // inner * outer + index % inner
    flat = words(call.option("seeds", i, 0), int(call.steps[i].item()) + 1, index)
    return flat.as_strided(case.shape, case.strides()) if flat.numel() else flat.reshape(case.shape)
