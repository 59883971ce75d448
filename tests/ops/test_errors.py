"""Refusals: the message names the op, the argument, the index and what was expected, and nothing has been written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch

from backends import Backend
from momentum.enums import Cautious, DecayMode, Residual, Rounding
from ops.call import Call, make_call
from ops.cases import BF16, FP16, FP32, FP64, TensorCase
from rules import RULES
from tolerances import bit_equal

CASES = [TensorCase((6, 4)), TensorCase((6, 4), BF16, BF16), TensorCase((5,)), TensorCase((3, 1), FP64, FP64)]
Change = Callable[[Call], None]


def adam(device: str) -> Call:
    """Return a good call that uses every list."""
    variant = RULES["adam"].variants["amsgrad"]
    return make_call(RULES["adam"], variant, CASES, device=device, ema=True, ema_decay=0.9, residual=Residual.KAHAN)


def replace(name: str, index: int, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def apply(call: Call) -> None:
        call.lists[name][index] = change(call.lists[name][index])

    return apply


def drop(name: str) -> Change:
    return lambda call: call.lists[name].pop()  # type: ignore[return-value]


def option(**values) -> Change:
    return lambda call: call.options.update(values)


def hyper(**values) -> Change:
    def apply(call: Call) -> None:
        call.options.update(values)
        call.variant = type(call.variant)({k: v for k, v in call.variant.hypers.items() if k not in values}, True)

    return apply


def attribute(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    return lambda call: setattr(call, name, change(getattr(call, name)))


def cast(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.to(dtype)


def alias(name: str, index: int, other: str, other_index: int) -> Change:
    def apply(call: Call) -> None:
        call.lists[name][index] = call.lists[other][other_index]

    return apply


def overlapping_views(call: Call) -> None:
    """Make two parameters of 24 elements each out of 40."""
    storage = torch.randn(40, device=call.steps.device)
    call.lists["params"][0] = storage[:24].view(6, 4)
    call.lists["exp_avgs"][0] = storage[16:].view(6, 4)


def strided(call: Call) -> None:
    """Give all tensors of one parameter the same strides, but leave gaps between their elements."""
    for tensors in call.lists.values():
        tensors[2] = torch.zeros(10, dtype=tensors[2].dtype, device=tensors[2].device)[::2]


def expanded(call: Call) -> None:
    for tensors in call.lists.values():
        tensors[2] = torch.zeros(1, dtype=tensors[2].dtype, device=tensors[2].device).expand(5)


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.t().contiguous().t()


NAN, INF = float("nan"), float("inf")
# These never reach the op: torch's dispatcher refuses them, and names the op and the kind of tensor.
META, SPARSE = "with Meta tensors", "from the 'Sparse(Csr)?(CPU|CUDA)' backend"

# Case: what is wrong with the call, and what the message must say.
REFUSED: dict[str, tuple[Change, str]] = {
    # Lengths of lists.
    "grads_short": (drop("grads"), r"grads has length 3, expected 4"),
    "states_short": (drop("exp_avg_sqs"), r"exp_avg_sqs has length 3, expected 4"),
    "optional_state_short": (drop("max_exp_avg_sqs"), r"max_exp_avg_sqs has length 3, expected 4"),
    "residuals_short": (drop("residuals"), r"residuals has length 3, expected 4"),
    "ema_short": (drop("ema_params"), r"ema_params has length 3, expected 4"),
    "required_state_missing": (lambda call: call.lists.pop("exp_avgs"), r"exp_avgs has length 0, expected 4"),
    "scalars_unexpected": (lambda call: call.lists.update(scalars=[torch.zeros(3)]), r"scalars has length 1, expected 0"),
    "steps_short": (attribute("steps", lambda t: t[:4]), r"steps has shape \[4\], expected 5"),
    "steps_long": (attribute("steps", lambda t: torch.cat([t, t])), r"steps has shape \[10\], expected 5"),
    "totals_long": (attribute("totals", lambda t: t.new_zeros(7)), r"totals has shape \[7\], expected 0"),
    "lr_length": (option(lr=[0.1, 0.1, 0.1]), r"lr has length 3, expected 4"),
    "weight_decay_length": (option(weight_decay=[0.0] * 5), r"weight_decay has length 5, expected 4"),
    "lr_empty": (option(lr=[]), r"lr has length 0, expected 4"),
    "seeds_length": (option(seeds=[1, 2]), r"seeds has length 2, expected 4"),
    "shards_length": (option(shards=[0, 1, 1, 0, 1]), r"shards has length 5, expected 12"),
    # Dtypes.
    "param_int": (replace("params", 2, cast(torch.int64)), r"params\[2\].*int64"),
    "param_complex": (replace("params", 2, cast(torch.complex64)), r"params\[2\].*complex64"),
    "grad_complex": (replace("grads", 1, cast(torch.complex64)), r"grads\[1\].*complex64"),
    "grad_int": (replace("grads", 0, cast(torch.int32)), r"grads\[0\].*int32"),
    "grad_wider": (replace("grads", 0, cast(FP64)), r"grads\[0\].*float64"),
    "state_int8": (replace("exp_avgs", 0, cast(torch.int8)), r"exp_avgs\[0\].*int8"),
    "state_wider": (replace("exp_avg_sqs", 1, cast(FP64)), r"exp_avg_sqs\[1\].*float64"),
    "ema_bool": (replace("ema_params", 1, cast(torch.bool)), r"ema_params\[1\].*bool"),
    "kahan_dtype": (replace("residuals", 1, cast(FP32)), r"residuals\[1\] has dtype float32, expected bfloat16"),
    "steps_double": (attribute("steps", cast(FP64)), r"steps has dtype float64, expected float32"),
    "steps_int": (attribute("steps", cast(torch.int32)), r"steps has dtype int32, expected float32"),
    "totals_single": (attribute("totals", cast(FP32)), r"totals has dtype float32, expected float64"),
    "grad_scale_half": (option(grad_scale=torch.tensor(1.0, dtype=FP16)), r"grad_scale has dtype float16, expected float32"),
    "found_inf_int": (option(found_inf=torch.tensor(0)), r"found_inf has dtype int64, expected float32"),
    "lr_tensor_int": (option(lr_tensor=torch.tensor(1)), r"lr_tensor has dtype int64, expected float32"),
    # Devices and layouts.
    "param_meta": (replace("params", 1, lambda t: t.to("meta")), META),
    "grad_meta": (replace("grads", 3, lambda t: t.to("meta")), META),
    "steps_meta": (attribute("steps", lambda t: t.to("meta")), META),
    "grad_sparse": (replace("grads", 0, torch.Tensor.to_sparse), SPARSE),
    "param_sparse": (replace("params", 0, torch.Tensor.to_sparse), SPARSE),
    "grad_csr": (replace("grads", 0, torch.Tensor.to_sparse_csr), SPARSE),
    # Shapes and strides.
    "grad_shape": (replace("grads", 0, lambda t: t[:5]), r"grads\[0\] has shape \[5, 4\], expected \[6, 4\]"),
    "grad_flat": (replace("grads", 0, lambda t: t.reshape(-1)), r"grads\[0\] has shape \[24\], expected \[6, 4\]"),
    "state_shape": (replace("exp_avgs", 2, lambda t: t[:4]), r"exp_avgs\[2\] has shape \[4\], expected \[5\]"),
    "ema_shape": (replace("ema_params", 3, lambda t: t.reshape(3)), r"ema_params\[3\] has shape \[3\], expected \[3, 1\]"),
    "grad_transposed": (replace("grads", 0, transposed), r"grads\[0\] has strides \[1, 6\], expected \[4, 1\]"),
    "state_transposed": (replace("exp_avg_sqs", 1, transposed), r"exp_avg_sqs\[1\] has strides \[1, 6\], expected \[4, 1\]"),
    "strided": (strided, r"params\[2\].*\[2\]"),
    "expanded": (expanded, r"params\[2\].*\[0\]"),
    "lr_tensor_shape": (option(lr_tensor=torch.ones(3)), r"lr_tensor has shape \[3\], expected one element or 4"),
    "beta_tensor_shape": (option(beta1_tensor=torch.full((4,), 0.9)), r"beta1_tensor.*\[4\]"),
    "grad_scale_shape": (option(grad_scale=torch.ones(4)), r"grad_scale.*\[4\]"),
    # Shared memory.
    "grad_is_param": (alias("grads", 0, "params", 0), r"params\[0\].*grads\[0\]|grads\[0\].*params\[0\]"),
    "state_is_param": (alias("exp_avgs", 0, "params", 0), r"(params|exp_avgs)\[0\].*(params|exp_avgs)\[0\]"),
    "states_shared": (alias("exp_avgs", 0, "exp_avg_sqs", 0), r"exp_avg(_sq)?s\[0\].*exp_avg(_sq)?s\[0\]"),
    "overlapping": (overlapping_views, r"(params|exp_avgs)\[0\].*(params|exp_avgs)\[0\].*(share|overlap)"),
    # Numbers.
    **{f"lr_{v}": (option(lr=[v]), r"\blr\b.*" + re.escape(str(v))) for v in (-0.1, NAN, INF)},
    "lr_of_one_tensor": (option(lr=[0.1, 0.1, -2.0, 0.1]), r"\blr\[2\].*-2"),
    **{f"weight_decay_{v}": (option(weight_decay=[v], decay=DecayMode.L2), r"weight_decay") for v in (-0.1, NAN, INF)},
    "weight_decay_without_mode": (option(weight_decay=[0.1]), r"weight_decay.*decay"),
    **{f"beta1_{v}": (hyper(beta1=v), r"beta1.*\[0, 1\)") for v in (-0.1, 1.0, NAN)},
    **{f"beta2_{v}": (hyper(beta2=v), r"beta2.*\[0, 1\)") for v in (-0.1, 1.0, NAN)},
    **{f"eps_{v}": (hyper(eps=v), r"eps") for v in (-1e-8, NAN, INF)},
    **{f"max_lr_{v}": (option(max_lr=v, decay=DecayMode.LR_DECOUPLED), r"max_lr") for v in (0.0, -1.0, NAN)},
    **{f"ema_decay_{v}": (option(ema_decay=v), r"ema_decay") for v in (-0.1, 1.5, NAN)},
    # Enumerations and stages.
    **{f"decay_{v}": (option(decay=v), r"\bdecay\b.*" + str(v)) for v in (-1, 6)},
    **{f"perpendicular_{v}": (option(perpendicular=v), r"perpendicular.*" + str(v)) for v in (-1, 3)},
    "perpendicular_without_totals": (option(perpendicular=1), r"totals has shape \[0\], expected 12"),
    **{f"cautious_{v}": (option(cautious=v), r"cautious.*" + str(v)) for v in (-1, 3)},
    **{f"residual_{v}": (option(residual=v), r"residual.*" + str(v)) for v in (-1, 4)},
    **{f"rounding_{v}": (option(rounding=v), r"rounding.*" + str(v)) for v in (-1, 2)},
    **{f"stage_{v}": (option(stage=v), r"stage.*" + str(v)) for v in (-2, 1)},
    "residual_without_list": (lambda call: call.lists.pop("residuals"), r"residuals has length 0, expected 4"),
    "list_without_residual": (option(residual=Residual.NONE), r"residual"),
    "cautious_without_totals": (option(cautious=Cautious.RESCALED), r"totals has shape \[0\], expected 4"),
    "kahan_with_stochastic": (option(rounding=Rounding.STOCHASTIC), r"rounding"),
}


def assert_refused(call: Call, backend: Backend, pattern: str) -> None:
    """Run a call that must be refused, and compare the bytes of all its tensors."""
    real = {name: t for name, t in call.tensors().items() if t.layout == torch.strided and t.device.type != "meta"}
    before = {name: t.clone() for name, t in real.items()}
    with pytest.raises(RuntimeError) as caught:
        call.run(backend)
    message = str(caught.value)
    assert re.search(pattern, message), message
    assert f"{backend.namespace}::{call.rule.name}_" in message
    for name, tensor in real.items():
        assert bit_equal(tensor, before[name]), f"{name} was written"


@pytest.mark.parametrize("case", REFUSED)
def test_refused(backend, case):
    change, pattern = REFUSED[case]
    call = adam(backend.device)
    change(call)
    assert_refused(call, backend, pattern)


def test_one_parameter_twice(backend):
    call = adam(backend.device)
    call.lists["params"][1] = call.lists["params"][0]
    call.lists["residuals"][1] = call.lists["residuals"][0].clone()
    assert_refused(call, backend, r"params\[[01]\].*params\[[01]\].*(share|overlap)")


def test_other_device(backend):
    if backend.device != "cuda":
        pytest.skip("needs two devices")
    call = adam("cuda")
    call.lists["grads"][2] = call.lists["grads"][2].cpu()
    assert_refused(call, backend, r"grads\[2\] is on cpu, expected cuda:0")


def test_none_in_a_list(backend):
    call = adam(backend.device)
    before = call.clone()
    call.lists["grads"][1] = None  # type: ignore[call-overload]
    with pytest.raises((RuntimeError, TypeError), match=r"(?s)adam_.*grads"):
        call.run(backend)
    for name, tensors in before.lists.items():
        if name != "grads":
            assert all(map(bit_equal, tensors, call.lists[name])), name


def test_strides_of_single_elements_do_not_matter(backend):
    """A dimension of size 1 addresses nothing, so [3, 1] may have strides (1, 1), (1, 7) or (1, 0)."""
    call = adam(backend.device)
    plain = call.clone()
    for name, stride in [("grads", 7), ("exp_avgs", 0), ("params", 3)]:
        tensor = call.lists[name][3]
        call.lists[name][3] = tensor.as_strided((3, 1), (1, stride), tensor.storage_offset())
    call.run(backend)
    plain.run(backend)
    assert all(map(bit_equal, plain.lists["params"], call.lists["params"]))


RULE_HYPERS = {
    "sgd": {"momentum": (-0.1, NAN, INF), "dampening": (NAN,)},
    "lion": {"beta1": (-0.1, 1.0, NAN), "beta2": (-0.1, 1.0), "threshold": (-0.1, NAN)},
    "lion_top_k": {"beta1": (-0.1, 1.0, NAN), "beta2": (1.0,), "density": (-0.1, 1.5, NAN), "count": (-1,)},
    "adabelief": {"beta1": (-0.1, 1.0), "beta2": (-0.1, 1.0, NAN), "eps": (-1.0, INF)},
    "diffgrad": {"beta1": (-0.1, 1.0), "beta2": (-0.1, 1.0), "eps": (-1.0,)},
    "adan": {"beta1": (1.0,), "beta2": (1.0,), "beta3": (-0.1, 1.0, NAN), "eps": (-1.0,)},
    "sophia": {"beta1": (1.0,), "scale": (-1.0, NAN), "clip": (-1.0,), "eps": (-1.0,)},
    "hessian_ema": {"scale": (-1.0, NAN)},
    "spam": {"threshold": (-1.0, NAN), "reset_interval": (-1,), "warmup_steps": (-1,), "accumulation_steps": (-1,)},
    "stable_spam": {
        "gamma1": (-0.1, 1.0, NAN),
        "gamma2": (-0.1, 1.0),
        "theta": (-0.1, 1.0),
        "eta_min": (-0.1, 1.1),
        "total_steps": (-1,),
        "reset_interval": (-1,),
    },
    "scale": {"momentum": (-0.1, 1.0, NAN), "axis": (-1, 2), "eps": (-1.0, NAN), "mix": (-0.1, NAN)},
    "normalized": {"momentum": (-0.1, 1.0, NAN), "eps": (-1.0, NAN), "mix": (-0.1,)},
    "adaptive_memory": {"pull": (-0.1, NAN), "beta2": (1.0,), "eps": (-1.0,)},
    "sgd_sai": {"momentum": (-0.1, 1.0, NAN)},
}
RULE_VALUES = [(rule, name, v) for rule, hypers in RULE_HYPERS.items() for name, values in hypers.items() for v in values]


@pytest.mark.parametrize(("rule", "name", "value"), RULE_VALUES)
def test_hyper_parameters(backend, rule, name, value):
    variant = list(RULES[rule].variants.values())[-1]
    call = make_call(RULES[rule], variant, CASES[:2], device=backend.device)
    hyper(**{name: value})(call)
    shown = "nan|NaN" if isinstance(value, float) and math.isnan(value) else re.escape(f"{value:g}")
    assert_refused(call, backend, rf"\b{name}\b.*({shown})")


def test_scalars(backend):
    variant = RULES["stable_spam"].variants["plain"]

    def call() -> Call:
        return make_call(RULES["stable_spam"], variant, CASES[:2], device=backend.device)

    for change, pattern in [
        (drop("scalars"), r"scalars has length 1, expected 2"),
        (replace("scalars", 1, cast(FP64)), r"scalars\[1\] has dtype float64, expected float32"),
        (replace("scalars", 1, lambda t: t[:2]), r"scalars\[1\] has shape \[2\], expected 3"),
        (attribute("totals", lambda t: t[:3]), r"totals has shape \[3\], expected 4"),
        (option(stage=5), r"stage.*5"),
        (alias("scalars", 0, "scalars", 1), r"scalars\[[01]\].*scalars\[[01]\]"),
    ]:
        bad = call()
        change(bad)
        assert_refused(bad, backend, pattern)


def test_lines_need_row_major_memory(backend):
    """Rows and columns are those of the memory: another order of dimensions is refused, not misread."""
    call = make_call(
        RULES["scale"],
        RULES["scale"].variants["rows"],
        [TensorCase((4, 6)), TensorCase((4, 6), layout="transposed")],
        device=backend.device,
    )
    assert_refused(call, backend, r"params\[1\].*contiguous")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"xs": [torch.ones(3, dtype=torch.int64)]}, r"xs\[0\].*int64"),
        ({"xs": [torch.ones(4, 4).t(), torch.ones(3, 2).t()], "axis": 0}, r"xs\[\d\].*contiguous"),
        ({"kind": 5}, r"\bkind\b.*5"),
        ({"kind": 4}, r"ys has length 0, expected 1"),
        ({"axis": 2}, r"axis.*2"),
        ({"kind": 2, "ys": []}, r"ys has length 0, expected 1"),
        ({"kind": 2, "ys": [torch.ones(5)]}, r"ys\[0\] has shape \[5\], expected \[4\]"),
        ({"out": torch.zeros(2, dtype=torch.float64)}, r"out has shape \[2\], expected 1"),
        ({"out": torch.zeros(1)}, r"out has dtype float32, expected float64"),
    ],
)
def test_segment_reduce(backend, change, pattern):
    arguments = {"xs": [torch.ones(4)], "ys": [], "out": torch.full((1,), -7.0, dtype=torch.float64), "kind": 1, "axis": -1}
    arguments |= change
    xs, ys = ([t.to(backend.device) for t in arguments.pop(name)] for name in ("xs", "ys"))
    out = arguments.pop("out").to(backend.device)
    before = out.clone()
    with pytest.raises(RuntimeError, match=rf"{backend.namespace}::segment_reduce.*{pattern}"):
        backend.op("segment_reduce")(xs, ys, out, **arguments)
    assert bit_equal(out, before)
