"""StableMax cross-entropy: the kernels against the float64 reference, autograd, tracers, odd numbers, and what is refused."""

from __future__ import annotations

import doctest
import re

import pytest
import torch

from momentum import _ops, functional, reference
from momentum.functional import stablemax_cross_entropy
from ops import emulator
from tolerances import STABLEMAX, UNIT, assert_stored, bit_equal

INF, NAN = float("inf"), float("nan")
# Around a group of 2, 4 and 8, a lane's batch, a tile, the longest row of a warp; a block's batch and beyond.
CLASSES = (1, 2, 3, 7, 8, 9, 64, 113, 255, 256, 257, 1024, 2047, 2048, 2049, 8191, 8200, 20_000)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@pytest.fixture(autouse=True)
def chosen(request):
    if "backend" not in request.fixturenames:
        yield
        return
    backend = request.getfixturevalue("backend")
    backend.op("stablemax_loss_")  # loads the kernels
    with _ops.namespace(backend.namespace):
        yield


def problem(rows, classes, dtype, device="cpu", seed=0, spread=4.0):
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes, (rows,), generator=generator)
    target[1::5] = -100
    weights = torch.rand(rows, generator=generator, dtype=torch.float64)
    return logits.to(device, dtype), target.to(device), weights.to(device)


def run(logits, target, weights):
    """Return losses and the gradient of their weighted sum."""
    leaf = logits.clone().requires_grad_()
    losses = stablemax_cross_entropy(leaf, target, reduction="none")
    (grad,) = torch.autograd.grad(losses, leaf, weights.to(losses.dtype))
    return losses.detach(), grad


def expected(logits, target, weights):
    leaf = logits.double().cpu().requires_grad_()
    losses = reference.stablemax_cross_entropy(leaf, target.cpu())
    kept = weights.cpu() if logits.dtype == torch.float64 else weights.float().cpu().double()
    (grad,) = torch.autograd.grad(losses, leaf, kept)
    return losses.detach(), grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", CLASSES)
def test_parity(backend, classes, dtype):
    """Losses and gradients to a bound relative to each: nothing cancels. The reference itself has that of its subtraction."""
    logits, target, weights = problem(11, classes, dtype, backend.device)
    losses, grad = run(logits, target, weights)
    known, known_grad = expected(logits, target, weights)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    assert losses.dtype == arithmetic
    assert grad.dtype == dtype
    own = UNIT[torch.float64] * (classes + 8)  # what the reference's sum and its difference of two terms below 1 may lose
    assert_stored(losses, known, STABLEMAX * UNIT[arithmetic] * known.abs() + own, lambda x: x.to(arithmetic), "losses")
    assert_stored(grad, known_grad, STABLEMAX * UNIT[arithmetic] * known_grad.abs() + own, lambda x: x.to(dtype), "gradient")


@pytest.mark.parametrize("classes", [5, 113, 4096])
@pytest.mark.parametrize("logit", [1e3, 1e6, 1e12, 1e30])
def test_nothing_is_absorbed(backend, logit, classes):
    """However far the target is ahead, float32 keeps loss and gradient, where 1 / sum - 1 / s would be 0 or noise."""
    logits = torch.full((1, classes), -3.0, device=backend.device)
    logits[0, 2] = logit
    losses, grad = run(logits, torch.tensor([2], device=backend.device), torch.ones(1, device=backend.device))
    s, rest = logit + 1, (classes - 1) / 4
    bound = {"rtol": STABLEMAX * UNIT[torch.float32], "atol": 1e-45}
    torch.testing.assert_close(losses.double().cpu(), torch.log1p(torch.tensor([rest / s], dtype=torch.float64)), **bound)
    torch.testing.assert_close(grad[0, 2].item(), -rest / s / (s + rest), **bound)
    torch.testing.assert_close(grad[0, 0].item(), 1 / 16 / (s + rest), **bound)


