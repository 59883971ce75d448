"""Steps past the dispatcher: the same bits as the op, and nothing at all where the op must take the call."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
import threading
import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import momentum
from backends import Backend
from modes import assert_seen, watchers
from momentum import _direct, _native, _ops
from momentum.enums import Residual
from ops.call import Call, make_call
from ops.cases import BF16, FP16, FP32, FP64, TensorCase
from ops.test_errors import REFUSED, adam
from rules import RULES
from tolerances import bit_equal

CASES = [
    TensorCase((6, 4)),
    TensorCase((6, 4), BF16, BF16),
    TensorCase((5,)),
    TensorCase((3, 1), FP64, FP64, (FP64,) * 3),
    TensorCase(()),
]


def direct(backend: Backend, call: Call) -> bool:
    """Return whether the call was run past the dispatcher."""
    op = backend.op(call.rule.name + "_")
    names = [argument.name for argument in op._schema.arguments if not argument.kwarg_only]
    tensors = [getattr(call, name, call.lists.get(name, [])) for name in names]
    return _direct.step(backend.namespace, call.rule.name, tensors, call.variant.hypers | call.options)


@pytest.mark.parametrize("rule", RULES)
def test_same_bits(backend, rule):
    for variant in RULES[rule].variants.values():
        call = make_call(RULES[rule], variant, CASES, device=backend.device, ema=True, ema_decay=0.9, residual=Residual.KAHAN)
        twin = call.clone()
        assert direct(backend, call)
        twin.run(backend)
        for name, tensor in twin.tensors().items():
            assert bit_equal(call.tensors()[name], tensor), name


def test_every_kind_of_argument(backend):
    """Numbers per tensor, device tensors, a flag, seeds and shards arrive where they belong."""
    number = torch.tensor(0.5, device=backend.device)
    call = make_call(
        RULES["adam"],
        RULES["adam"].variants["amsgrad"],
        [TensorCase((6, 4), BF16, FP32), TensorCase((7,), FP16, FP16), TensorCase((9,))],
        device=backend.device,
        lr=[0.1, 0.2, 0.3],
        weight_decay=[0.0, 0.25, 0.5],
        decay=2,
        rounding=1,
        seeds=[2**62 + 1, 2, 3],
        shards=[3, 1, 1, 0, 7, 7, 5, 9, 18],
        lr_tensor=torch.tensor([0.3, 0.2, 0.1], device=backend.device),
        beta1_tensor=number,
        grad_scale=torch.tensor([2.0], device=backend.device),
        found_inf=torch.tensor([0.0], device=backend.device),
        maximize=True,
    )
    twin = call.clone()
    assert direct(backend, call)
    twin.run(backend)
    for name, tensor in twin.tensors().items():
        assert bit_equal(call.tensors()[name], tensor), name


OPTIMIZERS_TAKING_IT = {
    "AdamW": momentum.optim.AdamW,
    "SPAM": functools.partial(momentum.optim.SPAM, density=0.25),
    "FRUGAL": functools.partial(momentum.optim.FRUGAL, density=0.25),
}


@pytest.mark.parametrize("name", OPTIMIZERS_TAKING_IT)
def test_optimizers_take_it(name, monkeypatch):
    taken = []
    step = _direct.step
    monkeypatch.setattr(_direct, "step", lambda *arguments: taken.append(step(*arguments)) or taken[-1])
    param = torch.nn.Parameter(torch.randn(8, 4))
    param.grad = torch.randn(8, 4)
    OPTIMIZERS_TAKING_IT[name]([param]).step()
    assert taken == [True]


@pytest.mark.parametrize("case", REFUSED)
def test_refused_calls_are_left_to_the_op(backend, case):
    call = adam(backend.device)
    REFUSED[case][0](call)
    readable = {name: t for name, t in call.tensors().items() if t.layout == torch.strided and t.device.type != "meta"}
    before = {name: tensor.clone() for name, tensor in readable.items()}
    assert not direct(backend, call)
    assert [name for name, tensor in readable.items() if not bit_equal(tensor, before[name])] == []


def test_options_that_are_none(backend):
    call = adam(backend.device)
    call.options["learning_rate"] = 1.0
    assert not direct(backend, call)
    del call.options["learning_rate"], call.options["lr"]
    assert not direct(backend, call)


class Subclass(Tensor):
    pass


def negated(device: str) -> Tensor:
    tensor = torch.tensor([1.0 + 2.0j], device=device).conj().imag
    assert tensor.is_neg()
    return tensor


@pytest.mark.parametrize("kind", ["subclass", "negated", "meta", "tuple"])
def test_other_tensors(backend, kind):
    """The op sees them; a direct call would take them for what they are not."""
    call = make_call(RULES["adam"], RULES["adam"].variants["plain"], [TensorCase((1,))], device=backend.device)
    grads = call.lists["grads"]
    match kind:
        case "subclass":
            grads[0] = grads[0].as_subclass(Subclass)
        case "negated":
            grads[0] = negated(backend.device)
        case "meta":
            grads[0] = grads[0].to("meta")
        case "tuple":
            call.lists["grads"] = tuple(grads)
    before = call.lists["params"][0].clone()
    assert not direct(backend, call)
    assert bit_equal(call.lists["params"][0], before)


def escaped(transform, *arguments: object) -> Tensor:
    """Return what a transform showed a function in place of its argument."""
    seen = []

    def function(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum()

    transform(function)(*arguments)
    return seen[0]


# Tensors whose Python type is plain and whose memory is not theirs, or is not read as numbers in a row.
WRAPPED = {
    "functional": lambda: torch._to_functional_tensor(torch.ones(3)),
    "zero": lambda: torch._efficientzerotensor(3),
    "batched": lambda: escaped(torch.vmap, torch.ones(2, 3)),
    "differentiated": lambda: escaped(torch.func.grad, torch.ones(3)),
    "mkldnn": lambda: torch.ones(3).to_mkldnn(),
    "sparse": lambda: torch.ones(3).to_sparse(),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrapped_tensors(kind):
    call = make_call(RULES["adam"], RULES["adam"].variants["plain"], [TensorCase((3,))])
    before = call.lists["params"][0].clone()
    call.lists["grads"][0] = WRAPPED[kind]()
    assert type(call.lists["grads"][0]) is Tensor
    assert not direct(Backend("cpu", "momentum", "cpu"), call)
    assert bit_equal(call.lists["params"][0], before)


def test_a_lazy_copy_keeps_its_values():
    """A tensor that shares memory until it is written is copied first."""
    param = torch.ones(3)
    copy = param._lazy_clone()
    arguments = [[param], [torch.ones(3)], [], [], [], [], [], torch.zeros(2), torch.zeros(0, dtype=torch.float64)]
    assert _direct.step("momentum", "sgd", arguments, {"lr": [0.5], "weight_decay": [0.0]})
    assert copy.tolist() == [1.0] * 3
    assert param.tolist() == [0.5] * 3


def test_a_negated_gradient_is_read_as_what_it_means():
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    params[0].grad, params[1].grad = negated("cpu"), negated("cpu").resolve_neg()
    momentum.optim.SGD(params, lr=1.0).step()
    assert [param.item() for param in params] == [2.0, 2.0]


@pytest.mark.parametrize("watcher", watchers())
def test_watchers_see_the_op(watcher):
    call = make_call(RULES["adam"], RULES["adam"].variants["plain"], [TensorCase((4,))])
    arguments = (call.lists["params"], call.lists["grads"], [call.lists["exp_avgs"], call.lists["exp_avg_sqs"], []])
    with watchers()[watcher] as watching:
        assert not _direct.step("momentum", "adam", [call.lists["params"]], {})
        _ops.step_("adam", *arguments, steps=call.steps, totals=call.totals, lr=[0.1], weight_decay=[0.0])
    assert_seen(watching, "momentum::adam_")
    twin = call.clone()
    assert direct(Backend("cpu", "momentum", "cpu"), twin)


def test_inside_a_transform():
    seen = []

    def step(x: Tensor) -> Tensor:
        seen.append(_direct.is_watched())
        return x

    torch.vmap(step)(torch.zeros(2))
    assert seen == [True]
    assert not _direct.is_watched()


def test_a_default_device_is_no_watcher():
    with torch.device("cpu"):
        assert not _direct.is_watched()


def test_nothing_is_kept_alive():
    """No reference is leaked to a list, a number or a tensor."""
    call = make_call(RULES["adam"], RULES["adam"].variants["plain"], [TensorCase((4,)), TensorCase((1,))])
    alive = [weakref.ref(tensor) for tensor in call.tensors().values()]
    cpu = Backend("cpu", "momentum", "cpu")
    assert direct(cpu, call)
    call.lists["grads"][0] = call.lists["grads"][0].as_subclass(Subclass)
    assert not direct(cpu, call)
    del call
    gc.collect()
    assert not any(reference() is not None for reference in alive)


def adam_arguments(count: int = 1, numel: int = 4) -> tuple[list[Any], dict[str, list[float]]]:
    """Return the tensors of a call of Adam, and its options."""
    lists = [[torch.full((numel,), float(i + j)) for i in range(count)] for j in range(4)]
    rates = {"lr": [0.1], "weight_decay": [0.0]}
    return [*lists, [], [], [], [], [], torch.zeros(count + 1), torch.zeros(0, dtype=torch.float64)], rates


@pytest.fixture(params=["torch's own function", "through Python"])
def functions(request):
    """Version counters and gradients where torch has the functions that C calls, and where it does not."""
    library = _native.library()
    if request.param == "through Python":
        assert _native.open_with(library, (b"no_such_function", b"nor_this"))
    yield request.param
    assert _native.open_with(library, _native.TORCH_FUNCTIONS)


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("count", [1, 400])
def test_versions_grow_where_a_step_is_run(count):
    arguments, rates = adam_arguments(count)
    written = [arguments[0], arguments[2], arguments[3], [arguments[-2]]]
    before = [[tensor._version for tensor in tensors] for tensors in written]
    assert not _direct.step("momentum", "adam", arguments, rates | {"eps": -1.0}, written)
    assert [[tensor._version for tensor in tensors] for tensors in written] == before
    assert _direct.step("momentum", "adam", arguments, rates, written)
    assert [[tensor._version for tensor in tensors] for tensors in written] == [[n + 1 for n in ns] for ns in before]
    assert arguments[1][-1]._version == 0


@pytest.mark.usefixtures("functions")
def test_a_tensor_without_a_version():
    """Tensors made in inference mode have none; those of the others grow."""
    arguments, rates = adam_arguments(3)
    with torch.inference_mode():
        arguments[2][1] = torch.zeros(4)
    before = [param.clone() for param in arguments[0]]
    assert _direct.step("momentum", "adam", arguments, rates, [arguments[0], arguments[2]])
    assert not any(bit_equal(param, clone) for param, clone in zip(arguments[0], before, strict=True))
    assert all(param._version > 0 for param in arguments[0])


def test_written_tensors_that_are_not_plain_are_left_to_the_op():
    arguments, rates = adam_arguments()
    for written in ([[torch.zeros(4).as_subclass(Subclass)]], [(torch.zeros(4),)]):
        assert not _direct.step("momentum", "adam", arguments, rates, written)


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("states", [None, "int8"])
def test_many_tensors(states):
    """Enough for threads to share the reading; gradients that Python has not seen."""
    results = []
    for usual in (True, False):
        params = [torch.nn.Parameter(torch.full((i % 3 + 1,), float(i % 7))) for i in range(700)]
        optimizer = momentum.optim.Lion(params, lr=0.5, state_format=states)
        for _ in range(3):
            torch.stack([param.square().sum() for param in params]).sum().backward()
            with nullcontext() if usual else _direct.disabled():
                optimizer.step()
            optimizer.zero_grad()
        results.append([[param.detach(), *optimizer.state[param].values()] for param in params])
    assert all(bit_equal(a, b) for ours, theirs in zip(*results, strict=True) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("place", [0, 200, 699])
@pytest.mark.parametrize("kind", ["subclass", "negated", "shape", "overlap", "missing"])
def test_one_of_many_tensors(kind, place):
    """Whichever thread comes upon it, the op takes the call."""
    arguments, rates = adam_arguments(700, numel=1)
    grads = arguments[1]
    match kind:
        case "subclass":
            grads[place] = grads[place].as_subclass(Subclass)
        case "negated":
            grads[place] = negated("cpu")
        case "shape":
            grads[place] = torch.zeros(2)
        case "overlap":
            arguments[2][place] = arguments[3][700 - 1 - place]
        case "missing":
            del grads[place]
    before = [param.clone() for param in arguments[0]]
    assert not _direct.step("momentum", "adam", arguments, rates)
    assert all(bit_equal(param, clone) for param, clone in zip(arguments[0], before, strict=True))


def test_other_threads_run_meanwhile():
    """The interpreter is released while the kernels run: a thread that only counts gets on."""
    param = torch.zeros(20_000_000)
    call = [[param], [torch.ones_like(param)], [torch.zeros_like(param)], [], [], [], []]
    call += [torch.zeros(2), torch.zeros(0, dtype=torch.float64)]
    rates = {"lr": [0.1], "weight_decay": [0.0]}
    assert _direct.step("momentum", "sgd", call, rates)  # what is looked up once
    count, stop = 0, threading.Event()

    def counter() -> None:
        nonlocal count
        while not stop.wait(1e-4):
            count += 1

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=counter)
    thread.start()
    try:
        sys.setswitchinterval(1000.0)  # this thread gives the interpreter up only where it is released
        usleep = ctypes.PyDLL(None).usleep
        before = count
        usleep(20_000)
        assert count == before, "the counter would run in any case"
        for _ in range(3):
            assert _direct.step("momentum", "sgd", call, rates)
        assert count > before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
