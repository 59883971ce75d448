"""The ops under torch's tracers: opcheck, torch.compile, torch.export, fake and meta tensors, CUDA graphs."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode

from backends import BACKENDS
from momentum._ops import step_
from ops.call import Call, make_call
from ops.cases import BF16, FP32, TensorCase
from ops.test_determinism import assert_same
from rules import RULES, first

CPU = BACKENDS["cpu"]
CASES = [TensorCase((33, 5)), TensorCase((7,), BF16, BF16, (FP32, FP32, FP32)), TensorCase(())]


def make(rule: str, device: str = "cpu") -> Call:
    return make_call(RULES[rule], first(RULES[rule]), CASES, device=device)


def through(call: Call, run) -> None:
    """Run a call by ``run(lists, steps, totals)``; it takes its tensors as inputs of the traced function."""
    with torch.no_grad():
        run(call.lists, call.steps, call.totals)


def stepper(call: Call):
    """Return a function of tensors alone that makes the call through the package's own wrapper."""
    rule, options = call.rule, call.options

    def run(lists, steps, totals, **more):
        states = [lists.get(name, []) for name in rule.states]
        scalars = lists.get("scalars", [])
        tensors = {"scalars": scalars, "steps": steps, "totals": totals}
        step_(rule.name, lists["params"], lists["grads"], states, **tensors, **options, **more)

    return run


@pytest.mark.parametrize("rule", RULES)
def test_opcheck(rule):
    call = make(rule)
    op = CPU.op(rule + "_")
    arguments = [
        getattr(call, argument.name, call.lists.get(argument.name, []))
        for argument in op._schema.arguments
        if not argument.kwarg_only
    ]
    torch.library.opcheck(op, tuple(arguments), {**call.variant.hypers, **call.options})


def test_opcheck_of_the_reductions():
    xs = [torch.randn(5, 3), torch.randn(4)]
    out = torch.zeros(2, dtype=torch.float64)
    torch.library.opcheck(CPU.op("segment_reduce"), (xs, [], out), {"kind": 1, "axis": -1})
    torch.library.opcheck(CPU.op("philox"), (3, 1, 0, torch.zeros(8, dtype=torch.int32)))


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("rule", RULES)
def test_compile(rule, compiler):
    """One graph without breaks or doubts, the same bits, and inputs that are mutated in place."""
    plain = make(rule)
    traced = plain.clone()
    through(plain, stepper(plain))
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Dynamo detected")
        through(traced, torch.compile(stepper(traced), backend=compiler, fullgraph=True))
    assert_same(plain, traced)
    assert torch.equal(plain.steps, traced.steps)


def test_compile_with_inductor():
    plain = make("adam")
    traced = plain.clone()
    compiled = torch.compile(stepper(traced), fullgraph=True)
    for _ in range(2):
        through(plain, stepper(plain))
        through(traced, compiled)
    assert_same(plain, traced)


def test_learning_rate_as_tensor_does_not_recompile():
    call = make("adam")
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(stepper(call), backend=counter, fullgraph=True)
    with torch.no_grad():
        for lr in (0.1, 0.2, 0.3):
            compiled(call.lists, call.steps, call.totals, lr_tensor=torch.tensor(lr))
    assert counter.frame_count == 1


@pytest.mark.parametrize("rule", RULES)
def test_export(rule):
    plain = make(rule)
    exported_call = plain.clone()
    run = stepper(exported_call)

    class Step(torch.nn.Module):
        def forward(self, lists, steps, totals):
            run(lists, steps, totals)
            return steps.clone()

    arguments = (exported_call.lists, exported_call.steps, exported_call.totals)
    with torch.no_grad():
        program = torch.export.export(Step(), arguments)
        program.module()(*arguments)
    assert any(f"momentum.{rule}_" in str(node.target) for node in program.graph.nodes)
    through(plain, stepper(plain))
    assert_same(plain, exported_call)


def test_fake_tensors():
    """Tracing allocates nothing and runs no kernel."""
    call = make("adam")
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=False) as mode:
        lists = {name: [mode.from_tensor(t) for t in tensors] for name, tensors in call.lists.items()}
        stepper(call)(lists, mode.from_tensor(call.steps), mode.from_tensor(call.totals))


def test_version_counters():
    """Autograd sees that everything written has changed, and nothing else."""
    call = make("stable_spam")
    through(call, stepper(call))
    before = {name: t._version for name, t in call.tensors().items()}
    through(call, stepper(call))
    for name, tensor in call.tensors().items():
        written = not name.startswith("grads") and name != "totals"
        assert (tensor._version > before[name]) == written, name


def test_grad_mode_is_refused():
    call = make("adam")
    call.lists["params"][1].requires_grad_()
    before = call.clone()
    with pytest.raises(RuntimeError, match=r"momentum::adam_ .*requires grad.*no_grad"):
        stepper(call)(call.lists, call.steps, call.totals)
    assert_same(before, call)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.skipif(BACKENDS["cuda"].missing() is not None, reason=str(BACKENDS["cuda"].missing()))
def test_cuda_graph(rule):
    """A captured step replays on new values with the bits of eager steps; the counters advance with each replay."""
    backend = BACKENDS["cuda"]
    eager = make(rule, "cuda")
    graphed = eager.clone()
    warm = eager.clone()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        warm.run(backend)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        graphed.run(backend)
    for k in range(3):
        for a, b in zip(eager.lists["grads"], graphed.lists["grads"], strict=True):
            a.add_(0.1 * k)
            b.copy_(a)
        eager.run(backend)
        graph.replay()
    assert_same(eager, graphed)
    assert torch.equal(eager.steps, graphed.steps)