def test_gradcheck(backend):
    logits, target, _ = problem(4, 9, torch.float64, backend.device, spread=2.0)
    assert (logits.abs() > 1e-3).all()  # away from the kink of the slope
    for reduction in ("mean", "sum", "none"):
        assert torch.autograd.gradcheck(
            lambda x, r=reduction: stablemax_cross_entropy(x, target, reduction=r), logits.requires_grad_()
        )


def test_reductions_and_shapes(backend):
    logits, target, _ = problem(12, 10, torch.float32, backend.device)
    each = stablemax_cross_entropy(logits, target, reduction="none")
    assert (each[target == -100] == 0).all()
    kept = int((target != -100).sum())
    torch.testing.assert_close(stablemax_cross_entropy(logits, target), each.sum() / kept)
    torch.testing.assert_close(stablemax_cross_entropy(logits, target, reduction="sum"), each.sum())
    apart = stablemax_cross_entropy(logits.view(3, 4, 10), target.view(3, 4), reduction="none")
    assert bit_equal(apart, each.view(3, 4))
    assert bit_equal(stablemax_cross_entropy(logits[0], target[0], reduction="none"), each[0])
    assert bit_equal(stablemax_cross_entropy(logits, target.int(), reduction="none"), each)
    columns = logits.t().contiguous().t()  # not contiguous
    assert bit_equal(stablemax_cross_entropy(columns, target, reduction="none"), each)
    other = torch.where(target == -100, 255, target)
    assert bit_equal(stablemax_cross_entropy(logits, other, ignore_index=255, reduction="none"), each)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [60, 4096])
def test_a_row_knows_nothing_of_its_batch(backend, classes, dtype):
    """Its bits do not depend on the rows around it, nor on its alignment."""
    logits, target, weights = problem(9, classes, dtype, backend.device)
    losses, grads = run(logits, target, weights)
    for row in range(9):
        for offset in (0, 1, 3):
            memory = torch.zeros(classes + offset, dtype=dtype, device=backend.device)
            alone = memory[offset:].view(1, -1).copy_(logits[row : row + 1])
            leaf = alone.detach().requires_grad_()
            loss = stablemax_cross_entropy(leaf, target[row : row + 1], reduction="none")
            (grad,) = torch.autograd.grad(loss, leaf, weights[row : row + 1].to(loss.dtype))
            assert bit_equal(loss[0], losses[row])
            assert bit_equal(grad[0], grads[row])


@pytest.mark.parametrize("order", ["reverse", "permuted"])
def test_orders_of_threads(order):
    """The emulator's other schedules give the same bits."""
    emulator.library()
    with _ops.namespace("momentum_emulated"):
        for classes in (113, 3000):
            given = problem(40, classes, torch.float32)
            plain = run(*given)
            with emulator.order(order, 3):
                assert all(map(bit_equal, run(*given), plain))


def test_launches():
    with emulator.launches() as counted, _ops.namespace("momentum_emulated"):
        run(*problem(40, 3000, torch.float32))
    assert counted == [2]


def test_threads():
    given = problem(300, 700, torch.float32)
    plain = run(*given)
    torch.set_num_threads(3)
    try:
        assert all(map(bit_equal, run(*given), plain))
    finally:
        torch.set_num_threads(1)


def test_ignored_and_empty(backend):
    """Ignored rows are not looked at; rows and classes may be none."""
    logits = torch.full((2, 5), NAN, device=backend.device)
    logits[1] = 1.0
    target = torch.tensor([-100, 3], device=backend.device)
    weights = torch.tensor([INF, 1.0], device=backend.device)
    losses, grad = run(logits, target, weights)
    assert losses[0] == 0
    assert (grad[0] == 0).all()
    torch.testing.assert_close(losses[1].item(), torch.tensor(5.0).log().item())
    nobody = torch.full((2,), -100, device=backend.device)
    assert stablemax_cross_entropy(logits, nobody).isnan()
    assert stablemax_cross_entropy(logits, nobody, reduction="sum") == 0
    assert stablemax_cross_entropy(logits[:0], target[:0], reduction="none").shape == (0,)
    assert (run(logits[:, :0], nobody, weights)[0] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [6, 3000])
