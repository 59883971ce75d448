"""The steps on NumPy arrays: bit for bit the torch ops, and refusals that write nothing."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

import backends
from arrays import assert_same_bits, run_on_arrays
from momentum import array
from momentum.enums import Cautious, DecayMode, Perpendicular, Residual, Rounding
from ops.call import make_call
from ops.cases import BF16, FP16, FP32, FP64, TensorCase
from rules import RULES

CPU = backends.BACKENDS["cpu"]
CASES = [
    TensorCase((0,)),
    TensorCase(()),
    TensorCase((7,)),
    TensorCase((129, 65), offset=1),
    TensorCase((70_001,)),
    TensorCase((5, 3, 4), FP16, FP16, (FP32, FP16, FP32)),
    TensorCase((33, 9), BF16, FP32, (BF16, FP32, FP32)),
    TensorCase((33, 9), FP64, FP64, (FP64,) * 3, FP64),
]
OPTIONS = {
    "plain": {"lr": [0.01]},
    "decay": {"lr": [0.01], "weight_decay": [0.1], "decay": DecayMode.DECOUPLED, "maximize": True},
    "per_tensor": {"lr": [0.001 * (i + 1) for i in range(len(CASES))], "seeds": list(range(len(CASES)))},
    "average": {"lr": [0.01], "ema": True, "ema_decay": 0.9},
    "perpendicular": {"lr": [0.01], "perpendicular": Perpendicular.PROJECTED},
    "renormalized": {"lr": [0.01], "perpendicular": Perpendicular.RENORMALIZED, "cautious": Cautious.RESCALED},
    "cautious": {"lr": [0.01], "cautious": Cautious.RESCALED},
    "compensated": {"lr": [0.01], "residual": Residual.KAHAN},
    "master": {"lr": [0.01], "residual": Residual.MASTER, "rounding": Rounding.STOCHASTIC, "seeds": [-3]},
    "scaled": {"lr": [0.01], "grad_scale": torch.tensor(128.0), "found_inf": torch.tensor(0.0)},
    "overflow": {"lr": [0.01], "grad_scale": torch.tensor(128.0), "found_inf": torch.tensor(1.0)},
    "lr_tensor": {"lr": [0.01], "lr_tensor": torch.tensor(0.02, dtype=FP64)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_bitwise_equal_to_the_torch_op(rule, options):
    for variant in rule.variants.values():
        ours = make_call(rule, variant, CASES, **options)
        theirs = ours.clone()
        run_on_arrays(ours)
        theirs.run(CPU)
        assert_same_bits(ours, theirs)


class Adam:
    """Arguments of one ordinary call, to be spoiled."""

    def __init__(self, *sizes: int) -> None:
        random = np.random.default_rng(0)
        shapes = sizes or (5, 3)
        self.params, self.grads, self.exp_avgs, self.exp_avg_sqs = (
            [random.random(shape, dtype=np.float32) for shape in shapes] for _ in range(4)
        )
        self.steps = np.zeros(len(shapes) + 1, np.float32)
        self.options = {"lr": 0.1}

    def lists(self):
        return self.params, self.grads, self.exp_avgs, self.exp_avg_sqs

    def run(self):
        array.adam_(*self.lists(), steps=self.steps, **self.options)

    def assert_refused(self, message, error=ValueError):
        before = [np.array(x) for arrays in self.lists() for x in arrays if isinstance(x, np.ndarray)]
        steps = self.steps.copy()
        with pytest.raises(error, match=message):
            self.run()
        after = [x for arrays in self.lists() for x in arrays if isinstance(x, np.ndarray)]
        assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))
        assert np.array_equal(self.steps, steps)


def test_totals_may_be_left_out():
    given, left_out = Adam(), Adam()
    given.options["cautious"] = left_out.options["cautious"] = Cautious.RESCALED
    given.options["perpendicular"] = left_out.options["perpendicular"] = Perpendicular.PROJECTED
    given.options["totals"] = np.zeros(2 + 3 * 2)
    given.run()
    left_out.run()
    for ours, theirs in zip(given.lists(), left_out.lists(), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(ours, theirs, strict=True))


def test_no_arrays():
    array.adam_([], [], [], [], steps=np.zeros(1, np.float32), lr=0.1)


def test_read_only_gradient_is_welcome():
    call = Adam()
    call.grads[0].flags.writeable = False
    call.run()
    assert call.steps.tolist() == [1, 1, 0]


@pytest.mark.parametrize("name", ["params", "exp_avgs", "exp_avg_sqs"])
def test_read_only(name):
    call = Adam()
    getattr(call, name)[1].flags.writeable = False
    call.assert_refused(rf"momentum\.array\.adam_: {name}\[1\]: is written, but the array is read-only")


@pytest.mark.parametrize("name", ["params", "grads", "exp_avgs", "exp_avg_sqs"])
def test_strided(name):
    call = Adam()
    getattr(call, name)[0] = np.zeros(10, np.float32)[::2]
    call.assert_refused(rf"{name}\[0\]: expected a C-contiguous array")


def test_transposed():
    call = Adam()
    for arrays in call.lists():
        arrays[0] = np.zeros((2, 3), np.float32).T
    call.assert_refused(r"params\[0\]: expected a C-contiguous array")


@pytest.mark.parametrize(("dtype", "name"), [(np.int32, "int32"), (np.complex64, "complex64"), (np.uint8, "uint8")])
def test_dtype_without_kernels(dtype, name):
    call = Adam()
    call.grads[1] = np.zeros(3, dtype)
    call.assert_refused(rf"grads\[1\]: expected float32, bfloat16, float16 or float64, got {name}")


def test_float64_state_of_a_float32_param():
    call = Adam()
    call.exp_avgs[0] = np.zeros(5)
    call.assert_refused(r"exp_avgs\[0\]: float64 goes with float64 params only, params\[0\] is float32")


def test_wrong_shape():
    call = Adam()
    call.exp_avg_sqs[1] = np.zeros((3, 1), np.float32)
    call.assert_refused(r"exp_avg_sqs\[1\]: expected shape \(3,\) as params\[1\], got \(3, 1\)")


def test_wrong_length():
    call = Adam()
    call.exp_avgs.pop()
    call.assert_refused(r"exp_avgs: expected 2 arrays, one for each of params, got 1")


def test_wrong_steps():
    call = Adam()
    call.steps = np.zeros(2, np.float32)
    call.assert_refused("steps: expected float32 with 3 elements, got float32 with 2")


def test_wrong_totals():
    call = Adam()
    call.options["totals"] = np.zeros(1)
    call.assert_refused("totals: expected float64 with 0 elements, got float64 with 1")


def test_no_array():
    call = Adam()
    call.grads[0] = [1.0, 2.0]
    call.assert_refused(r"grads\[0\]: expected an array with __dlpack__, not list", TypeError)


def test_a_single_array_is_no_list():
    call = Adam()
    call.params = call.params[0]
    call.params = call.params[0]
    with pytest.raises(TypeError):
        call.run()


@pytest.mark.parametrize(("first", "second"), [("params", "grads"), ("exp_avgs", "exp_avg_sqs")])
def test_shared_memory(first, second):
    call = Adam()
    getattr(call, first)[0] = getattr(call, second)[0]
    call.assert_refused(r"\[0\] and \w+\[0\] share memory")


def test_gradients_may_share_memory():
    call = Adam(4, 4)
    call.grads[1] = call.grads[0]
    call.run()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("lr", -0.1, "lr: expected a number in"),
        ("lr", float("nan"), "lr: expected a number in"),
        ("lr", [0.1, 0.1, 0.1], "lr: expected 1 number or one for each of the 2 params, got 3"),
        ("lr", "0.1", "lr: expected a number, got str"),
        ("beta1", 1.0, r"beta1: expected a number in \[0, 1\), got 1"),
        ("eps", float("inf"), "eps: expected a number in"),
        ("weight_decay", 0.1, "weight_decay: 0.1 would have no effect with decay NONE"),
        ("decay", 6, r"decay: expected a number in \[0, 5\], got 6"),
        ("perpendicular", 3, r"perpendicular: expected a number in \[0, 2\], got 3"),
        ("rounding", 0.5, "rounding: expected an integer, got 0.5"),
        ("residual", Residual.KAHAN, "residuals: expected 2 arrays, got none"),
        ("residuals", [np.zeros(5, np.float32)] * 2, "residuals: expected none with residual NONE, got 2"),
        ("scalars", [np.zeros(3, np.float32)] * 2, "scalars: expected 0 arrays"),
        ("lr_tensor", np.zeros(3), r"lr_tensor: expected one number, got shape \(3,\)"),
        ("lr_tensor", np.zeros((), np.float16), "lr_tensor: expected float32 or float64, got float16"),
        ("seeds", [1, 2, 3], "seeds: expected 1 integer or one for each of the 2 params, got 3"),
        ("stream", 0, "stream: given, but the arrays are on the CPU"),
    ],
)
def test_bad_option(option, value, message):
    call = Adam()
    call.options[option] = value
    call.assert_refused(message)


def test_unknown_and_missing_arguments():
    call = Adam()
    call.options["betas"] = (0.9, 0.99)
    call.assert_refused("unexpected keyword argument 'betas'", TypeError)
    with pytest.raises(TypeError, match="missing a required argument: 'lr'"):
        array.adam_(*call.lists(), steps=call.steps)
    with pytest.raises(TypeError, match="missing a required argument: 'scalars'"):
        array.stable_spam_(*call.lists(), steps=call.steps, lr=0.1)


def test_unknown_rule():
    with pytest.raises(AttributeError, match=r"module 'momentum\.array' has no attribute 'adamw_'"):
        array.adamw_  # noqa: B018
    assert {f"{name}_" for name in RULES} <= set(dir(array))


@pytest.fixture
def threads():
    yield array.set_num_threads
    array.set_num_threads(0)


def test_same_bits_with_any_number_of_threads(threads):
    results = []
    for count in (1, 2, 7):
        threads(count)
        assert array.get_num_threads() == count
        call = Adam(200_000, 3, 100_000)
        call.options["cautious"] = Cautious.RESCALED
        call.run()
        results.append([x.tobytes() for arrays in call.lists() for x in arrays])
    assert results[0] == results[1] == results[2]


def test_other_python_threads_run_meanwhile():
    call = Adam(20_000_000)
    ticks = 0
    done = threading.Event()

    def step():
        try:
            call.run()
        finally:
            done.set()

    worker = threading.Thread(target=step)
    worker.start()
    while not done.wait(0.001):
        ticks += 1
    worker.join()
    # With the interpreter lock held, the loop above could not turn while the step runs.
    assert ticks > 1


def test_exported_memory_is_released():
    import sys

    call = Adam()
    before = [sys.getrefcount(x) for arrays in call.lists() for x in arrays]
    for _ in range(10):
        call.run()
    assert [sys.getrefcount(x) for arrays in call.lists() for x in arrays] == before


def test_old_producers_of_dlpack():
    class Old:
        """Knows nothing of `max_version`, as arrays did before DLPack 1.0."""

        def __init__(self, values):
            self.values = values

        def __dlpack__(self, stream=None):
            return self.values.__dlpack__()

        def __dlpack_device__(self):
            return self.values.__dlpack_device__()

    ours, theirs = Adam(), Adam()
    for arrays in ours.lists():
        arrays[:] = [Old(x) for x in arrays]
    ours.run()
    theirs.run()
    for x, y in zip(ours.params, theirs.params, strict=True):
        assert np.array_equal(x.values, y)


def test_unknown_device():
    class Elsewhere:
        def __dlpack__(self, **kwargs):
            raise AssertionError("must not be asked")

        def __dlpack_device__(self):
            return 8, 0

    call = Adam()
    call.grads[0] = Elsewhere()
    call.assert_refused(r"grads\[0\]: expected an array on the CPU or a CUDA device, not on DLPack device type 8", TypeError)
