"""Calls of the ops that step a subset of the elements, and the reference's answer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from backends import Backend
from momentum.reference.formats import nearest
from momentum.reference.subset import draw_units, move_state, spread_units, subset_moment, subset_step
from ops.cases import TensorCase, guards_intact
from rules import POSITIVE, RULES, RuleCase
from tolerances import ROUNDINGS, UNIT, Values, assert_stored, first_order

REST = ("frozen", "decay", "sign", "gradient")
OPTIMIZERS = ("adam", "lion", "sgd", "spam")
DRAWS = ("interval", "phase", "restart")


@dataclass
class SubsetCall:
    """Arguments of ``rule.name + "_subset_"``."""

    rule: RuleCase
    cases: list[TensorCase]
    counts: list[int]
    lists: dict[str, list[Tensor]]
    steps: Tensor
    hypers: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def axis(self) -> int:
        return self.options.get("axis", -1)

    @property
    def stored(self) -> dict[str, str]:
        """The states that the op keeps: those that the rule needs, or its only one."""
        names = list(self.rule.states.items())
        return dict(names[:-1] if self.rule.optional and len(names) > 1 else names)

    def run(self, backend: Backend) -> None:
        tensors = [self.lists[name] for name in ("params", "grads", *self.stored, "masks")]
        backend.op(f"{self.rule.name}_subset_")(*tensors, self.steps, counts=self.counts, **self.hypers, **self.options)

    def clone(self) -> SubsetCall:
        def copy(tensor: Tensor) -> Tensor:
            storage = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            storage.set_(tensor.untyped_storage().clone())
            return storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

        lists = {name: [copy(t) for t in tensors] for name, tensors in self.lists.items()}
        options = {name: copy(v) if isinstance(v, Tensor) else v for name, v in self.options.items()}
        return SubsetCall(self.rule, self.cases, list(self.counts), lists, copy(self.steps), dict(self.hypers), options)

    def select(self, indices: list[int]) -> SubsetCall:
        """Return the same call for some of its tensors (shared memory, own steps)."""
        lists = {name: [tensors[i] for i in indices] for name, tensors in self.lists.items()}
        options = {k: [v[i] for i in indices] if isinstance(v, list) and len(v) > 1 else v for k, v in self.options.items()}
        steps = torch.cat([self.steps[indices], self.steps[-1:]])
        cases, counts = [self.cases[i] for i in indices], [self.counts[i] for i in indices]
        return SubsetCall(self.rule, cases, counts, lists, steps, self.hypers, options)

    def tensors(self) -> dict[str, Tensor]:
        named = {f"{name}[{i}]": t for name, tensors in self.lists.items() for i, t in enumerate(tensors)}
        return named | {"steps": self.steps}

    def number(self, name: str, i: int) -> float:
        value = self.options[name]
        return value[i if len(value) > 1 else 0]

    def seed(self, i: int) -> int:
        seeds = self.options.get("seeds", [0])
        return seeds[i if len(seeds) > 1 else 0]

    def moment(self, i: int, step: int) -> tuple[bool, int, int]:
        draws = {"interval": 0, "phase": 0, "restart": False} | {k: v for k, v in self.options.items() if k in DRAWS}
        return subset_moment(step, **draws)


def matrix(case: TensorCase, axis: int) -> tuple[int, int, int]:
    """Return rows, columns and the number of units."""
    if axis == -1 or not case.shape:
        rows, cols = 1, math.prod(case.shape)
    else:
        rows, cols = case.shape[0], math.prod(case.shape[1:])
    return rows, cols, rows if axis == 1 else cols


def pack(chosen: Tensor) -> Tensor:
    """Return a bit for each unit, 32 to an int32; nothing where all units or none are chosen."""
    if chosen.all() or not chosen.any():
        return torch.zeros(0, dtype=torch.int32)
    padded = torch.zeros(-(-chosen.numel() // 32) * 32, dtype=torch.int64)
    padded[: chosen.numel()] = chosen
    return (padded.view(-1, 32) << torch.arange(32)).sum(1).to(torch.int32)


def unpack(mask: Tensor, units: int, count: int) -> Tensor:
    if mask.numel() == 0:
        return torch.full((units,), count > 0)
    return ((mask.cpu()[:, None].long() >> torch.arange(32)) & 1).flatten()[:units].bool()


def make_subset(
    name: str,
    cases: list[TensorCase],
    *,
    density: float = 0.25,
    steps: tuple[int, ...] = (0, 1, 7),
    device: str = "cpu",
    hypers: dict[str, Any] | None = None,
    **options: Any,
) -> SubsetCall:
    """Return a call on random tensors; tensors that are past their first step have the choice of their last draw."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    options = {"lr": [0.01], "weight_decay": [0.0], "seeds": [3 * i + 1 for i in range(len(cases))], **options}
    call = SubsetCall(RULES[name], cases, [], {}, torch.zeros(len(cases) + 1, device=device), hypers or {}, options)
    call.lists = {name: [] for name in ("params", "grads", *call.stored, "masks")}
    for i, case in enumerate(cases):
        rows, cols, units = matrix(case, call.axis)
        count = int(density * units)
        call.counts.append(count)
        call.steps[i] = steps[i % len(steps)]
        call.lists["params"].append(case.place(random(*case.shape), case.param, device))
        call.lists["grads"].append(case.place(random(*case.shape), case.grad, device))
        size = count * {-1: 1, 0: rows, 1: cols}[call.axis]
        for state in call.stored:
            values = random(size)
            values = values.square() * 0.5 + 1e-3 if state in POSITIVE else values * 0.5
            call.lists[state].append(TensorCase((size,)).place(values if call.steps[i] else 0 * values, torch.float32, device))
        if call.steps[i]:
            mask = pack(draw_units(units, count, call.seed(i), call.moment(i, int(call.steps[i]))[1]))
        else:
            mask = torch.zeros(0 if count in (0, units) else -(-units // 32), dtype=torch.int32)
        call.lists["masks"].append(TensorCase((mask.numel(),)).place(mask, torch.int32, device))
    return call


def check_subset(before: SubsetCall, after: SubsetCall) -> None:
    """Compare every tensor of ``after`` with the reference's step from ``before``."""
    for i, case in enumerate(before.cases):
        step = int(before.steps[i]) + 1
        draws, period, rule_step = before.moment(i, step)
        units, count = matrix(case, before.axis)[2], before.counts[i]
        held = unpack(before.lists["masks"][i], units, count)
        now = draw_units(units, count, before.seed(i), period) if draws else held
        chosen = spread_units(now, case.shape if before.axis != -1 else (units,), before.axis).flatten()
        inputs: Values = {}
        for name in ("params", "grads"):
            tensor = before.lists[name][i].cpu().double()
            inputs[name[:-1]] = tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
        for name, state in before.stored.items():
            value = before.lists[name][i].cpu().double()
            if draws:
                clears = before.options.get("restart", False) or not held.any()
                value = torch.zeros_like(value) if clears else move_state(value, held, now)
            inputs[state] = value
        frame = {k: v for k, v in before.options.items() if k in ("decay", "max_lr", "maximize", "cautious")}
        frame |= {k: before.number(k, i) for k in ("lr", "weight_decay")}
        rest = {"rest": REST[before.options.get("rest", 0)], "rest_scale": before.options.get("rest_scale", 1.0)}

        named = {**frame, **rest, **before.hypers}

        def step_once(x: Values, chosen: Tensor = chosen, step: int = rule_step, named: dict[str, Any] = named) -> Values:
            states = {name: x[name] for name in before.stored.values()}
            param, new = subset_step(before.rule.reference, x["param"], x["grad"], states, chosen, step, **named)
            return {"param": param, **new}

        outputs, conditions = first_order(step_once, inputs)
        allowed = ROUNDINGS[before.rule.name].total * UNIT[torch.float32]
        bounds = {name: allowed * value for name, value in conditions.items()}
        if before.rule.jump is not None:  # the sign of what rounding decides
            states = {name: inputs[name] for name in before.stored.values()}
            mixed = before.rule.jump(inputs["grad"][chosen], states, before.hypers)
            bounds["param"][chosen] += 2 * frame["lr"] * (mixed.abs() < 1e-5)
        got = after.lists["params"][i].cpu()
        flat = got.as_strided((got.numel(),), (1,), got.storage_offset())
        what = f"of {case}, step {step}"
        assert_stored(flat, outputs["param"], bounds["param"], lambda x, to=got.dtype: nearest(x, to), f"params[{i}] {what}")
        for name, state in before.stored.items():
            assert_stored(
                after.lists[name][i], outputs[state], bounds[state], lambda x: nearest(x, torch.float32), f"{name}[{i}] {what}"
            )
        assert torch.equal(unpack(after.lists["masks"][i], units, count), now), f"masks[{i}] {what}"
        assert torch.equal(after.lists["masks"][i].cpu(), pack(now)) or count in (0, units)
        for name, tensors in after.lists.items():
            assert guards_intact(tensors[i]), f"{name}[{i}] {what}: written outside"
    completed = before.steps + 1
    completed[-1] = 0
    assert torch.equal(after.steps, completed), "steps"