def test_not_finite(backend, classes, dtype):
    """What the docstring says of NaN and of infinite logits; the rows beside them stay as they are."""
    logits = torch.zeros(7, classes, dtype=dtype, device=backend.device)
    logits[0, 3] = NAN  # at the target
    logits[1, 4] = NAN  # elsewhere
    logits[2, 3] = INF
    logits[3, 4] = INF
    logits[4, 3] = -INF
    logits[5, 4] = -INF
    target = torch.full((7,), 3, device=backend.device)
    losses, grad = run(logits, target, torch.ones(7, device=backend.device))
    assert losses[:2].isnan().all()
    assert grad[:2].isnan().all()
    assert losses[2] == 0
    assert (grad[2] == 0).all()
    assert losses[3] == INF
    assert grad[3, 3] == -1
    assert (grad[3, torch.arange(classes) != 3] == 0).all()
    assert losses[4] == INF
    assert grad[4, 3] == 0
    assert grad[5, 4] == 0
    rest = torch.tensor([classes - 1.0, classes - 2.0], dtype=torch.float64)
    torch.testing.assert_close(losses[[6, 5]].double().cpu(), torch.log1p(rest), rtol=STABLEMAX * UNIT[torch.float32], atol=0)


def arguments(backend, **changes):
    call = {
        "logits": torch.arange(12.0).view(3, 4),
        "target": torch.tensor([0, 3, -100]),
        "losses": torch.full((3,), 7.0),
        "rest": torch.full((3,), 7.0, dtype=torch.float64),
    } | changes
    return {name: tensor.to(backend.device) for name, tensor in call.items()}


SHARED = torch.zeros(24)
REFUSED = {
    "logits_flat": ({"logits": torch.zeros(12)}, r"logits has shape \[12\], expected contiguous \[rows, classes\]"),
    "logits_strided": ({"logits": torch.zeros(4, 3).t()}, r"logits has shape \[3, 4\], expected contiguous"),
    "logits_int": ({"logits": torch.zeros(3, 4, dtype=torch.int64)}, "logits has dtype int64, expected float32"),
    "target_float": ({"target": torch.zeros(3)}, "target has dtype float32, expected int64 or int32"),
    "target_short": ({"target": torch.zeros(2, dtype=torch.int64)}, r"target has shape \[2\], expected 3 contiguous labels"),
    "target_strided": ({"target": torch.zeros(6, dtype=torch.int64)[::2]}, r"target has shape \[3\], expected 3 contiguous"),
    "losses_short": ({"losses": torch.zeros(2)}, r"losses has shape \[2\], expected 3"),
    "losses_double": ({"losses": torch.zeros(3, dtype=torch.float64)}, "losses has dtype float64, expected float32"),
    "losses_single": ({"logits": torch.zeros(3, 4, dtype=torch.float64)}, "losses has dtype float32, expected float64"),
    "rest_single": ({"rest": torch.zeros(3)}, "rest has dtype float32, expected float64"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("op", ["stablemax_loss_", "stablemax_grad_"])
def test_refused(backend, op, case):
    changes, pattern = REFUSED[case]
    call = arguments(backend, **changes)
    grad = torch.full(call["logits"].shape, 7.0, dtype=call["logits"].dtype, device=backend.device)
    tensors = [*call.values()] if op == "stablemax_loss_" else [*call.values(), grad]
    pattern = pattern.replace("losses", "grad_losses") if op == "stablemax_grad_" else pattern
    with pytest.raises(RuntimeError) as caught:
        backend.op(op)(*tensors)
    assert re.search(f"{backend.namespace}::{op}: {pattern}", str(caught.value)), str(caught.value)
    assert (grad == 7).all()
    assert case.startswith(("losses", "rest")) or (call["losses"] == 7).all()


def test_refused_memory_and_labels(backend):
    call = arguments(backend)
    losses = call["logits"].view(-1)[4:7]
    with pytest.raises(RuntimeError, match=r"stablemax_loss_: logits and losses share memory"):
        backend.op("stablemax_loss_")(call["logits"], call["target"], losses, call["rest"])
    with pytest.raises(RuntimeError, match=r"stablemax_grad_: logits and grad share memory|grad and logits share memory"):
        backend.op("stablemax_grad_")(*call.values(), call["logits"])
    for label in (4, -1, 2**40):
        target = torch.tensor([0, label, 1], device=backend.device)
        if backend.device == "cuda":
            losses, grad = run(call["logits"], target, torch.ones(3, device="cuda"))
            assert losses.isnan().tolist() == [False, True, False]
            assert grad.isnan().any(1).tolist() == [False, True, False]
            continue
        with pytest.raises(RuntimeError, match=rf"target\[1\] is {label}, expected a class in \[0, 4\) or ignore_index = -100"):
            stablemax_cross_entropy(call["logits"], target)


def test_refused_by_the_function():
    logits = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'max'"):
        stablemax_cross_entropy(logits, torch.zeros(3, dtype=torch.int64), reduction="max")
    with pytest.raises(ValueError, match=r"logits has shape \(3, 4\), target \(4,\)"):
        stablemax_cross_entropy(logits, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"logits has shape \(\), target \(\)"):
        stablemax_cross_entropy(torch.tensor(1.0), torch.tensor(0))


def test_second_derivatives_are_refused():
    logits = torch.zeros(3, 4, requires_grad=True)
    loss = stablemax_cross_entropy(logits, torch.zeros(3, dtype=torch.int64))
    (grad,) = torch.autograd.grad(loss, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        grad.sum().backward()


def test_opcheck():
    logits, target, _ = problem(5, 12, torch.float32)
    losses, rest = torch.ops.momentum.stablemax_losses(logits, target, -100)
    torch.library.opcheck(torch.ops.momentum.stablemax_losses.default, (logits.requires_grad_(), target, -100))
    backward = (logits.detach(), target, torch.rand(5), rest, -100)
    torch.library.opcheck(torch.ops.momentum.stablemax_losses_backward.default, backward)
    torch.library.opcheck(torch.ops.momentum.stablemax_loss_.default, (logits.detach(), target, losses, rest))
    grad = torch.empty(5, 12)
    torch.library.opcheck(torch.ops.momentum.stablemax_grad_.default, (logits.detach(), target, losses, rest, grad))


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile(compiler):
    logits, target, _ = problem(8, 30, torch.float32)
    eager = logits.clone().requires_grad_()
    loss = stablemax_cross_entropy(eager, target)
    loss.backward()
    torch._dynamo.reset()
    traced = logits.clone().requires_grad_()
    found = torch.compile(stablemax_cross_entropy, backend=compiler, fullgraph=True)(traced, target)
    found.backward()
    torch.testing.assert_close(found, loss, rtol=8 * UNIT[torch.float32], atol=0)  # the mean may be summed in another order
    assert bit_equal(traced.grad, eager.grad)


def test_export():
    class Loss(torch.nn.Module):
        def forward(self, logits, target):
            return stablemax_cross_entropy(logits, target)

    logits, target, _ = problem(8, 30, torch.float32)
    program = torch.export.export(Loss(), (logits, target))
    assert any("momentum.stablemax_losses" in str(node.target) for node in program.graph.nodes)
    assert bit_equal(program.module()(logits, target), stablemax_cross_entropy(logits, target))


def test_examples_in_docstrings():
    result = doctest.testmod(functional)
    assert result.failed == 0
    assert result.attempted
